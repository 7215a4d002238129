"""Objects with a number each: through transforms, cache, batches and losses."""

import numpy as np
import pytest
import torch

from unetzoo import LOSSES, LabelSpec
from unetzoo.borders import border_weights
from unetzoo.datasets import Albumentations, BatchTransform, SegmentationDataset, Transform, cached, with_border_weights
from unetzoo.datasets.geometry import MOST_OBJECTS, planes_of
from unetzoo.errors import DataError, SizeMismatchError
from unetzoo.training.batches import stack
from unetzoo.training.evaluate import Objective, fit_targets

SPEC = LabelSpec(("background", "object"))


def discs(size=48, count=12, seed=0, far=1):
    """Overlapping discs, numbered by the multiples of `far`; the image shows the numbers."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    numbers = np.zeros((size, size), np.int64)
    for number in range(1, count + 1):
        cy, cx = rng.integers(0, size, 2)
        numbers[np.hypot(y - cy, x - cx) < rng.uniform(4, 9)] = number * far
    image = np.repeat((numbers // far * 20).astype(np.uint8)[..., None], 3, axis=2)
    return {"image": image, "mask": (numbers > 0).astype(np.uint8), "instances": numbers, "id": str(seed)}


class Discs(SegmentationDataset):
    def __init__(self, count=6, **options):
        super().__init__(labels=SPEC)
        self.count, self.options = count, options

    def __len__(self):
        return self.count

    def load(self, index):
        return discs(seed=index, **self.options)

    def sources(self):
        return ()


MOVES = {
    "nothing": {},
    "crop": {"crop": 32},
    "beyond": {"mirror": 7, "crop": 60},
    "flips": {"hflip": 1.0, "vflip": 1.0},
    "turned": {"rot90": True},
    "bent": {"crop": 40, "rotate": 45, "scale": (0.7, 1.3), "elastic": 4},
    "resized": {"size": 31},
    "everything": {"size": 64, "crop": 48, "hflip": 0.5, "vflip": 0.5, "rot90": True, "rotate": 30, "elastic": 3},
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
@pytest.mark.parametrize("far", [1, 1_000_003])
def test_they_move_as_their_mask(move, far):
    """Numbers are never mixed, and no pixel has a number without its class or a class without a number."""
    for seed in range(6):
        sample = discs(seed=seed, far=far)
        out = Transform(**move)(sample, np.random.default_rng(seed))
        assert out["instances"].dtype == torch.int64 and out["instances"].shape == out["mask"].shape
        assert ((out["instances"] > 0) == (out["mask"] == 1)).all()
        assert set(out["instances"].unique().tolist()) <= set(np.unique(sample["instances"]).tolist())
        if move in (MOVES["crop"], MOVES["flips"], MOVES["turned"], MOVES["beyond"]):
            assert (out["image"][0] * 255 == out["instances"] // far * 20).all()


@pytest.mark.parametrize("move", [MOVES["flips"], MOVES["crop"], {"crop": 40, "rotate": 30, "hflip": 0.5}], ids=str)
def test_they_move_on_the_device_as_in_the_loader(move):
    samples = [discs(seed=seed, far=1_000_003) for seed in range(4)]
    loader, device = Transform(**move), Transform(**move, on="device")
    batch = BatchTransform(device)(stack([device(s, np.random.default_rng(i)) for i, s in enumerate(samples)]))
    expected = stack([loader(s, np.random.default_rng(i)) for i, s in enumerate(samples)])
    assert batch["instances"].dtype == torch.int64 and batch["instances"].shape == expected["instances"].shape
    assert ((batch["instances"] > 0) == (batch["mask"] == 1)).all()
    assert (batch["instances"] == expected["instances"]).float().mean() > 0.99


def test_albumentations_transforms_them_as_masks():
    pipeline = [{"name": "Affine", "rotate": (20, 40), "p": 1.0}, {"name": "HorizontalFlip", "p": 0.5}]
    for seed in range(4):
        sample = discs(seed=seed, far=1_000_003)
        out = Albumentations(pipeline)(sample, np.random.default_rng(seed))
        assert ((out["instances"] > 0) == (out["mask"] == 1)).all() and out["instances"].dtype == torch.int64
        assert set(out["instances"].unique().tolist()) <= set(np.unique(sample["instances"]).tolist())


@pytest.mark.parametrize("size", [None, 40])
def test_the_cache_contains_them(size, tmp_path):
    data = Discs(far=1_000_003)
    kept = cached(data, size, folder=tmp_path)
    for before, after in zip(data, kept, strict=True):
        if size is None:
            assert (before["instances"] == after["instances"]).all()
        assert ((after["instances"] > 0) == (after["mask"] == 1)).all()
        out = Transform(crop=32)(after, np.random.default_rng(0))
        assert out["instances"].dtype == torch.int64


def test_batches_widen_and_crop_them():
    batch = stack([{"image": torch.zeros(3, 8, 8), "mask": torch.zeros(8, 8, dtype=torch.uint8),
                    "instances": torch.arange(64, dtype=torch.int32).reshape(8, 8)}] * 2)  # fmt: skip
    assert batch["instances"].dtype == torch.int64
    fitted = fit_targets(batch, torch.zeros(2, 1, 4, 4), None)
    assert fitted["instances"].shape == (2, 4, 4) and fitted["instances"][0, 0, 0] == 18


@pytest.mark.parametrize(
    "instances",
    [
        np.zeros((48, 48)),
        np.zeros((48, 48, 1), int),
        np.full((48, 48), -1),
        np.full((48, 48), MOST_OBJECTS),
    ],
    ids=["floats", "channels", "negative", "too large"],
)
def test_wrong_numbers_are_refused(instances):
    with pytest.raises(DataError) as caught:
        planes_of({**discs(), "instances": instances})
    assert caught.value.subject == "0" and caught.value.hint
    with pytest.raises(SizeMismatchError):
        planes_of({**discs(), "instances": np.zeros((48, 47), int)})


TOUCHING = np.zeros((24, 30), int)
TOUCHING[6:18, 4:15], TOUCHING[6:18, 15:26] = 7, 3


class TestBorderWeights:
    def test_touching_objects_are_two(self):
        fused = border_weights(TOUCHING > 0)
        told = border_weights(TOUCHING, instances=True)
        assert (fused == 1).all() and (told == border_weights(TOUCHING)).all()
        d = np.hypot(5 - 6, 0), np.hypot(5 - 6, 1)  # above the seam: one and √2 from the two
        assert told[5, 14] == pytest.approx(1 + 10 * np.exp(-((d[0] + d[1]) ** 2) / 50)) and told[0, 0] < told[5, 14]

    def test_an_object_in_two_pieces_is_one(self):
        split = np.zeros((20, 30), int)
        split[5:15, 3:12], split[5:15, 16:27] = 4, 4
        assert (border_weights(split, instances=True) == 1).all() and border_weights(split).max() > 5

    def test_numbers_with_gaps_cost_nothing(self):
        far = np.where(TOUCHING == 7, MOST_OBJECTS - 1, TOUCHING * 1_000_003)
        assert (border_weights(far, instances=True) == border_weights(TOUCHING, instances=True)).all()
        assert (border_weights(np.full((5, 5), MOST_OBJECTS - 1), instances=True) == 1).all()

    def test_the_loss_takes_them(self):
        loss, plain = LOSSES.build("border_ce"), LOSSES.build("ce")
        logits = torch.randn(1, 2, *TOUCHING.shape)
        target, numbers = torch.from_numpy(TOUCHING > 0).long()[None], torch.from_numpy(TOUCHING)[None]
        weight = torch.from_numpy(border_weights(TOUCHING, instances=True))[None]
        told = loss(logits, target, instances=numbers)
        assert told.item() == pytest.approx(plain(logits, target, weight=weight).item(), rel=1e-5)
        fused = loss(logits, target)
        assert told != fused and fused.item() == pytest.approx(plain(logits, target).item(), rel=1e-5)
        ignored = torch.ones_like(target)
        ignored[..., :15] = 0
        assert loss(logits, target, instances=numbers, weight=ignored).isfinite()
        with pytest.raises(SizeMismatchError):
            loss(logits, target, instances=numbers[:, :-1])

    @pytest.mark.parametrize("loss", [
        lambda: LOSSES.build("border_ce"),
        lambda: LOSSES.build("multitask", heads={"mask": {"border_ce": 1.0}}, num_classes=2),
    ])  # fmt: skip
    def test_training_hands_them_to_the_loss(self, loss):
        objective = Objective(torch.nn.Conv2d(3, 2, 1), loss())
        numbers = torch.from_numpy(TOUCHING)[None]
        batch = {"image": torch.rand(1, 3, *TOUCHING.shape), "mask": (numbers > 0).long(), "instances": numbers}
        (told,), (fused,) = (
            objective(given).values() for given in (batch, {k: v for k, v in batch.items() if k != "instances"})
        )
        assert told != fused

    def test_the_map_of_the_samples_tells_them_apart(self):
        data = Discs()
        for plain, sample in zip(data, with_border_weights(data), strict=True):
            assert (sample["weight"] == border_weights(plain["instances"], instances=True)).all()
