from __future__ import annotations

import pickle

import numpy as np
import pytest
import tifffile
from PIL import Image

from unetzoo.datasets import ISBI2012, Folder
from unetzoo.errors import ConfigError, DataError, ImageDecodeError, LabelRangeError, SizeMismatchError

TWO = {"names": ["background", "cell"], "ids": [0, 255]}


def test_folder(make_pairs):
    root = make_pairs(["a1", "a2", "a10"])
    data = Folder(str(root), **TWO)
    assert [s["id"] for s in data] == ["a1", "a2", "a10"]
    sample = data[1]
    assert sample["image"].shape == (6, 8, 3) and (sample["image"] == 1).all()
    assert sample["mask"].tolist() == [[0] * 4 + [1] * 4] * 6
    again = pickle.loads(pickle.dumps(data))
    assert (again[2]["image"] == data[2]["image"]).all() and again.labels == data.labels
    assert Folder(root, channels=1, **TWO)[0]["image"].shape == (6, 8, 1)
    with pytest.raises(LabelRangeError, match="ids="):
        Folder(root, classes=2)[0]


def test_seeded_division(make_pairs):
    root = make_pairs([f"s{i}" for i in range(10)])
    ids = {part: [s["id"] for s in Folder(root, part, val_fraction=0.3, **TWO)] for part in ("train", "val")}
    assert len(ids["val"]) == 3 and len(ids["train"]) == 7 and not set(ids["val"]) & set(ids["train"])
    assert [s["id"] for s in Folder(root, "val", val_fraction=0.3, split_seed=1, **TWO)] != ids["val"]
    with pytest.raises(DataError, match="no split 'test'"):
        Folder(root, "test", **TWO)


@pytest.mark.parametrize("layout", ["{split}/{kind}", "{kind}/{split}"])
def test_split_folders(make_pairs, layout):
    for split, stems in (("train", "abc"), ("dev", "d")):
        folders = {k: layout.format(split=split, kind=k) for k in ("images", "masks")}
        root = make_pairs(stems, **folders)
    assert [len(Folder(root, split, **TWO)) for split in ("train", "dev")] == [3, 1]
    with pytest.raises(DataError, match=r"no split 'val'.*Fix"):
        Folder(root, "val", **TWO)
    with pytest.raises(DataError):
        Folder(root, **TWO)


def test_folder_arguments(make_pairs, tmp_path):
    root = make_pairs(["a"])
    for wrong in ({}, {"names": ["a"], "classes": 2}, {"classes": 2, "channels": 4}, {"classes": 2, "val_fraction": 0}):
        with pytest.raises(ConfigError):
            Folder(root, **wrong)
    with pytest.raises(DataError, match="too few"):
        Folder(root, "train", **TWO)
    with pytest.raises(DataError, match="no such folder"):
        Folder(tmp_path / "nowhere", **TWO)


def test_size_mismatch(make_pairs):
    root = make_pairs(["a"])
    Image.new("L", (6, 8)).save(root / "masks" / "a.png")
    with pytest.raises(SizeMismatchError, match=r"8×6.*6×8"):
        Folder(root, **TWO)[0]


@pytest.fixture(params=["png", "tif"])
def isbi(request, tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (30, 8, 10), np.uint8)
    labels = rng.integers(0, 2, (30, 8, 10), np.uint8) * 255
    if request.param == "tif":
        tifffile.imwrite(tmp_path / "train-volume.tif", images)
        tifffile.imwrite(tmp_path / "train-labels.tif", labels)
    else:
        for name, stack in (("images", images), ("labels", labels)):
            (tmp_path / name).mkdir()
            for i, slice_ in enumerate(stack):
                Image.fromarray(slice_).save(tmp_path / name / f"{i}.png")  # unpadded: 10 must come after 9
    return tmp_path, images, labels


def test_isbi(isbi):
    root, images, labels = isbi
    data = {split: ISBI2012(root, split) for split in ("train", "val", "all")}
    assert {split: len(d) for split, d in data.items()} == {"train": 24, "val": 6, "all": 30}
    assert [int(s["id"]) for s in data["val"]] == list(range(24, 30))
    for i in (0, 23):
        sample = data["train"][i]
        assert (sample["image"][..., 0] == images[i]).all() and (sample["mask"] == labels[i] // 255).all()
    assert (pickle.loads(pickle.dumps(data["val"]))[-1]["image"][..., 0] == images[29]).all()


def test_isbi_faults(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(DataError, match=r"train-volume\.tif.*found raw.*Fix: register"):
        ISBI2012(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        ISBI2012(tmp_path / "none")
    with pytest.raises(ConfigError):
        ISBI2012(tmp_path, "test")  # type: ignore[arg-type]
    tifffile.imwrite(tmp_path / "train-volume.tif", np.zeros((3, 4, 4), np.uint8))
    tifffile.imwrite(tmp_path / "train-labels.tif", np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(SizeMismatchError, match="different shape"):
        ISBI2012(tmp_path)
    (tmp_path / "train-labels.tif").write_bytes(b"junk")
    with pytest.raises(ImageDecodeError):
        ISBI2012(tmp_path)


@pytest.mark.realdata
def test_isbi_real(real):
    data = ISBI2012(real / "isbi2012", "all")
    masks = np.stack([data[i]["mask"] for i in (0, 29)])
    assert len(data) == 30 and masks.shape == (2, 512, 512) and 0.7 < masks.mean() < 0.85


@pytest.mark.realdata
def test_folder_real(real):
    data = Folder(real / "isbi2012", "val", masks="labels", names=("membrane", "cell"), ids=(0, 255), channels=1)
    assert len(data) == 6 and set(np.unique(data[0]["mask"])) == {0, 1}
