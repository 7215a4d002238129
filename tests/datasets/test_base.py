from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
from refusals import refused

from unetzoo.datasets.base import SegmentationDataset, check_split, sample_rng, seeded_split
from unetzoo.errors import ConfigError, DataError
from unetzoo.labels import LabelSpec


class Numbers(SegmentationDataset):
    def __len__(self):
        return 3

    def load(self, index):
        return {"image": np.full((2, 2, 1), index, np.uint8), "id": str(index)}


def draw(sample, rng):
    return {**sample, "drawn": int(rng.integers(2**40))}


def test_index_and_transform():
    data = Numbers(labels=LabelSpec(("a",)), transform=draw)
    assert [data[i]["id"] for i in (0, 2, -1, -3, np.int64(1))] == ["0", "2", "2", "0", "1"]
    assert data[1]["drawn"] == data[-2]["drawn"] == int(sample_rng(0, 0, 1).integers(2**40))
    assert data[0]["drawn"] != data[1]["drawn"]
    for bad in (3, -4):
        with pytest.raises(IndexError):
            data[bad]
    assert [s["id"] for s in data] == ["0", "1", "2"]
    assert pickle.loads(pickle.dumps(data))[1]["drawn"] == data[1]["drawn"]


def test_sample_rng_depends_on_each_part():
    draws = {int(sample_rng(*key).integers(2**60)) for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]}
    assert len(draws) == 4


@pytest.mark.parametrize("count", [2, 3, 10, 31])
def test_seeded_split(count):
    names = [f"n{i}" for i in range(count)]
    train, val = (seeded_split(names, part, 0.2, 5) for part in ("train", "val"))
    assert sorted(train + val) == sorted(names) and train and val
    assert seeded_split(names[::-1], "val", 0.2, 5) == val[::-1]


class TestGroups:
    NAMES = tuple(f"{patient:02d}_{slice_}" for patient in range(12) for slice_ in range(1 + patient % 4))

    @pytest.mark.parametrize("group", [r"^(\d+)_", r"^\d+", dict(zip(NAMES, (n[:2] for n in NAMES), strict=True))])
    @pytest.mark.parametrize("seed", range(5))
    def test_a_group_is_on_one_side(self, group, seed):
        train, val = (seeded_split(self.NAMES, part, 0.25, seed, group=group) for part in ("train", "val"))
        assert sorted(train + val) == list(self.NAMES)
        assert not {name[:2] for name in train} & {name[:2] for name in val}
        assert abs(len(val) - 0.25 * len(self.NAMES)) <= 2

    @pytest.mark.parametrize("count", [2, 3, 5, 12])
    @pytest.mark.parametrize("group", [None, r"^(\d+)_"])
    def test_folds_are_balanced_and_cover_all(self, count, group):
        folds = [seeded_split(self.NAMES, "val", 0.2, 3, group=group, fold=f"{k}/{count}") for k in range(1, count + 1)]
        assert sorted(name for fold in folds for name in fold) == sorted(self.NAMES)
        sizes = [len(fold) for fold in folds]
        assert max(sizes) - min(sizes) <= (3 if group else 1)
        for k, val in enumerate(folds, 1):
            assert seeded_split(self.NAMES[::-1], "val", 0.2, 3, group=group, fold=f"{k}/{count}") == val[::-1]
            train = seeded_split(self.NAMES, "train", 0.2, 3, group=group, fold=f"{k}/{count}")
            assert sorted(train + val) == sorted(self.NAMES)
            assert group is None or not {name[:2] for name in train} & {name[:2] for name in val}

    def test_a_large_group_stays_in_train(self):
        names = [f"big_{i}" for i in range(50)] + ["a_0", "b_0", "b_1"]
        for seed in range(8):
            val = seeded_split(names, "val", 0.1, seed, group="^[^_]+")
            assert 1 <= len(val) <= 3

    def test_the_split_without_groups_has_not_changed(self):
        assert seeded_split([f"n{i}" for i in range(12)], "val", 0.25, 7) == ["n2", "n4", "n8"]

    def test_more_folds_than_groups(self):
        with pytest.raises(DataError) as caught:
            seeded_split(self.NAMES, "val", 0.2, 0, group=r"^\d", fold="1/3", subject="here")
        assert caught.value.subject == "here" and "2" in caught.value.expected

    @pytest.mark.parametrize("fold", ["0/5", "6/5", "1/1", "1", "1/0", "-1/5", "1/5/2", "", 2, 0.2, "1/99999999999"])
    def test_invalid_folds(self, fold):
        with pytest.raises(ConfigError) as caught:
            seeded_split(self.NAMES, "val", 0.2, 0, fold=fold)
        assert caught.value.hint

    def test_invalid_groups(self):
        for group in ("(", 5):
            with pytest.raises(ConfigError):
                seeded_split(self.NAMES, "val", 0.2, 0, group=group)
        with pytest.raises(DataError) as caught:
            seeded_split(["1_a", "b", "2_a", "c"], "val", 0.2, 0, group=r"^(\d+)_")
        assert {"b", "c"} <= set(str(caught.value.found).split()) and "1_a" not in str(caught.value.found)
        with pytest.raises(DataError) as caught:
            seeded_split(["1_a", "1_b"], "val", 0.2, 0, group=r"^(\d+)_")
        assert "'1'" in caught.value.found


def test_check_split():
    with refused(ConfigError, hint="did you mean 'train'"):
        check_split("trian", ("train", "val"), "X")


def test_package_is_lazy():
    code = (
        "import sys, unetzoo.datasets as d; d.Composites; d.Folder; d.ISBI2012;"
        "assert not {'torch', 'albumentations', 'kornia'} & set(sys.modules); assert sorted(d.__all__) == dir(d)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
