from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
from layouts import cityscapes, save
from PIL import Image
from refusals import refused
from scipy.ndimage import maximum_filter, minimum_filter

from unetzoo.datasets import Cityscapes
from unetzoo.errors import ConfigError, DataError, LabelRangeError, LayoutError, PairingError
from unetzoo.labels import LabelSpec

# the numbers 0…33 of labelIds files, one after another, as train ids
TRAIN_IDS = [255] * 7 + [0, 1] + [255] * 2 + [2, 3, 4] + [255] * 3 + [5, 255, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
TRAIN_IDS += [255] * 2 + [16, 17, 18]


def test_label_ids_are_mapped_to_train_ids(tmp_path):
    data = {split: Cityscapes(cityscapes(tmp_path), split) for split in ("train", "val")}
    assert [len(d) for d in data.values()] == [5, 2]
    assert [s["id"] for s in data["train"]][2:4] == ["aachen_000002_000019", "ulm_000000_000019"]
    sample = pickle.loads(pickle.dumps(data["train"]))[2]
    assert (sample["image"] == 20).all()
    assert sample["mask"].dtype == np.uint8 and sample["mask"].tolist() == [TRAIN_IDS] * 16
    labels = data["train"].labels
    assert labels.classes == 19 and labels.names[0] == "road" and labels.palette[18] == (119, 11, 32)
    assert LabelSpec.from_dict(labels.to_dict()) == labels and labels.lookup()[-1] == 255


def test_train_ids_serve_where_label_ids_are_absent(tmp_path):
    values = [*range(19), 255]
    root = cityscapes(tmp_path, "labelTrainIds", values)
    assert Cityscapes(root)[0]["mask"].tolist() == [values] * 16
    stem = root / "gtFine" / "train" / "aachen" / "aachen_000000_000019_gtFine_labelIds.png"
    save(stem, np.full((16, 20), 26, np.uint8))
    data = Cityscapes(root)
    assert (data[0]["mask"] == 13).all()  # labelIds first
    assert data[1]["mask"].tolist() == [values] * 16


def test_values_outside_the_label_ids(tmp_path):
    with refused(LabelRangeError, subject="aachen_000000_000019_gtFine_labelIds.png", found="34 (16 px)"):
        Cityscapes(cityscapes(tmp_path, values=[7, 34]))[0]


def test_the_test_split_warns_that_it_has_no_labels(tmp_path):
    root = cityscapes(tmp_path, values=[0, 3], test={"berlin": 2})
    with pytest.warns(UserWarning, match="every pixel is ignored"):
        data = Cityscapes(root, "test")
    assert len(data) == 2 and (data[0]["mask"] == 255).all()


def test_coarse_labels_are_refused(tmp_path):
    with refused(ConfigError, hint="gtFine"):
        Cityscapes(tmp_path, "train_extra")  # type: ignore[arg-type]
    cityscapes(tmp_path)
    (tmp_path / "gtFine").rename(tmp_path / "gtCoarse")
    with pytest.raises(LayoutError) as caught:
        Cityscapes(tmp_path)
    assert "gtFine/train/" in caught.value.expected and "gtCoarse" in caught.value.hint
    with refused(ConfigError, hint="did you mean 'val'"):
        Cityscapes(tmp_path, "vall")  # type: ignore[arg-type]


def test_faults_are_reported_together(tmp_path):
    root = cityscapes(tmp_path, train={"aachen": 12, "ulm": 12})
    fine = root / "gtFine" / "train"
    for path in fine.glob("aachen/*labelIds.png"):
        path.unlink()
    for path in fine.glob("ulm/*labelIds.png"):  # a file in another city's folder does not count
        path.rename(fine / "aachen" / path.name)
    with refused(PairingError, found=("36 faults", "has no labels", "and 16 more")):
        Cityscapes(root)
    with pytest.raises(LayoutError) as caught:
        Cityscapes(root, "val")
    assert "leftImg8bit/val/" in caught.value.expected
    for kind in ("leftImg8bit", "gtFine"):
        (root / kind / "val").mkdir()
    with pytest.raises(LayoutError) as caught:
        Cityscapes(root, "val")
    assert caught.value.subject == root / "leftImg8bit" / "val" and caught.value.found == "nothing"
    with pytest.raises(DataError, match="no such folder"):
        Cityscapes(tmp_path / "none")


@pytest.mark.realdata
def test_cityscapes_real(real):
    root = real / "cityscapes_mini"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = {split: Cityscapes(root, split) for split in ("train", "val")}
    assert [len(d) for d in data.values()] == [8, 9]
    assert {s["image"].shape[:2] == s["mask"].shape for d in data.values() for s in d} == {True}


@pytest.mark.realdata
def test_the_table_is_the_one_of_the_given_train_ids(real):
    stem = real / "cityscapes_mini" / "gtFine" / "val" / "frankfurt" / "frankfurt_000000_000294_gtFine"
    ids, given = (np.asarray(Image.open(f"{stem}_{kind}.png")) for kind in ("labelIds", "labelTrainIds"))
    (sample,) = (s for s in Cityscapes(real / "cityscapes_mini", "val") if s["id"] == "frankfurt_000000_000294")
    # The two files were shrunk apart from each other: 77 of 32,768 pixels, all at borders, agree under no table. So:
    # each id goes where most of its pixels go, which leaves as few disagreements as any table can.
    pairs = np.zeros((34, 256), int)
    np.add.at(pairs, (ids.ravel(), given.ravel()), 1)
    seen = np.unique(ids)
    table = pairs.argmax(axis=1)
    assert len(seen) == 14 and np.array_equal(sample["mask"], table[ids])
    assert [TRAIN_IDS[i] for i in seen] == table[seen].tolist()
    wrong = sample["mask"] != given
    border = maximum_filter(given, 3) != minimum_filter(given, 3)
    assert wrong.sum() == 77 and not (wrong & ~border).any()
