from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest

from unetzoo.datasets.base import SegmentationDataset, check_split, sample_rng, seeded_split
from unetzoo.errors import ConfigError
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


def test_check_split():
    with pytest.raises(ConfigError, match="did you mean 'train'"):
        check_split("trian", ("train", "val"), "X")


def test_package_is_lazy():
    code = (
        "import sys, unetzoo.datasets as d; d.Composites; d.Folder; d.ISBI2012;"
        "assert not {'torch', 'albumentations', 'kornia'} & set(sys.modules); assert sorted(d.__all__) == dir(d)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
