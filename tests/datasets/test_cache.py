"""The cache returns the samples of the dataset."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import layouts
import numpy as np
import pytest
import torch
from caching import PLANES, All, caches, debris, quiet, same
from PIL import Image
from refusals import refused
from torch.utils.data import DataLoader

from unetzoo.datasets import Folder, Transform, cached, fingerprint, sample_rng, store, with_border_weights
from unetzoo.errors import ConfigError, DataError, LabelRangeError
from unetzoo.labels import LabelSpec


def test_samples_of_any_shape_and_plane_are_restored_exactly(tmp_path):
    for negative, kind in ((False, np.uint8), (True, np.int8)):
        data = All(negative=negative)
        kept = quiet(data, folder=tmp_path)
        assert len(kept) == 5 and kept.labels == data.labels and kept.split == "s/1"
        for i in range(-5, 5):
            same(data[i], kept[i])
        assert kept[0]["mask"].dtype == kind and all(kept[0][name].flags.writeable for name in PLANES)
        with pytest.raises(IndexError):
            kept[5]
    assert len(caches(tmp_path)) == 2 and not debris(tmp_path)


@pytest.mark.parametrize("size", [16, (12, 31), None])
@pytest.mark.parametrize("train", [True, False])
def test_resized_once_is_resized_each_time(tmp_path, size, train):
    rest = {"mirror": 3, "crop": 7, "hflip": 0.5, "rotate": 20.0, "elastic": 1.0, "brightness": 0.1}
    data = All(negative=True)
    data.transform = Transform(size=size, train=train, **rest)
    kept = quiet(data, size, folder=tmp_path)
    assert kept.transform is data.transform
    for i in range(len(data)):
        same(data[i], kept[i])
        if size is None:
            same(data.load(i), kept.load(i))
        else:  # nothing is left to do for `size`
            same(data[i], Transform(train=train, **rest)(kept.load(i), sample_rng(0, 0, i)))


def test_resizing_is_that_of_independent_libraries(tmp_path):
    """Images as Pillow's bilinear resampling; masks the nearest pixel, by their centers."""
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (40, 60, 3), np.uint8), rng.integers(0, 3, (40, 60), np.uint8)
    layouts.save(root / "images" / "a.png", image), layouts.save(root / "masks" / "a.png", mask)
    sample = quiet(Folder(root, classes=3), (17, 23), folder=tmp_path)[0]
    pillow = np.asarray(Image.fromarray(image).resize((23, 17), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(sample["image"] - pillow).max() <= 1
    rows, columns = (np.floor((np.arange(n) + 0.5) * m / n).astype(int) for n, m in ((17, 40), (23, 60)))
    assert np.array_equal(sample["mask"], mask[np.ix_(rows, columns)])


def test_built_once_in_parallel_and_used_ever_after(tmp_path, pairs, monkeypatch):
    data = pairs(8)
    state = torch.get_rng_state()
    kept = cached(data, 16, folder=tmp_path / "c", workers=2, progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    alone = quiet(data, 16, folder=tmp_path / "d")
    for i in range(8):
        same(kept[i], alone[i])
    monkeypatch.setattr(Folder, "load", lambda *_: pytest.fail("decoded again"))
    again = quiet(pairs(8), 16, folder=tmp_path / "c")
    same(again[3], kept[3])


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"size": (1, 2, 3)},
        {"size": 1.5},
        {"size": "8"},
        {"workers": -1},
        {"size": 10**6},
        {"workers": 100_000},
    ],
)
def test_wrong_arguments(tmp_path, wrong):
    with pytest.raises(ConfigError, match=f"wrong {next(iter(wrong))}"):
        cached(All(), folder=tmp_path, progress=False, **wrong)


def test_border_weights_are_kept(tmp_path, pairs):
    weighted = [with_border_weights(pairs(), w0=w0) for w0 in (10.0, 3.0)]
    kept = [quiet(data, 16, folder=tmp_path / "c") for data in weighted]
    assert len({data.path for data in kept}) == 2
    for data, small in zip(weighted, kept, strict=True):
        data.transform = small.transform = Transform(size=16)
        same(data[3], small[3])
    inner = with_border_weights(pairs())
    inner.dataset.transform = Transform(hflip=1.0)  # the effect of an inner transform cannot be compared
    with pytest.raises(ConfigError, match=r"dataset\.transform"):
        quiet(inner, folder=tmp_path / "c")


def test_options_are_distinguished():
    values = [None, 0, 1, True, 1.0, "1", b"1", (1,), [1], ((1,),), [[1]], [1, 1], {1: 1}, {"1": 1}, {1}, range(1),
              Path("a"), Path("b"), "a", np.zeros(2), np.zeros((2, 1)), np.zeros(2, np.float32), float("nan"), -0.0,
              LabelSpec(("a",)), LabelSpec(("b",)), [None, 1], ["ab", "c"], ["a", "bc"], np.float64(1), np.int64(1),
              "\ud800"]  # fmt: skip
    digests = [fingerprint.of_value(value, "x") for value in values]
    assert len(set(digests)) == len(values)
    assert digests == [fingerprint.of_value(copy.deepcopy(value), "x") for value in values]
    tables = {"a": 1, "b": 2}, {"b": 2, "a": 1}  # samples may come in their order
    assert fingerprint.of_value(tables[0], "x") != fingerprint.of_value(tables[1], "x")


