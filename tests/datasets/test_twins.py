"""Twins: layouts can be loaded, and the class of each position is known."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from torch.utils.data import DataLoader
from twinned import content, load

import unetzoo
from unetzoo.datasets import Transform
from unetzoo.errors import ConfigError, DataError
from unetzoo.registry import DATASETS
from unetzoo.twins import FAULTS, LAYOUTS, plant, write


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_split_loads_and_shows_declared_classes(name, twins):
    layout, seen = LAYOUTS[name], Counter()
    for split in layout.splits:
        data = load(name, twins(name), split)
        assert len(data) >= 1
        for sample in data:
            assert sample["image"].shape[:2] == sample["mask"].shape and sample["image"].std() > 5
            seen.update(np.unique(sample["mask"]).tolist())
        if layout.dataset != "composites":
            assert [s["id"] for s in data] == [p.name for p in layout.reader(twins(name)) if p.split == split]
    ignored = {data.labels.ignore_index} if data.labels.ignore_ids else set()
    assert set(seen) == {*range(data.labels.classes), *ignored}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_same_seed_gives_the_same_bytes(name, twins, tmp_path):
    size = 64 if "isbi" in name else None
    again, other = (write(name, tmp_path / str(seed), count=10, size=size, seed=seed) for seed in (0, 1))
    assert content(again) == content(twins(name)) != content(other)


def test_the_official_names(twins):
    def names(layout, pattern):
        return sorted(p.relative_to(twins(layout)).as_posix() for p in twins(layout).glob(pattern))

    assert {path.split("/")[0] for path in names("helen", "*/*")} == {"train", "test"}
    assert all(n.endswith(("_image.jpg", "_label.png", "_viz.jpg")) for n in names("helen", "*/*"))
    assert names("celebamask", "CelebA-HQ-to-CelebA-mapping.txt") and not names("celebamask-unmapped", "*.txt")
    assert names("celebamask", "CelebAMask-HQ-mask-anno/1/02000_hair.png")
    stem = "gtFine/train/aachen/aachen_000000_000019_gtFine_"
    ends = ("color.png", "instanceIds.png", "labelIds.png", "labelTrainIds.png", "polygons.json")
    assert names("cityscapes", stem + "*") == [stem + end for end in ends]
    assert names("carvana-hq", "train_hq/*_01.jpg") and names("carvana", "train_masks/*_01_mask.gif")
    assert names("isbi2012-tif", "*") == ["train-labels.tif", "train-volume.tif"]
    assert names("camvid", "*") == ["test", "testannot", "train", "trainannot", "val", "valannot"]
    assert names("camvid-folders", "*/*")[:3] == ["images/test", "images/train", "images/val"]
    assert names("eva", "*") == ["bg", "fg_bg", "fg_bg_depth", "fg_bg_mask"]


def test_encodings_are_the_official_ones(twins):
    def opened(layout, pattern):
        with Image.open(next(twins(layout).glob(pattern))) as image:
            image.load()
            return image

    gif = opened("carvana", "train_masks/*")
    assert (gif.format, gif.mode) == ("GIF", "P") and set(np.unique(np.asarray(gif))) == {0, 1}
    assert set(np.unique(np.asarray(gif.convert("L")))) == {0, 255}
    part = opened("celebamask", "CelebAMask-HQ-mask-anno/0/*_hair.png")
    assert part.mode == "RGB" and part.size == (64, 64) and opened("celebamask", "CelebA-HQ-img/*").size == (128, 128)
    assert opened("helen", "train/*_label.png").mode == opened("camvid", "trainannot/*").mode == "L"
    assert opened("folder", "masks/*").mode == "P" and opened("folder-binary", "masks/*").mode == "L"
    assert opened("eva", "fg_bg_mask/*").format == opened("eva", "fg_bg_depth/*").format == "JPEG"
    assert opened("csv", "depth/*").mode == "I;16" and opened("composites", "fg/*").mode == "RGBA"
    assert tifffile.imread(twins("isbi2012-tif") / "train-labels.tif").dtype == np.uint8


def test_cityscapes_label_files_agree(twins):
    stem = twins("cityscapes") / "gtFine" / "val" / "frankfurt" / "frankfurt_000000_000019_gtFine"
    ids, train, instances, color = (
        np.asarray(Image.open(f"{stem}_{end}.png")) for end in ("labelIds", "labelTrainIds", "instanceIds", "color")
    )
    data = load("cityscapes", twins("cityscapes"), "val")
    assert (data[0]["mask"] == train).all()
    assert (np.where(instances >= 1000, instances // 1000, instances) == ids).all() and (instances >= 24000).any()
    palette = np.array(data.labels.palette)
    assert (color[train < 255][:, :3] == palette[train[train < 255]]).all() and color.shape[2] == 4


def test_both_isbi_layouts_have_equal_samples(twins):
    stack, folder = (load(name, twins(name), "val") for name in ("isbi2012-tif", "isbi2012"))
    for a, b in zip(stack, folder, strict=True):
        assert (a["image"] == b["image"]).all() and (a["mask"] == b["mask"]).all()


def columns(mask, labels, *names):
    return [np.nonzero(mask == labels.names.index(name))[1].mean() / mask.shape[1] for name in names]


@pytest.mark.parametrize(
    ("layout", "left", "right"),
    [("helen", ("lb", "le"), ("rb", "re")), ("celebamask", ("r_brow", "r_eye", "r_ear"), ("l_brow", "l_eye", "l_ear"))],
)
def test_sides_are_known_by_position_and_by_color(layout, left, right, twins):
    """Left in the image: the viewer's left in Helen, the subject's right in CelebAMask."""
    data = load(layout, twins(layout))
    for sample in data:
        assert (
            max(columns(sample["mask"], data.labels, *left)) < 0.5 < min(columns(sample["mask"], data.labels, *right))
        )
        blue, green = (
            sample["image"][sample["mask"] == data.labels.names.index(name)].mean(0) for name in (left[1], right[1])
        )
        assert blue.argmax() == 2 and green.argmax() == 1


@pytest.mark.parametrize("layout", ["helen", "celebamask"])
def test_a_mirrored_face_is_labeled_like_one_drawn_mirrored(layout, twins):
    data = load(layout, twins(layout))
    before = data[0]["mask"]
    data.transform = Transform(hflip=1.0, labels=data.labels)
    after = data[0]["mask"].numpy()
    names = ("le", "lb") if layout == "helen" else ("r_eye", "r_brow")
    assert max(columns(after, data.labels, *names)) < 0.5
    exchanged = before[:, ::-1].copy()
    for a, b in data.labels.swap_pairs:
        exchanged[before[:, ::-1] == a], exchanged[before[:, ::-1] == b] = b, a
    assert (after == exchanged).all()


def test_larger_depth_is_farther(twins):
    for name in ("csv", "eva"):
        for sample in load(name, twins(name)):
            scene = sample["depth"][sample["mask"] == 0]
            assert (
                sample["depth"].dtype == np.float32 and sample["depth"][sample["mask"] == 1].mean() < scene.max() <= 1
            )


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.timeout(60))])
def test_pickling_and_loading(name, workers, twins):
    if workers and name not in ("isbi2012-tif", "csv", "eva", "celebamask"):
        pytest.skip("one dataset of each kind of reading is enough for processes")
    data = load(name, twins(name), transform=Transform(size=32))
    again = pickle.loads(pickle.dumps(data))
    assert [s["id"] for s in again] == [s["id"] for s in data] and len(pickle.dumps(data)) < 50_000
    for batch, index in zip(DataLoader(data, batch_size=1, num_workers=workers), range(len(data)), strict=True):
        assert (batch["image"][0] == again[index]["image"]).all() and (batch["mask"][0] == again[index]["mask"]).all()


@pytest.mark.parametrize("name", LAYOUTS)
def test_samples_are_read_on_access(name, twins, monkeypatch):
    read = []

    def counting(function):
        def count(file, *args, **kwargs):
            read.append(getattr(file, "name", file))
            return function(file, *args, **kwargs)

        return count

    twins(name)
    monkeypatch.setattr(Image, "open", counting(Image.open))
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", counting(tifffile.TiffPageSeries.asarray))
    data = load(name, twins(name))
    assert not read
    sample = data[len(data) - 1]
    assert read and len(read) <= (20 if LAYOUTS[name].layout.several else 4) and sample["id"]


def test_how_to_get_names_a_source():
    for name in DATASETS.names():
        text = DATASETS.get(name).how_to_get
        assert len(text.split()) >= 8 and text[0].islower() and not text.endswith("."), name
    for name in ("helen", "celebamask", "cityscapes", "carvana", "camvid", "isbi2012"):
        assert any(word in DATASETS.get(name).how_to_get for word in ("http", "arXiv"))


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_smallest_and_a_large_one(name, tmp_path):
    small = write(name, tmp_path / "small", count=LAYOUTS[name].least, size=32)
    assert all(load(name, small, split)[0]["id"] for split in LAYOUTS[name].splits)
    with pytest.raises(ConfigError) as caught:
        write(name, tmp_path / "none", count=LAYOUTS[name].least - 1)
    assert f"count={LAYOUTS[name].least}" in caught.value.hint


def test_invalid_arguments_and_folders_are_errors(tmp_path):
    def error_of(kind, call, *args, **options):
        with pytest.raises(kind) as caught:
            call(*args, **options)
        return caught.value

    assert "'helen'" in error_of(ConfigError, write, "hellen", tmp_path / "a").hint
    assert "size=32" in error_of(ConfigError, write, "helen", tmp_path / "a", size=31).hint
    assert "seed=0" in error_of(ConfigError, write, "helen", tmp_path / "a", seed=-1).hint
    (tmp_path / "mine.txt").write_text("precious")
    for used in (tmp_path, tmp_path / "mine.txt"):
        assert error_of(DataError, write, "helen", used).subject == used
    root = write("helen", tmp_path / "a", count=5, size=32)
    assert "'missing-mask'" in error_of(ConfigError, plant, root, "helen", "missing-masks").hint
    shutil.rmtree(root / "train")
    for folder in (root, tmp_path / "none"):
        error = error_of(DataError, plant, folder, "helen", "missing-mask")
        assert error.subject == folder and "'helen'" in error.expected
    assert error_of(ConfigError, plant, root, "helen", "depth-missing").expected == "csv, eva"


def test_the_command_writes_twins(tmp_path, twins, monkeypatch, capsys):
    from unetzoo.cli import main

    def command(*args):
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        return ended.value.code or 0, capsys.readouterr()

    monkeypatch.setenv("COLUMNS", "200")
    code, printed = command("twin", "helen", tmp_path / "a", "--count", 10)
    assert code == 0 and "unetzoo train helen --fast --set data.root=" in printed.out
    assert content(tmp_path / "a") == content(twins("helen"))
    code, printed = command("twin", "carvana-hq", tmp_path / "b", "--fault", "empty-file", "--seed", 3)
    assert code == 0 and "--set data.hq=true" in printed.out and "empty-file: " in printed.err
    code, printed = command("twin")
    assert code == 0 and all(word in printed.out for word in (*LAYOUTS, *FAULTS))
    assert command("twin", "helen")[0] == command("twin", "helm", tmp_path / "c")[0] == 2
    assert command("twin", "helen", tmp_path / "a")[0] == 3


def test_the_tables_are_readable():
    assert len(FAULTS) >= 41 and all(fault.layouts and fault.about for fault in FAULTS.values())
    assert {layout.dataset for layout in LAYOUTS.values()} == set(unetzoo.DATASETS.names())


def test_a_full_disk_leaves_no_files(tmp_path, monkeypatch):
    saved = []

    def save(self, path, *args, **options):
        saved.append(path)
        if len(saved) == 5:
            Path(path).touch()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return plainly(self, path, *args, **options)

    plainly = Image.Image.save
    monkeypatch.setattr(Image.Image, "save", save)
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        saved.clear()
        with pytest.raises(DataError) as caught:
            write("camvid", tmp_path / name)
        assert caught.value.subject == tmp_path / name and "space" in caught.value.hint
    assert list(tmp_path.rglob("*")) == [tmp_path / "empty"]
