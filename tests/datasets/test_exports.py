"""Exports: samples are read back as written, also after interruptions."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from exported import SMALL, opened
from filelock import FileLock
from killing import die_at
from PIL import Image
from refusals import refused

from unetzoo.datasets import Composites, CompositesExport, Transform, write_export
from unetzoo.errors import ConfigError, DataError, RunLockedError


def content(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def folders(tmp_path):
    """Ten cut-outs, scenes, and depth maps in millimeters with gaps."""
    rng = np.random.default_rng(0)
    for name in ("fg", "bg", "depth"):
        (tmp_path / "sources" / name).mkdir(parents=True)
    for i in range(10):
        rgba = rng.integers(0, 256, (20, 16, 4), np.uint8)
        rgba[4:16, 4:12, 3] = 255
        Image.fromarray(rgba).save(tmp_path / "sources" / "fg" / f"my_cut_{i}.png")
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / "sources" / "bg" / f"bg_{i}.png")
        depth = rng.integers(500, 4000, (32, 32)).astype(np.uint16)
        depth[:, :8] = 0
        Image.fromarray(depth).save(tmp_path / "sources" / "depth" / f"bg_{i}.png")
    return tmp_path / "sources"


@pytest.mark.parametrize(
    "options",
    [{}, {"positions": "grid"}, {"jitter": True}, {"split": "val", "seed": 3}, {"positions": "grid", "length": "all"},
     {"root": True}, {"root": True, "depth": "depth", "depth_scale": 0.001, "depth_gaps": True, "jitter": True}],
    ids=lambda options: "-".join(options) or "plain",
)  # fmt: skip
def test_exports_are_read_back_as_written(tmp_path, folders, options):
    if "root" in options:
        options = {**options, "root": folders}
    data = Composites(**{**SMALL, "split": "test", "length": 12, **options})
    assert write_export(data, tmp_path / "out") == len(data)
    read = CompositesExport(tmp_path / "out", "all")
    assert len(read) == len(data) and read.depth_source == data.depth_source
    unit = data.check() / 65535 if "depth" in options else 1 / 65535
    by_stem = {sample["id"]: sample for sample in read}
    for i in range(len(data)):
        truth, stem = data[i], data.stem(i)
        found = by_stem[stem]
        assert found.keys() == truth.keys()
        assert (found["image"] == truth["image"]).all() and (found["mask"] == truth["mask"]).all()
        assert found["image"].dtype == found["mask"].dtype == np.uint8 and found["depth"].dtype == np.float32
        assert np.abs(found["depth"].astype(float) - truth["depth"])[found.get("valid", ...)].max() <= unit / 2 + 3e-7
        if "valid" in truth:
            assert (found["valid"] == truth["valid"]).all() and not truth["valid"].all()
        # and as anybody reads it
        assert (opened(tmp_path / "out" / "fg_bg" / f"{stem}.png") == truth["image"][..., :3]).all()
        assert (opened(tmp_path / "out" / "fg_bg_mask" / f"{stem}.png") == truth["mask"] * 255).all()
        assert opened(tmp_path / "out" / "fg_bg_depth" / f"{stem}.png").dtype == np.uint16
    told = json.loads((tmp_path / "out" / "composites.json").read_text())
    assert told["seed"] == data.seed and told["count"] == len(data) and told["depth"]["unit"] == pytest.approx(unit)
    assert told["depth"]["source"] == data.depth_source and told["unetzoo"]
    assert len(list((tmp_path / "out" / "bg").iterdir())) == (len(data) if data.jitter else len(data.backgrounds))


def test_splits_and_channels(tmp_path):
    data = Composites("all", length=400, foregrounds=20, backgrounds=20, size=16, jitter=True)
    write_export(data, tmp_path)
    which = {data.stem(i): data.combination(i) for i in range(len(data))}
    total = 0
    for split in ("train", "val", "test"):
        part, composed = CompositesExport(tmp_path, split), Composites(split, foregrounds=20, backgrounds=20)
        inside = {stem for stem, w in which.items() if w.foreground in composed.foregrounds and
                  w.background in composed.backgrounds}  # fmt: skip
        assert set(part.stems) == inside and inside
        total += len(part)
        assert CompositesExport(tmp_path, split, channels=3).stems == part.stems
    assert total < 400  # those that mix splits belong to none
    three = CompositesExport(tmp_path, "all", channels=3)
    assert (three[3]["image"] == CompositesExport(tmp_path, "all")[3]["image"][..., :3]).all()
    assert three.image_kinds == {"fg_bg": 3} and "samples=400" in repr(three)
    assert three[0]["id"] == three.stems[0] and len(pickle.dumps(three)) < 100_000
    sample = CompositesExport(tmp_path, "all", transform=Transform())[0]
    assert sample["image"].shape == (6, 16, 16) and sample["depth"].shape == (1, 16, 16)


def test_an_export_of_one_split_has_no_other_splits(tmp_path):
    write_export(Composites("val", 16, 5), tmp_path)
    assert len(CompositesExport(tmp_path, "val")) == 5
    with refused(DataError, found="an export of split 'val'"):
        CompositesExport(tmp_path, "train")


def test_jpeg_like_the_originals(tmp_path):
    data = Composites(**SMALL, length=6)
    write_export(data, tmp_path, jpeg=95)
    assert {path.suffix for path in (tmp_path / "fg_bg").iterdir()} == {".jpg"}
    assert {path.suffix for path in (tmp_path / "fg_bg_mask").iterdir()} == {".png"}
    found = {sample["id"]: sample for sample in CompositesExport(tmp_path, "all")}
    for i in range(6):
        sample = found[data.stem(i)]
        assert (sample["mask"] == data[i]["mask"]).all()
        error = np.abs(sample["image"].astype(int) - data[i]["image"])
        assert 0 < error.mean() < 8 and np.abs(sample["depth"] - data[i]["depth"]).mean() < 0.02


def test_processes_write_the_same(tmp_path):
    data = Composites(**SMALL, length=40, jitter=True)
    counts = []
    write_export(data, tmp_path / "one", tell=counts.append)
    assert sum(counts) == 40
    assert write_export(data, tmp_path / "two", workers=2) == 40
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_a_second_call_completes(tmp_path):
    data = Composites(**SMALL, length=12)
    write_export(data, tmp_path / "whole")
    write_export(data, tmp_path / "part")
    for i in (3, 7):
        (tmp_path / "part" / "fg_bg" / f"{data.stem(i)}.png").unlink()
    (tmp_path / "part" / "fg_bg_mask" / f"{data.stem(3)}.png").unlink()
    (tmp_path / "part" / "bg" / "bg003.png").unlink()
    (tmp_path / "part" / "fg_bg" / f".{data.stem(3)}.png.123.tmp").write_bytes(b"half")
    with refused(DataError, expected="12", found="10", hint="continues"):
        CompositesExport(tmp_path / "part", "all")
    assert write_export(data, tmp_path / "part") == 2
    assert content(tmp_path / "part") == content(tmp_path / "whole")
    assert write_export(data, tmp_path / "part") == 0


def write_and_die(data, folder):
    die_at(folder, 100)
    write_export(data, folder)


def test_a_kill_loses_nothing(tmp_path):
    data, there = Composites(**SMALL, length=100, jitter=True), 0
    for _ in range(2):
        process = multiprocessing.get_context("spawn").Process(target=write_and_die, args=(data, tmp_path / "part"))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        before, there = there, len(list(tmp_path.glob("part/fg_bg/*.png")))
        assert before < there < 100
    assert write_export(data, tmp_path / "part") == 100 - there
    write_export(data, tmp_path / "whole")
    assert content(tmp_path / "part") == content(tmp_path / "whole")


def test_only_one_writes(tmp_path):
    with FileLock(tmp_path / ".lock"), pytest.raises(RunLockedError, match="another process"):
        write_export(Composites(**SMALL, length=2), tmp_path)


def test_foreign_folders_are_left_alone(tmp_path, folders):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match=r"mine\.txt"):
        write_export(Composites(**SMALL), tmp_path)
    with pytest.raises(DataError, match="cannot write"):
        write_export(Composites(**SMALL), tmp_path / "mine.txt")
    out = tmp_path / "out"
    write_export(Composites(**SMALL, length=2), out)
    for other in ({"seed": 1}, {"length": 3}, {"jitter": True}, {"size": 48}, {"split": "val"}):
        with pytest.raises(DataError, match=f"other settings.*{'count' if 'length' in other else next(iter(other))}"):
            write_export(Composites(**{**SMALL, "length": 2, **other}), out)
    with pytest.raises(DataError, match="images 'jpeg 80'"):
        write_export(Composites(**SMALL, length=2), out, jpeg=80)
    data = Composites("all", 32, 2, root=folders)
    write_export(data, tmp_path / "files")
    Image.new("RGB", (32, 32)).save(folders / "bg" / "bg_0.png")
    with refused(DataError, expected="sources"):
        write_export(Composites("all", 32, 2, root=folders), tmp_path / "files")


def test_a_full_disk(tmp_path, monkeypatch):
    data = Composites(**SMALL, length=10)
    write, calls = Path.write_bytes, []

    def full(path, data):
        calls.append(path)
        if len(calls) > 17:
            write(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(DataError, match="space"):
            write_export(data, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".tmp"]
    assert write_export(data, tmp_path) > 0 and len(CompositesExport(tmp_path, "all")) == 10
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 1000))
        with refused(DataError, expected="about", hint="free"):
            write_export(data, tmp_path / "other")
        assert write_export(data, tmp_path) == 0  # nothing is left to write


def test_a_folder_without_permission(tmp_path, monkeypatch):
    def denied(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "write_bytes", denied)  # the tests may run as root, who may write anywhere
    with refused(DataError, found="Permission denied", hint="permissions"):
        write_export(Composites(**SMALL), tmp_path)


def test_composites_that_cannot_be_exported(tmp_path, folders):
    with pytest.raises(ConfigError, match="6 channels"):
        write_export(Composites(channels=3), tmp_path / "out")
    for quality in (0, 101, 90.5):
        with pytest.raises(ConfigError, match="jpeg"):
            write_export(Composites(**SMALL), tmp_path / "out", jpeg=quality)
    with pytest.raises(ConfigError, match="JPEG"):
        write_export(Composites("all", root=folders, depth="depth"), tmp_path / "out", jpeg=90)
    with pytest.raises(ConfigError, match="workers"):
        write_export(Composites(**SMALL, length=2), tmp_path / "workers", workers=-1)
    Image.new("RGBA", (8, 8)).save(folders / "fg" / "my_cut_2.png")
    Image.new("RGB", (8, 8)).save(folders / "fg" / "my_cut_3.png")
    with refused(DataError, found=("2 faults", "empty cut-out", "my_cut_2", "no transparency", "my_cut_3")):
        write_export(Composites("all", root=folders), tmp_path / "out")
    Image.new("RGBA", (8, 8), "red").save(folders / "fg" / "my_cut_2flip.png")
    with pytest.raises(ConfigError, match="ambiguous names"):
        write_export(Composites("all", root=folders), tmp_path / "out")


@pytest.mark.realdata
def test_real_sources_written_and_read(real, tmp_path):
    data = Composites("all", 96, 24, root=real / "fgbg_depth", positions="grid")
    write_export(data, tmp_path)
    found = {sample["id"]: sample for sample in CompositesExport(tmp_path, "all")}
    for i in range(24):
        assert (found[data.stem(i)]["image"] == data[i]["image"]).all()
        assert (found[data.stem(i)]["mask"] == data[i]["mask"]).all()
        assert np.abs(found[data.stem(i)]["depth"] - data[i]["depth"]).max() <= 0.5 / 65535 + 1e-7
