"""Border weights as a part of the samples: made once, moved with the image, and used by the losses."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from unetzoo import LOSSES, LabelSpec, Trainer
from unetzoo.datasets import Transform, cached, sample_rng, weights, with_border_weights
from unetzoo.datasets.base import SegmentationDataset
from unetzoo.errors import ConfigError, DataError
from unetzoo.losses import border_weights


class Cells(SegmentationDataset):
    """Discs on a ground, some pixels ignored."""

    def __init__(self, length=4, given=None, size=40, transform=None):
        spec = LabelSpec(("ground", "cell"), ignore_ids=(255,), ignore_index=255)
        super().__init__(labels=spec, split="train", transform=transform)
        self.length, self.given, self.size = length, given, size

    def __len__(self):
        return self.length

    def sources(self):
        return ()

    def load(self, index):
        rng = np.random.default_rng(index)
        y, x = np.mgrid[: self.size, : self.size]
        mask = np.zeros((self.size, self.size), np.uint8)
        for _ in range(6):
            mask[np.hypot(y - rng.integers(self.size), x - rng.integers(self.size)) < 4] = 1
        mask[:, -4:] = 255
        sample = {"image": mask[..., None] // 2 * 100, "mask": mask, "id": str(index)}
        if self.given is not None:
            sample["weight"] = np.full(mask.shape, self.given, np.float32)
            sample["weight"][:8] = 0
        return sample

    def baseline(self, sample):
        return np.zeros_like(sample["mask"])


@pytest.fixture
def counted(monkeypatch):
    """How often a map was made."""
    calls = []

    def count(labels, *constants, instances):
        calls.append(constants)
        return border_weights(labels, *constants, instances=instances)

    monkeypatch.setattr(weights, "border_weights", count)
    return calls


def truth(index, size=40, **constants):
    mask = Cells(size=size)[index]["mask"]
    return border_weights(np.where(mask == 255, 0, mask), **constants)  # proven against brute force in tests/losses


def test_the_map_of_the_whole_mask():
    data = with_border_weights(Cells(), w0=7.0, sigma=3.0)
    assert len(data) == 4 and data.split == "train" and data.labels == Cells().labels
    for index in (0, 3, -1):
        sample = data[index]
        assert sample["weight"].dtype == np.float32 and sample["id"] == str(index % 4)
        np.testing.assert_array_equal(sample["weight"], truth(index % 4, w0=7.0, sigma=3.0))
    assert truth(0, w0=7.0, sigma=3.0).max() > 1.5 and set(Cells()[0]) == {"image", "mask", "id"}
    assert np.array_equal(data.baseline(data[0]), Cells().baseline(data[0])) and not hasattr(data, "nonsense")


def test_a_weight_of_the_samples_own():
    weight = with_border_weights(Cells(given=0.5))[1]["weight"]
    mask = Cells()[1]["mask"]
    mask[(mask == 255) | (np.arange(40) < 8)[:, None]] = 0  # ignored pixels belong to no cell
    expected = border_weights(mask) * 0.5
    expected[:8] = 0
    np.testing.assert_allclose(weight, expected, rtol=1e-6)


def test_made_once_within_bounds(counted):
    data = with_border_weights(Cells(), memory=2 * 40 * 40 * 4)
    for index in (0, 1, 0, 1, 0):
        first = data[index]["weight"]
    assert len(counted) == 2
    data[2]  # sends away 1, not asked for longest
    data[0]
    assert len(counted) == 3
    data[1]
    assert len(counted) == 4
    raw = copy.copy(data)  # as the loaders take a transform off
    raw.transform = None
    assert np.array_equal(raw[0]["weight"], first) and len(counted) == 4
    assert len(pickle.dumps(data)) < 3000  # workers make their own
    assert np.array_equal(pickle.loads(pickle.dumps(data))[0]["weight"], first)
    none = with_border_weights(Cells(), memory=0)
    assert [none[0]["weight"].max() for _ in range(2)] == [first.max()] * 2 and not none._maps


def test_kept_in_a_file(counted, tmp_path):
    options = {"folder": tmp_path, "workers": 0, "progress": False}
    kept = cached(with_border_weights(Cells()), **options)
    assert len(counted) == 4
    for index in range(4):
        np.testing.assert_array_equal(kept[index]["weight"], truth(index))
    assert np.array_equal(kept.baseline(kept[0]), np.zeros((40, 40)))
    cached(with_border_weights(Cells()), **options)
    assert len(counted) == 4
    other = cached(with_border_weights(Cells(), w0=2.0), **options)  # never stale
    assert len(counted) == 8 and other[0]["weight"].max() < kept[0]["weight"].max()
    assert cached(with_border_weights(Cells()), 20, **options)[0]["weight"].shape == (20, 20)


def test_it_is_transformed_with_the_image():
    data = with_border_weights(Cells())
    for options in ({"hflip": 1.0}, {"vflip": 1.0}, {"crop": 24}, {"rot90": True, "mirror": 5}):
        for index in range(4):
            data.transform = Transform(**options)
            out = data[index]
            same = Transform(**options)(Cells()[index] | {"depth": truth(index)}, sample_rng(0, 0, index))
            assert torch.equal(out["weight"], same["depth"][0]) and torch.equal(out["mask"], same["mask"])
    data.transform = Transform(elastic=2.0, rotate=20)
    bent = data[0]
    assert bent["weight"].min() > 1 - 1e-5 and bent["weight"].max() < truth(0).max() + 1e-5
    remade = border_weights(np.where(bent["mask"] == 1, 1, 0))  # nearly, not quite: documented
    assert 0 < np.abs(bent["weight"].numpy() - remade)[2:-2, 2:-8].mean() < 0.5


def test_the_losses_are_handed_the_map():
    """`ce` with the map is `border_ce`, through the table of losses and through the Trainer."""
    data = with_border_weights(Cells(length=2), w0=10.0, sigma=5.0)
    data.transform = Transform(train=False)
    batch = torch.utils.data.default_collate([data[0], data[1]])
    output = torch.randn(2, 2, 40, 40, generator=torch.Generator().manual_seed(0))
    terms = {
        name: LOSSES.build("multitask", heads={"mask": {name: 1.0}}, num_classes=2, ignore_index=255)
        for name in ("ce", "border_ce")
    }
    plain = {key: value for key, value in batch.items() if key != "weight"}
    with_map, made, without = (
        terms[name].terms(output, given)[name].item()
        for name, given in (("ce", batch), ("border_ce", plain), ("ce", plain))
    )
    assert with_map == pytest.approx(made, rel=1e-6) and abs(with_map - without) > 1e-3

    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.level = torch.nn.Parameter(torch.tensor(0.7))

        def forward(self, x):
            return torch.cat([self.level * x, -self.level * x], 1)

    logged = []
    for dataset, name in ((data, "ce"), (Cells(length=2, transform=Transform(train=False)), "border_ce")):
        trainer = Trainer(Constant(), terms[name], epochs=1, batch_size=2, progress=False)
        logged.append(trainer.fit(dataset, dataset)[0])
    assert logged[0]["train/ce"] == pytest.approx(logged[1]["train/border_ce"], rel=1e-5)
    assert logged[0]["val/ce"] == pytest.approx(logged[1]["val/border_ce"], rel=1e-5)


def test_bad_input():
    for wrong in ({"w0": -1}, {"sigma": 0}, {"sigma": float("nan")}, {"memory": -1}, {"memory": 0.5}):
        with pytest.raises(ConfigError):
            with_border_weights(Cells(), **wrong)

    class NoMask(Cells):
        def load(self, index):
            return {key: value for key, value in super().load(index).items() if key != "mask"}

    with pytest.raises(DataError, match="need a mask"):
        with_border_weights(NoMask())[0]
