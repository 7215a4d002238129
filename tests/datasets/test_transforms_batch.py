"""Work on the device against work in the loader: the same random numbers must give the same batch."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils.data import default_collate

from unetzoo.datasets import Albumentations, BatchTransform, Transform, sample_rng
from unetzoo.errors import ConfigError, SizeMismatchError
from unetzoo.labels import LabelSpec

SPEC = LabelSpec(("bg", "left", "right", "nose"), swap_pairs=((1, 2),), side="subject", ignore_index=255)
STATS = {"mean": [0.4], "std": [0.3]}


def drawn(height, width, channels, seed, planes=True, multilabel=False):
    """Discs of four classes and an ignored one over noise; depth with a hole of NaN."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), np.uint8)
    for label in (1, 2, 3, 255):
        mask[(y - rng.integers(height)) ** 2 + (x - rng.integers(width)) ** 2 < height * width / 16] = label
    sample = {"image": rng.integers(0, 256, (height, width, channels), np.uint8), "mask": mask, "id": str(seed)}
    if planes:
        valid = (y - height // 3) ** 2 + (x - width // 2) ** 2 > height * width / 30
        depth = np.where(valid, 0.5 + 0.3 * np.sin(y / 5) * np.cos(x / 7), np.nan).astype(np.float32)
        sample |= {"depth": depth, "valid": valid, "weight": 1 + rng.random((height, width), np.float32)}
    if multilabel:
        sample["mask"] = np.stack([mask == label for label in range(4)], -1).astype(np.uint8)
    return sample


def both(samples, **options):
    """The batch as the loader makes it, and as the device does."""
    moves = {on: Transform(**options, on=on) for on in ("loader", "device")}
    loader, raw = (
        default_collate([moves[on](sample, sample_rng(5, 1, i)) for i, sample in enumerate(samples)])
        for on in ("loader", "device")
    )
    return loader, BatchTransform(moves["device"])(raw), raw


def agree(ours, truth):
    assert set(ours) == set(truth) and ours["id"] == truth["id"]
    for key in ("image", "mask", "depth", "valid", "weight"):
        if key in truth:
            assert ours[key].dtype == truth[key].dtype and ours[key].shape == truth[key].shape, key
    valid = (truth["valid"] & ours["valid"]) if "valid" in truth else torch.ones(truth["mask"].shape[-2:], dtype=bool)
    equal = (ours["mask"] == truth["mask"]).all(1) if truth["mask"].ndim == 4 else ours["mask"] == truth["mask"]
    assert equal[valid.expand_as(equal)].float().mean() >= 0.999
    assert (ours["image"] - truth["image"]).abs().mean() <= 1e-3  # promised: 1/255
    if "valid" in truth:
        assert (ours["valid"] == truth["valid"]).float().mean() >= 0.999
        assert torch.isfinite(ours["depth"]).all() and not ours["depth"][:, 0][~ours["valid"]].any()
        assert (ours["depth"] - truth["depth"])[:, 0][valid].abs().max() <= 1e-3
        assert (ours["weight"] - truth["weight"]).abs().mean() <= 1 / 255


CHANCE = st.sampled_from([0.0, 0.5, 1.0])


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    height=st.integers(22, 60), width=st.integers(22, 60), channels=st.sampled_from([1, 3, 6]),
    size=st.sampled_from([None, 32, (24, 40), (70, 50)]), mirror=st.sampled_from([0, 7]),
    crop=st.sampled_from([None, 16, (18, 22)]), hflip=CHANCE, vflip=CHANCE, rot90=st.booleans(),
    rotate=st.sampled_from([0.0, 15.0, 180.0]), scale=st.sampled_from([None, (0.7, 1.4)]),
    elastic=st.sampled_from([None, None, 2.0]), brightness=st.sampled_from([0.0, 0.3]),
    contrast=st.sampled_from([0.0, 0.3]), saturation=st.sampled_from([0.0, 0.5]), hue=st.sampled_from([0.0, 60.0]),
    normalize=st.sampled_from(["unit", "minmax", "standard", STATS]), train=st.sampled_from([True, True, True, False]),
    planes=st.booleans(), seed=st.integers(0, 1000),
)  # fmt: skip
def test_all_combinations(height, width, channels, planes, seed, **options):
    if options["rot90"]:
        options["crop"] = 16
    if channels == 1:
        options |= {"saturation": 0.0, "hue": 0.0}
    samples = [drawn(height, width, channels, seed + i, planes) for i in range(3)]
    truth, ours, _ = both(samples, **options, labels=SPEC)
    agree(ours, truth)


@pytest.mark.parametrize("turns", [False, True])
def test_flips_and_turns_lose_nothing(turns):
    samples = [drawn(24, 24, 3, i) for i in range(32)]
    truth, ours, raw = both(samples, hflip=0.5, vflip=0.5, rot90=turns, labels=SPEC)
    assert raw["image"].dtype == torch.uint8 and tuple(raw["moves"]["numbers"].shape) == (32, 11)  # small on its way
    assert torch.equal(ours["mask"], truth["mask"]) and torch.equal(ours["valid"], truth["valid"])
    assert (ours["image"] - truth["image"]).abs().max() < 1e-4
    kinds = {tuple(row) for row in raw["moves"]["numbers"][:, [0, 1, 3, 4]].tolist()}
    assert len(kinds) == (8 if turns else 4)  # samples of one batch differ
    still = default_collate([Transform()(sample, sample_rng(0, 0, 0)) for sample in samples])
    assert not torch.equal(ours["mask"], still["mask"])


