from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image
from refusals import refused

from unetzoo.datasets import Folder
from unetzoo.errors import ConfigError, DataError, LabelRangeError, LayoutError, SizeMismatchError

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
    with pytest.raises(LayoutError) as caught:
        Folder(root, "test", **TWO)
    assert caught.value.subject == root and "test/images/" in caught.value.expected


def test_groups_and_folds(make_pairs):
    root = make_pairs([f"{patient}_{side}" for patient in range(6) for side in ("left", "right")])
    options = {"group": r"^(\d+)_", **TWO}
    seen = []
    for fold in ("1/3", "2/3", "3/3"):
        train, val = ([s.name for s in Folder(root, part, fold=fold, **options).files] for part in ("train", "val"))
        assert len(val) == 4 and len(train) == 8 and not {n[0] for n in train} & {n[0] for n in val}
        seen += val
    assert sorted(seen) == sorted(s.name for s in Folder(root, **options).files)
    for part in ("train", "val"):
        assert len({s.name[0] for s in Folder(root, part, val_fraction=0.33, **options).files}) in (2, 4)
    with pytest.raises(DataError) as caught:
        Folder(root, "train", fold="1/7", **options)
    assert caught.value.subject == root


def test_groups_and_folds_need_data_without_splits(make_pairs):
    for split, stems in (("train", "abc"), ("val", "d")):
        root = make_pairs(stems, images=f"images/{split}", masks=f"masks/{split}")
    for option in ({"group": "."}, {"fold": "1/2"}):
        with pytest.raises(ConfigError) as caught:
            Folder(root, "train", **option, **TWO)
        assert caught.value.subject == root


@pytest.mark.parametrize("layout", ["{split}/{kind}", "{kind}/{split}"])
def test_split_folders(make_pairs, layout):
    for split, stems in (("train", "abc"), ("dev", "d")):
        folders = {k: layout.format(split=split, kind=k) for k in ("images", "masks")}
        root = make_pairs(stems, **folders)
    assert [len(Folder(root, split, **TWO)) for split in ("train", "dev")] == [3, 1]
    with pytest.raises(LayoutError) as caught:
        Folder(root, "val", **TWO)
    assert caught.value.hint == Folder.how_to_get
    with pytest.raises(DataError):
        Folder(root, **TWO)


def test_folder_arguments(make_pairs, tmp_path):
    root = make_pairs(["a"])
    for wrong in ({}, {"names": ["a"], "classes": 2}, {"classes": 2, "channels": 0}, {"classes": 2, "val_fraction": 0}):
        with pytest.raises(ConfigError):
            Folder(root, **wrong)
    with pytest.raises(DataError, match="too few"):
        Folder(root, "train", **TWO)
    with pytest.raises(DataError, match="no such folder"):
        Folder(tmp_path / "nowhere", **TWO)


def test_size_mismatch(make_pairs):
    root = make_pairs(["a"])
    Image.new("L", (6, 8)).save(root / "masks" / "a.png")
    with refused(SizeMismatchError, expected="8×6", found="6×8"):
        Folder(root, **TWO)[0]


@pytest.mark.realdata
def test_folder_real(real):
    data = Folder(real / "isbi2012", "val", masks="labels", names=("membrane", "cell"), ids=(0, 255), channels=1)
    assert len(data) == 6 and set(np.unique(data[0]["mask"])) == {0, 1}


def test_names_given_as_classes(make_pairs):
    for classes, hint in ((["background", "cell"], "names = ['background', 'cell']"), ("two", "classes = 2")):
        with pytest.raises(ConfigError) as caught:
            Folder(make_pairs(["a"]), classes=classes)
        assert hint in caught.value.hint