def test_all_faults_are_reported_in_one_error(tmp_path, pairs):
    data = pairs(30)
    for i in (1, 3, 4):
        (tmp_path / "data" / "images" / f"{i}.png").write_bytes(b"no image")
    for workers in (0, 2):
        with refused(DataError, found=("3 faults", "1.png", "3.png", "4.png")):
            cached(data, folder=tmp_path / "c", progress=False, workers=workers)
    for i in range(25):
        (tmp_path / "data" / "images" / f"{i}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="20 faults"):
        quiet(data, folder=tmp_path / "c")
    for i in range(1, 30):
        (tmp_path / "data" / "images" / f"{i}.png").unlink()
    with refused(DataError, found=("29 faults", "1.png: No such file")):
        quiet(data, folder=tmp_path / "c")
    assert not caches(tmp_path) and not debris(tmp_path)


def test_a_single_fault_is_raised_unchanged(tmp_path, pairs):
    data = pairs()
    layouts.save(tmp_path / "data" / "masks" / "2.png", np.full((22, 28), 7, np.uint8))
    with pytest.raises(LabelRangeError, match=r"2\.png"):
        cached(data, folder=tmp_path / "c", progress=False, workers=2)


class Odd(All):
    """Samples that break the contract."""

    def __init__(self, what, value):
        super().__init__()
        self.what, self.value = what, value

    def load(self, index):
        if self.what == "raise":
            raise KeyError("color")
        return super().load(index) | {self.what: self.value}


@pytest.mark.parametrize(
    ("what", "value", "message"),
    [
        ("raise", None, r"Odd\[0\].*KeyError: 'color'"),
        ("image", np.zeros((3, 3), np.uint8), "not an image"),
        ("mask", np.full((9, 14), 300, np.int64), r"0…255, found 300…300"),
        ("mask", np.zeros((9, 14), np.float32), "mask as uint8, found float32"),
        ("depth", np.zeros((9, 14), np.float64), "depth as float32, found float64"),
        ("flow", np.zeros((9, 14), np.float32), "unknown array"),
        ("date", (1, 2), "cannot be cached"),
        ("date", complex(1, 2), "cannot be cached"),
        ("date", float("nan"), "cannot be cached"),
    ],
)
def test_samples_that_cannot_be_kept(tmp_path, what, value, message):
    odd = Odd(what, value)
    odd.count = 1
    with pytest.raises(DataError, match=message):
        quiet(odd, folder=tmp_path)


def test_pickles_small_and_maps_once_a_process(tmp_path):
    kept = quiet(All(), folder=tmp_path)
    kept[0]
    raw = pickle.dumps(kept)
    assert len(raw) < 3000
    same(pickle.loads(raw)[4], kept[4])
    assert copy.copy(kept)[1]["id"] == kept[1]["id"]


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_loaders_with_and_without_persistent_workers(tmp_path, pairs, workers, persistent):
    data = pairs()
    data.transform = Transform(size=16, crop=8, hflip=0.5)
    kept = quiet(data, 16, folder=tmp_path / "c")
    loader = DataLoader(kept, batch_size=2, num_workers=workers, persistent_workers=persistent)
    for _ in range(2):
        for number, batch in enumerate(loader):
            for i in range(2):
                same({k: batch[k][i] for k in batch}, data[2 * number + i])


def test_cache_in_a_recipe_changes_only_the_source_of_samples(tmp_path):
    """`cache` in a recipe changes where samples come from and nothing else."""
    from unetzoo.training.recipe import Transforms, load
    from unetzoo.training.run import make_dataset

    root = layouts.celebamask(tmp_path / "data", ids=range(6))
    sets = [f"data.root={root}", "transform.train.hflip=0.5"]
    for split in ("train", "val"):
        plain, kept, moved = (
            make_dataset(load("celebamask-eyes-lips", [*sets, f"data.cache={cache}"]), split, progress=False)
            for cache in ("false", f"{tmp_path}/c", "true")
        )
        assert kept.path.parent == tmp_path / "c" and moved.path.parent == store.cache_root() / "samples"
        assert kept.load(0)["image"].shape == (128, 128, 3)  # at the transform's size
        for i in range(len(plain)):
            same(plain[i], kept[i])
            same(plain[i], moved[i])
    assert Transforms(size=8).first_size("val") == 8
    assert Transforms(size=8, albumentations=[]).first_size("val") is None  # that comes before the size


def test_an_empty_dataset(tmp_path):
    assert len(quiet(All(0), folder=tmp_path)) == 0
    assert len(quiet(All(0), folder=tmp_path)) == 0
