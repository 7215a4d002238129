"""Exports: what is written comes back, whatever stops the writing; what others wrote is read."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from unetzoo.datasets import Composites, CompositesExport, Transform, cached, write_export
from unetzoo.datasets.export_files import identities
from unetzoo.errors import (
    ConfigError,
    DataError,
    ImageDecodeError,
    LabelRangeError,
    PairingError,
    RunLockedError,
    SizeMismatchError,
)

SMALL = {"size": 32, "foregrounds": 10, "backgrounds": 10}
FOLDERS = ("fg_bg", "fg_bg_mask", "fg_bg_depth", "bg")


def opened(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def content(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def folders(tmp_path):
    """Ten cut-outs, scenes, and depth maps in millimetres with gaps."""
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
def test_what_is_written_comes_back(tmp_path, folders, options):
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


def test_an_export_of_one_split_stays_one(tmp_path):
    write_export(Composites("val", 16, 5), tmp_path)
    assert len(CompositesExport(tmp_path, "val")) == 5
    with pytest.raises(DataError, match=r"no composites of split 'train'.*an export of split 'val'"):
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
    with pytest.raises(DataError, match=r"unfinished export.*expected 12.*found 10.*goes on"):
        CompositesExport(tmp_path / "part", "all")
    assert write_export(data, tmp_path / "part") == 2
    assert content(tmp_path / "part") == content(tmp_path / "whole")
    assert write_export(data, tmp_path / "part") == 0


def test_a_kill_loses_nothing(tmp_path):
    data = Composites(**SMALL, length=400, jitter=True)
    for _ in range(2):
        before = len(list(tmp_path.glob("part/fg_bg/*.png")))
        process = multiprocessing.get_context("spawn").Process(target=write_export, args=(data, tmp_path / "part"))
        process.start()
        while process.is_alive() and len(list(tmp_path.glob("part/fg_bg/*.png"))) < before + 20:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    there = len(list(tmp_path.glob("part/fg_bg/*.png")))
    assert 40 <= there < 400, "killed too late"
    assert write_export(data, tmp_path / "part") == 400 - there
    write_export(data, tmp_path / "whole")
    assert content(tmp_path / "part") == content(tmp_path / "whole")


def test_only_one_writes(tmp_path):
    with FileLock(tmp_path / ".lock"), pytest.raises(RunLockedError, match="another process"):
        write_export(Composites(**SMALL, length=2), tmp_path)


def test_foreign_folders_are_left_alone(tmp_path, folders):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds other things.*mine\.txt"):
        write_export(Composites(**SMALL), tmp_path)
    with pytest.raises(DataError, match="cannot write"):
        write_export(Composites(**SMALL), tmp_path / "mine.txt")
    out = tmp_path / "out"
    write_export(Composites(**SMALL, length=2), out)
    for other in ({"seed": 1}, {"length": 3}, {"jitter": True}, {"size": 48}, {"split": "val"}):
        with pytest.raises(DataError, match=f"other settings.*{'count' if 'length' in other else next(iter(other))}"):
            write_export(Composites(**{**SMALL, "length": 2, **other}), out)
    with pytest.raises(DataError, match="pictures 'jpeg 80'"):
        write_export(Composites(**SMALL, length=2), out, jpeg=80)
    data = Composites("all", 32, 2, root=folders)
    write_export(data, tmp_path / "files")
    Image.new("RGB", (32, 32)).save(folders / "bg" / "bg_0.png")
    with pytest.raises(DataError, match=r"other settings: expected sources"):
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
        with pytest.raises(DataError, match=r"cannot write.*No space left.*free some"):
            write_export(data, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".tmp"]
    assert write_export(data, tmp_path) > 0 and len(CompositesExport(tmp_path, "all")) == 10
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 1000))
        with pytest.raises(DataError, match=r"not enough space.*expected about .*free"):
            write_export(data, tmp_path / "other")
        assert write_export(data, tmp_path) == 0  # nothing is left to write


def test_a_folder_without_permission(tmp_path, monkeypatch):
    def denied(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "write_bytes", denied)  # the tests may run as root, who may write anywhere
    with pytest.raises(DataError, match=r"cannot write.*Permission denied.*permissions"):
        write_export(Composites(**SMALL), tmp_path)


def test_what_cannot_be_exported(tmp_path, folders):
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
    with pytest.raises(DataError, match=r"(?s)2 faults.*empty cut-out.*my_cut_2.*no transparency.*my_cut_3"):
        write_export(Composites("all", root=folders), tmp_path / "out")
    Image.new("RGBA", (8, 8), "red").save(folders / "fg" / "my_cut_2flip.png")
    with pytest.raises(ConfigError, match="ambiguous names"):
        write_export(Composites("all", root=folders), tmp_path / "out")


@pytest.mark.parametrize(
    ("stem", "scenes", "names"),
    [
        ("fg021flip_bg94_05", (), ("fg021", "bg94")),
        ("fg021_bg94_05", {"bg9", "bg94"}, ("fg021", "bg94")),
        ("_base_fg_fg001_bg_bg1_20", {"bg1"}, ("fg001", "bg1")),
        ("FGFLIP_BG_flip_fg_fg001_bg_bg1_01", (), ("fg001", "bg1")),
        ("ak_fg_001flip_ak_bg_005_000012", {"ak_bg_005", "bg_005"}, ("ak_fg_001", "ak_bg_005")),
        ("ak_fg_001_bg1_000012", {"bg1"}, ("ak_fg_001", "bg1")),
        ("img_0050", (), None), ("fg_bg_638", (), None), ("img_0050", {"bg1"}, None), ("fg1_bg2", {"bg2"}, None),
    ],
)  # fmt: skip
def test_names(stem, scenes, names):
    assert identities(stem, scenes) == names


@pytest.fixture
def original(tmp_path):
    """A small export as the original made it: JPEG throughout, `fg001flip_bg1_05`, one scene file each."""
    rng = np.random.default_rng(0)
    for kind in FOLDERS:
        (tmp_path / kind).mkdir()
    for bg in range(1, 11):
        Image.new("RGB", (40, 30), (20 * bg, 0, 0)).save(tmp_path / "bg" / f"bg{bg}.jpg")
    for fg in range(1, 11):
        for bg in range(1, 11):
            mask = np.zeros((30, 40), np.uint8)
            mask[5 : 10 + fg, 6:20] = 255
            stem = f"fg{fg:03d}{'flip' * (bg % 2)}_bg{bg}_05"
            picture = np.where(mask[..., None] > 0, np.uint8(200), np.uint8(20 * bg)).repeat(3, axis=2)
            for kind, array in (("fg_bg", picture), ("fg_bg_mask", mask)):
                Image.fromarray(array).save(tmp_path / kind / f"{stem}.jpg", quality=90)
            depth = Image.fromarray(rng.integers(50, 60, (30, 40)).astype(np.uint8))
            depth.convert("RGB" if bg == 1 else "L").save(tmp_path / "fg_bg_depth" / f"{stem}.jpg")
    return tmp_path


def test_the_originals_layout(original):
    with pytest.raises(DataError, match=r"lossy masks.*100 JPEG files.*mask_threshold=128"):
        CompositesExport(original)
    data = CompositesExport(original, mask_threshold=128)
    sample = data[data.stems.index("fg003flip_bg7_05")]
    truth = np.zeros((30, 40), bool)
    truth[5:13, 6:20] = True
    assert (sample["mask"] == truth).all() and set(np.unique(sample["mask"])) == {0, 1}
    assert abs(int(sample["image"][0, 0, 3]) - 140) < 3 and sample["image"].shape == (30, 40, 6)
    assert 0.15 < sample["depth"].min() and sample["depth"].max() < 0.3 and "valid" not in sample
    assert data.depth_source == "files"
    parts = {split: CompositesExport(original, split, mask_threshold=128).stems for split in ("train", "val", "test")}
    assert (len(parts["train"]), parts["val"], parts["test"]) == (64, ["fg009flip_bg9_05"], ["fg010_bg10_05"])
    assert len(data.sources()) == 64 * 3 + 8
    with pytest.raises(ConfigError, match="mask_threshold"):
        CompositesExport(original, mask_threshold=0)
    with pytest.raises(ConfigError, match="channels"):
        CompositesExport(original, channels=4)
    gaps = CompositesExport(original, mask_threshold=128, depth_scale=0.1, depth_gaps=True)[0]
    assert 4.9 < gaps["depth"].max() < 6.5 and gaps["valid"].all()
    shutil.rmtree(original / "fg_bg_depth")
    without = CompositesExport(original, mask_threshold=128)
    assert "depth" not in without[0] and without.depth_source == "none"


def test_scenes_by_stem_are_divided_by_their_content(original):
    """Names that tell nothing: 100 composites in 10 scenes, each with a scene file of its own."""
    scenes = {}
    for number, path in enumerate(sorted((original / "fg_bg").iterdir())):
        names = identities(path.stem)
        for kind in FOLDERS[:3]:
            (original / kind / path.name).rename(original / kind / f"img_{number:04d}.jpg")
        shutil.copy(original / "bg" / f"{names[1]}.jpg", original / "bg" / f"img_{number:04d}.jpg")
        scenes[f"img_{number:04d}"] = names[1]
    for path in (original / "bg").glob("bg*"):
        path.unlink()
    sets = []
    for split in ("train", "val", "test"):
        stems = CompositesExport(original, split, mask_threshold=128, split_seed=1).stems
        sets.append({scenes[stem] for stem in stems})
        assert len(stems) == 10 * len(sets[-1])
    assert [len(s) for s in sets] == [8, 1, 1] and len(set.union(*sets)) == 10
    assert CompositesExport(original, "all", mask_threshold=128)[0]["image"].shape[2] == 6
    with pytest.raises(DataError, match=r"split cannot be told.*channels=6"):
        CompositesExport(original, "train", mask_threshold=128, channels=3)


def test_faults_of_an_export(original):
    def read(**options):
        return CompositesExport(original, "all", mask_threshold=128, **options)

    Image.new("L", (40, 31)).save(original / "fg_bg_depth" / "fg001_bg2_05.jpg")
    Image.new("RGB", (41, 30)).save(original / "bg" / "bg3.jpg")
    (original / "fg_bg" / "fg001_bg4_05.jpg").write_bytes(b"\xff\xd8\xff broken")
    data = read()
    for stem, what in (("fg001_bg2_05", r"fg_bg_depth and fg_bg differ.*40×30.*40×31"), ("fg001flip_bg3_05", "bg and")):
        with pytest.raises(SizeMismatchError, match=what):
            data[data.stems.index(stem)]
    with pytest.raises(ImageDecodeError, match="fg001_bg4"):
        data[data.stems.index("fg001_bg4_05")]
    (original / "fg_bg_mask" / "fg002_bg2_05.jpg").unlink()
    (original / "fg_bg" / "fg003_bg2_05.jpg").unlink()
    (original / "bg" / "bg5.jpg").unlink()
    shutil.copy(original / "fg_bg" / "fg004_bg2_05.jpg", original / "fg_bg" / "fg004_bg2_05.jpeg")
    with pytest.raises(PairingError, match=r"(?s)14 faults.*share a stem.*has no scene") as caught:
        read()
    assert all(
        part in str(caught.value) for part in ("fg002_bg2_05.jpg has no file in fg_bg_mask/", "has no composite")
    )
    shutil.rmtree(original / "fg_bg_mask")
    with pytest.raises(DataError, match=r"no export.*expected bg/, fg_bg/, fg_bg_mask/, found bg/, fg_bg/.*compose"):
        read()
    (original / "fg_bg_mask").mkdir()
    with pytest.raises(DataError, match="no pictures"):
        read()
    with pytest.raises(DataError, match="no such folder"):
        CompositesExport(original / "nowhere")
    with pytest.raises(ConfigError, match="did you mean 'val'"):
        CompositesExport(original, "vall")


def test_greys_in_png_masks(tmp_path):
    data = Composites(**SMALL, length=3)
    write_export(data, tmp_path)
    path = tmp_path / "fg_bg_mask" / f"{data.stem(1)}.png"
    Image.fromarray(opened(path) // 255 * np.uint8(200)).save(path)
    read = CompositesExport(tmp_path, "all")
    with pytest.raises(LabelRangeError, match=r"greys in a mask.*200 \(.*mask_threshold=128"):
        read[read.stems.index(data.stem(1))]
    lenient = CompositesExport(tmp_path, "all", mask_threshold=128)
    assert (lenient[lenient.stems.index(data.stem(1))]["mask"] == data[1]["mask"]).all()


@pytest.mark.parametrize("text", ["", "[]", '{"format": 99}', '{"format": 1}', "\x00"])
def test_broken_manifest(tmp_path, text):
    write_export(Composites(**SMALL, length=2), tmp_path)
    (tmp_path / "composites.json").write_text(text)
    with pytest.raises(DataError, match="unreadable manifest"):
        CompositesExport(tmp_path, "all")
    with pytest.raises(DataError, match="unreadable manifest"):
        write_export(Composites(**SMALL, length=2), tmp_path)


def test_an_archive(tmp_path, monkeypatch):
    monkeypatch.setenv("UNETZOO_CACHE", str(tmp_path / "cache"))
    data = Composites(**SMALL, length=3)
    write_export(data, tmp_path / "out")
    read = CompositesExport(shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "out"), "all")
    assert (read[read.stems.index(data.stem(2))]["image"] == data[2]["image"]).all()


def test_a_cache_keeps_them(original, tmp_path):
    data = CompositesExport(original, "val", mask_threshold=128)
    kept = cached(data, folder=tmp_path / "cache", workers=0, progress=False)
    assert (kept[0]["image"] == data[0]["image"]).all() and kept[0]["id"] == data[0]["id"]


@pytest.mark.realdata
def test_a_real_export(real):
    root = real / "fgbg_depth" / "composites"
    with pytest.raises(DataError, match="15 JPEG files"):
        CompositesExport(root)
    data = CompositesExport(root, "all", mask_threshold=128)
    assert len(data) == 15
    for sample in data:
        image, mask = sample["image"].astype(int), sample["mask"] > 0
        gap = np.abs(image[..., :3] - image[..., 3:]).max(axis=2)
        assert gap[mask].mean() > 5 * gap[~mask].mean() and 0.005 < mask.mean() < 0.4
        assert 0 <= sample["depth"].min() < sample["depth"].max() <= 1
    parts = [CompositesExport(root, split, mask_threshold=128).stems for split in ("train", "val", "test")]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 15 and all(parts)


@pytest.mark.realdata
def test_real_sources_written_and_read(real, tmp_path):
    data = Composites("all", 96, 24, root=real / "fgbg_depth", positions="grid")
    write_export(data, tmp_path)
    found = {sample["id"]: sample for sample in CompositesExport(tmp_path, "all")}
    for i in range(24):
        assert (found[data.stem(i)]["image"] == data[i]["image"]).all()
        assert (found[data.stem(i)]["mask"] == data[i]["mask"]).all()
        assert np.abs(found[data.stem(i)]["depth"] - data[i]["depth"]).max() <= 0.5 / 65535 + 1e-7
