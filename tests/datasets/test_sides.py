"""Left and right, on drawn faces whose truth is known by position: after any transform, each label must still be where
its name says. The truth is geometry (centroids about the face's own axes), never our own table."""

from __future__ import annotations

import itertools

import albumentations as A
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import default_collate

from unetzoo.datasets import Albumentations, BatchTransform, Transform, sample_rng
from unetzoo.datasets.celebamask import LABELS as CELEBA
from unetzoo.datasets.helen import LABELS as HELEN
from unetzoo.errors import ConfigError
from unetzoo.inference.tiling import predict

SIZE = 65
BROW, EYE, NOSE, MOUTH = 60, 120, 180, 240  # gray values of the parts: the image itself knows no sides
WHOSE = {"viewer": HELEN, "subject": CELEBA["parts"]}
PARTS = {
    "viewer": {"left eye": 4, "right eye": 5, "left brow": 2, "right brow": 3, "nose": 6, "mouth": 8},
    "subject": {"left eye": 4, "right eye": 5, "left brow": 6, "right brow": 7, "nose": 2, "mouth": 10},
}


def face(side):
    """Upright, seen from the front, no two of its parts alike. The subject's left is on the viewer's right."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    gray, mask = np.zeros((SIZE, SIZE), np.uint8), np.zeros((SIZE, SIZE), np.uint8)
    here, there = ("left", "right") if side == "viewer" else ("right", "left")  # whose left side is left in the image
    for name, value, row, column, height, width in (
        (f"{here} brow", BROW, -16, -9, 1, 5), (f"{there} brow", BROW, -16, 9, 1, 6),
        (f"{here} eye", EYE, -10, -9, 2, 3), (f"{there} eye", EYE, -10, 9, 3, 4),
        ("nose", NOSE, 0, 0, 5, 1), ("mouth", MOUTH, 12, 0, 2, 8),
    ):  # fmt: skip
        part = (abs(y - row) <= height) & (abs(x - column) <= width)
        gray[part], mask[part] = value, PARTS[side][name]
    return {"image": np.repeat(gray[..., None], 3, 2), "mask": mask, "id": side}


def center(where):
    assert where.any()
    return np.argwhere(where).mean(0)


def check(mask, side):
    """Every sided label is on the side of its name."""
    mask, number = np.asarray(mask), PARTS[side]
    assert set(np.unique(mask)) == {0, *number.values()}
    eyes = (center(mask == number["left eye"]) + center(mask == number["right eye"])) / 2
    down = center(mask == number["mouth"]) - eyes
    if side == "viewer":
        left = np.array([0.0, -1.0])  # towards lower columns, for any transform of the face
    else:  # of one who looks at us: a quarter turn from down, counter-clockwise as we see it; also in a mirror's face
        left = np.array([-down[1], down[0]]) / np.hypot(*down)
    for part in ("eye", "brow"):
        apart = center(mask == number[f"left {part}"]) - center(mask == number[f"right {part}"])
        assert apart @ left > 0.6 * np.hypot(*apart)


def parts_of(mask, side):
    """The mask without sides."""
    n = PARTS[side]
    merge = {n["right eye"]: n["left eye"], n["right brow"]: n["left brow"]}
    return np.vectorize(lambda label: merge.get(label, label))(np.asarray(mask))


def test_the_drawing_and_the_check():
    for side in PARTS:
        check(face(side)["mask"], side)
        for wrong in (face(side)["mask"][:, ::-1], np.rot90(face(side)["mask"]) if side == "viewer" else None):
            if wrong is not None:
                with pytest.raises(AssertionError):
                    check(wrong, side)
    assert WHOSE["viewer"].side == "viewer" and WHOSE["subject"].side == "subject"
    for side, spec in WHOSE.items():
        number = PARTS[side]
        for part in ("eye", "brow"):
            assert tuple(sorted((number[f"left {part}"], number[f"right {part}"]))) in spec.swap_pairs
        short = [spec.names[number[f"{which} eye"]][0] for which in ("left", "right")]
        assert short == ["l", "r"]


FLIPS = (False, True)
ELEMENTS = [
    *itertools.product(["subject"], FLIPS, FLIPS, range(4)),
    *itertools.product(["viewer"], FLIPS, FLIPS, [0]),  # both flips are the half turn; quarters are refused, see below
]


@pytest.mark.parametrize("on", ["loader", "device"])
@pytest.mark.parametrize(("side", "hflip", "vflip", "turns"), ELEMENTS)
def test_every_flip_and_turn(side, hflip, vflip, turns, on):
    options = {"hflip": float(hflip), "vflip": float(vflip), "rot90": turns > 0, "labels": WHOSE[side]}
    move = Transform(**options, on=on)
    seed = next(i for i in range(99) if move.draw(SIZE, SIZE, sample_rng(0, 0, i)).turns == turns)
    out = move(face(side), sample_rng(0, 0, seed))
    mask = out["mask"] if on == "loader" else BatchTransform(move)(default_collate([out]))["mask"][0]
    check(mask, side)
    truth = face(side)["mask"]
    truth = truth[:, ::-1] if hflip else truth
    truth = np.rot90(truth[::-1] if vflip else truth, turns)
    assert np.array_equal(parts_of(mask, side), parts_of(truth, side))


@pytest.mark.parametrize("on", ["loader", "device"])
@pytest.mark.parametrize(("side", "degrees"), [("viewer", 30), ("viewer", 45), ("subject", 30), ("subject", 180)])
def test_rotations_with_flips(side, degrees, on):
    """Of one batch some are mirrored and some are not."""
    move = Transform(rotate=degrees, scale=(0.9, 1.1), hflip=0.5, vflip=0.5, labels=WHOSE[side], on=on)
    batch = default_collate([move(face(side), sample_rng(0, 0, i)) for i in range(24)])
    batch = BatchTransform(move)(batch) if on == "device" else batch
    for mask in batch["mask"]:
        check(mask, side)


@pytest.mark.parametrize("options", [{"rot90": True}, {"rotate": 46}])
def test_quarter_turns_leave_the_viewer_no_sides(options):
    with pytest.raises(ConfigError) as caught:
        Transform(**options, labels=HELEN)
    assert "rot90" in caught.value.hint
    Transform(**options, labels=HELEN, train=False)
    Transform(**options, labels=CELEBA["eyes-lips"])


PIPELINES = {
    "flip": A.HorizontalFlip(p=0.5),
    "upside down": A.VerticalFlip(p=0.5),
    "both": A.Compose([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]),
    "rotate": A.Compose([A.Rotate(limit=(-40, 40), p=1), A.HorizontalFlip(p=0.5)]),
    "affine": A.Compose([A.Affine(scale=(0.8, 1.2), rotate=(-30, 30), p=1), A.VerticalFlip(p=0.5)]),
    "elastic": A.Compose([A.ElasticTransform(alpha=8, sigma=6, p=1), A.HorizontalFlip(p=0.5)]),
    "resized": A.Compose([A.Resize(130, 97), A.HorizontalFlip(p=0.5)]),
    "padded": A.Compose([A.PadIfNeeded(150, 150), A.HorizontalFlip(p=0.5)]),
}
TURNING = {
    "transpose": A.Transpose(p=0.5),
    "quarters": A.RandomRotate90(p=1),
    "group": A.D4(p=1),
    "any angle": A.Compose([A.Rotate(limit=(-180, 180), p=1), A.HorizontalFlip(p=0.5)]),
}


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("side", PARTS)
def test_albumentations(side, name):
    move = Albumentations(PIPELINES[name], Transform(hflip=0.5, labels=WHOSE[side]))
    for i in range(16):
        check(move(face(side), sample_rng(0, 0, i))["mask"], side)


@pytest.mark.parametrize("name", TURNING)
def test_albumentations_that_turn(name):
    move = Albumentations(TURNING[name], Transform(vflip=0.5, labels=WHOSE["subject"]))
    for i in range(16):
        check(move(face("subject"), sample_rng(0, 0, i))["mask"], "subject")
    move = Albumentations(TURNING[name], Transform(labels=HELEN))
    with pytest.raises(ConfigError) as caught:
        for i in range(16):
            move(face("viewer"), sample_rng(0, 0, i))
    assert caught.value.subject == "labels with the viewer's sides"


class Ideal(nn.Module):
    """A perfect network: it finds the sides of any face by geometry."""

    def __init__(self, side):
        super().__init__()
        self.side = side

    def forward(self, images):
        out = torch.zeros(len(images), WHOSE[self.side].classes, SIZE, SIZE)
        for logits, image in zip(out, (images[:, 0] * 255).round().int().numpy(), strict=True):
            logits[torch.from_numpy(self.named(image)), *np.mgrid[:SIZE, :SIZE]] = 1
        return out

    def named(self, gray):
        number, nose = PARTS[self.side], center(gray == NOSE)
        down = center(gray == MOUTH) - nose
        dy, dx = (0.0, -1.0) if self.side == "viewer" else (-down[1], down[0])
        y, x = np.mgrid[:SIZE, :SIZE]
        left = (y - nose[0]) * dy + (x - nose[1]) * dx > 0
        mask = np.where(gray == NOSE, number["nose"], np.where(gray == MOUTH, number["mouth"], 0))
        for part, value in (("eye", EYE), ("brow", BROW)):
            sided = np.where(left, number[f"left {part}"], number[f"right {part}"])
            mask = np.where(gray == value, sided, mask)
        return mask


@pytest.mark.parametrize("side", PARTS)
def test_the_mean_of_flips_of_a_perfect_network(side):
    image = torch.from_numpy(face(side)["image"]).permute(2, 0, 1) / 255
    assert np.array_equal(Ideal(side)(image[None])[0].argmax(0), face(side)["mask"])
    found = predict(Ideal(side), image, tta="flips", labels=WHOSE[side])
    assert np.array_equal(found.argmax(0), face(side)["mask"]) and torch.equal(found.amax(0), torch.ones(SIZE, SIZE))
    with pytest.raises(ConfigError, match="labels and network differ"):
        predict(nn.Identity(), image, tta="flips", labels=WHOSE[side])