def test_multilabel_planes_change_places():
    samples = [drawn(20, 26, 3, i, multilabel=True) for i in range(6)]
    truth, ours, _ = both(samples, hflip=0.5, vflip=0.5, labels=SPEC)
    assert truth["mask"].shape == (6, 4, 20, 26)
    assert torch.equal(ours["mask"], truth["mask"])
    mirrored = Transform(hflip=1.0, labels=SPEC)(samples[0], sample_rng(0, 0, 0))["mask"]
    for plane, origin in enumerate((0, 2, 1, 3)):
        assert np.array_equal(mirrored[plane], samples[0]["mask"][:, ::-1, origin])


def test_tiny_images():
    for shape in ((1, 1), (1, 5), (2, 1)):
        truth, ours, _ = both([drawn(*shape, 3, i) for i in range(4)], mirror=2, hflip=0.5, vflip=0.5, rotate=5)
        assert torch.isfinite(ours["image"]).all()
        assert torch.equal(ours["mask"], truth["mask"]) and (ours["image"] - truth["image"]).abs().max() < 1e-4


def test_samples_do_not_depend_on_the_batch_size():
    samples = [drawn(30, 30, 3, i) for i in range(4)]
    move = Transform(rotate=30, scale=(0.8, 1.2), hflip=0.5, contrast=0.3, on="device")
    raw = [move(sample, sample_rng(5, 1, i)) for i, sample in enumerate(samples)]
    batch = pickle.loads(pickle.dumps(BatchTransform(move)))
    whole, alone = batch(default_collate(raw)), batch(default_collate(raw[2:3]))
    assert (whole["image"][2:3] - alone["image"]).abs().max() < 1e-5 and torch.equal(whole["mask"][2:3], alone["mask"])


def test_stages_of_growing_images():
    samples = [drawn(40, 30, 3, i) for i in range(3)]
    last = BatchTransform(Transform(size=32, crop=24, hflip=0.5, rotate=10, normalize="standard", on="device"))
    for size, crop in ((20, 16), (28, None), (32, 24)):
        truth, _, raw = both(samples, size=size, crop=crop, hflip=0.5, rotate=10, normalize="standard")
        agree(last(raw), truth)


def test_autocast_does_not_blur_places():
    samples = [drawn(60, 60, 3, i) for i in range(2)]
    _, ours, raw = both(samples, rotate=30)
    move = BatchTransform(Transform(rotate=30, on="device"))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(move(raw)["image"], ours["image"])


def test_no_step_waits_for_the_device():
    """Fake tensors have no values, so reading one fails."""
    everything = {"size": 40, "crop": 32, "mirror": 4, "hflip": 0.5, "vflip": 0.5, "rot90": True, "rotate": 30,
                  "scale": (0.8, 1.2), "brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 9}  # fmt: skip
    for how in ("unit", "minmax", "standard", STATS):
        _, ours, raw = both([drawn(60, 60, 3, i) for i in range(2)], **everything, normalize=how, labels=SPEC)
        move = BatchTransform(Transform(**everything, normalize=how, labels=SPEC, on="device"))
        sizes = raw["moves"]["sizes"].tolist()
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            faked = {k: mode.from_tensor(v) if isinstance(v, torch.Tensor) else v for k, v in raw.items()}
            faked["moves"] = {"numbers": mode.from_tensor(raw["moves"]["numbers"]), "sizes": sizes}
            with pytest.raises(DataDependentOutputException):
                faked["image"].max().item()
            shapes = {k: (v.shape, v.dtype) for k, v in move(faked).items() if k != "id"}
        assert shapes == {k: (v.shape, v.dtype) for k, v in ours.items() if k != "id"}


def test_albumentations_before():
    pipeline = [{"name": "HorizontalFlip", "p": 0.5}, {"name": "RandomBrightnessContrast", "p": 1.0}]
    samples = [drawn(30, 34, 3, i) for i in range(4)]
    batches = {}
    for on in ("loader", "device"):
        move = Albumentations(pipeline, Transform(size=24, vflip=0.5, labels=SPEC, on=on))
        batches[on] = default_collate([move(sample, sample_rng(0, 0, i)) for i, sample in enumerate(samples)])
    agree(BatchTransform(move)(batches["device"]), batches["loader"])


def test_bad_input():
    ready = {"image": torch.zeros(1, 3, 4, 4), "id": ["a"]}
    assert BatchTransform(Transform(on="device"))(ready) == ready  # validation stays with the loader
    for wrong in (Transform(), Albumentations([{"name": "HorizontalFlip"}]), None):
        with pytest.raises(ConfigError, match='on="device"'):
            BatchTransform(wrong)
    with pytest.raises(SizeMismatchError, match="smaller than the crop"):
        Transform(size=20, crop=24, on="device")(drawn(30, 30, 3, 0), sample_rng(0, 0, 0))
    for option, channels in (({"hue": 20.0}, 1), ({"normalize": {"mean": [0, 0], "std": [1, 1]}}, 3)):
        move = Transform(**option, on="device")
        raw = default_collate([move(drawn(8, 8, channels, 0), sample_rng(0, 0, 0))])
        with pytest.raises(ConfigError, match="channels"):
            BatchTransform(move)(raw)
