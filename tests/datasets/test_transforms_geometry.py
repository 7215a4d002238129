"""Transforms that move pixels: flips, turns, crops, warps; and what changes sides with them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from refusals import refused
from scipy import ndimage
from transforming import marked, sample_of, spec, where

from unetzoo.datasets import Transform, sample_rng
from unetzoo.datasets.geometry import elastic_displacement, resize, warp
from unetzoo.errors import ConfigError, SizeMismatchError


@pytest.mark.parametrize(("flips", "place"), [("hflip", (1, 5)), ("vflip", (6, 2)), ("both", (6, 5))])
def test_flips(flips, place):
    options = {"hflip": 1.0, "vflip": 1.0} if flips == "both" else {flips: 1.0}
    assert where(Transform(**options)(marked(1, 2), sample_rng(0, 0, 0))) == place


def test_rot90_and_rotation_turn_counter_clockwise():
    turns = {where(Transform(rot90=True)(marked(1, 2), sample_rng(0, 0, i))) for i in range(30)}
    assert turns == {(1, 2), (5, 1), (6, 5), (2, 6)}
    sample = marked(1, 2)
    from unetzoo.datasets.geometry import planes_of, source_grid, source_matrix

    for degrees, place in ((90, (5, 1)), (180, (6, 5)), (-90, (2, 6))):
        moved = warp(planes_of(sample), *source_grid(source_matrix(0, 0, 8, 8, degrees), 8, 8))
        assert np.argwhere(moved["mask"]).tolist() == [list(place)]
        assert np.unravel_index(moved["image"][..., 0].argmax(), (8, 8)) == place
    with pytest.raises(SizeMismatchError, match="square"):
        Transform(rot90=True)(sample_of(), sample_rng(0, 0, 0))


def test_crop_and_mirror():
    seen = set()
    for i in range(40):
        out = Transform(crop=(5, 6))(marked(4, 4), sample_rng(0, 0, i))
        seen.add(where(out))
        assert out["image"].shape == (6, 5, 6)
    assert seen == {(r, c) for r in (1, 2, 3, 4) for c in (2, 3, 4)}
    out = Transform(mirror=3)(sample_of(), sample_rng(0, 0, 0))
    raw = sample_of()
    assert out["mask"].numpy().tolist() == np.pad(raw["mask"], 3, mode="reflect").tolist()
    assert np.array_equal(out["weight"], np.pad(raw["weight"], 3, mode="reflect"))
    assert out["mask"][2, 3 + 5] == raw["mask"][1, 5]  # the edge itself is not repeated
    with refused(SizeMismatchError, expected="at least 20×20", found="12×16", hint="lower crop"):
        Transform(crop=20)(sample_of(), sample_rng(0, 0, 0))
    assert Transform(crop=20, mirror=4)(sample_of(), sample_rng(0, 0, 0))["mask"].shape == (20, 20)


def test_resize():
    raw = marked(4, 6, 8, 12)
    out = Transform(size=(16, 24))(raw, sample_rng(0, 0, 0))
    assert torch.nonzero(out["mask"]).tolist() == [[8, 12], [8, 13], [9, 12], [9, 13]]
    blocks = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    small = resize({"image": np.kron(blocks, np.ones((4, 4, 1), np.uint8)), "mask": np.eye(16, dtype=np.uint8)}, 4, 4)
    assert np.abs(small["image"].astype(int) - blocks).max() < 6 and set(np.unique(small["mask"])) <= {0, 1}
    constant = {"image": np.full((9, 9, 6), 77, np.uint8)}
    assert np.allclose(resize(constant, 4, 7)["image"], 77)


def test_invalid_depth_never_mixes_in():
    depth = np.full((10, 10), 0.5, np.float32)
    valid = np.ones((10, 10), bool)
    depth[3:7, 3:7], valid[3:7, 3:7] = np.nan, False
    raw = {"image": np.zeros((10, 10, 1), np.uint8), "depth": depth, "valid": valid, "id": "d"}
    for move in (Transform(size=17), Transform(size=5), Transform(rotate=45), Transform(elastic=2.0)):
        out = move(raw, sample_rng(0, 0, 1))
        assert torch.allclose(out["depth"][0][out["valid"]], torch.tensor(0.5), atol=1e-5)
        assert torch.isfinite(out["depth"]).all() and not out["valid"].all() and out["valid"].any()


def test_elastic():
    raw = sample_of(20, 20)
    plain, still = (Transform(elastic=s)(raw, sample_rng(0, 0, 0)) for s in (None, 0.0))
    assert all(torch.equal(plain[k], still[k]) for k in ("image", "mask", "depth", "weight"))
    zeros = np.mgrid[0:20, 0:20].astype(float) + elastic_displacement(np.zeros((2, 3, 3)), 20, 20)
    assert np.abs(warp({"image": raw["image"]}, *zeros)["image"] - raw["image"]).max() < 1e-3
    drawn = [Transform(elastic=10.0).draw(33, 33, sample_rng(0, 0, i)).knots for i in range(400)]
    fields = np.stack([elastic_displacement(knots, 33, 33) for knots in drawn])
    assert np.allclose(fields[7][:, ::16, ::16], drawn[7], atol=1e-4)
    for row in (0, 16, 32):  # the nine grid points carry the drawn vectors themselves
        assert abs(fields[:, :, row, 16].std() - 10) < 1 and abs(fields[:, :, row, 0].mean()) < 1.2
    assert np.abs(np.diff(fields, axis=-1)).max() < 6  # smooth


def test_warp_against_scipy():
    raw = sample_of(24, 30)
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:20, 0:22] + rng.uniform(-4, 9, (2, 20, 22))
    moved = warp({k: raw[k] for k in ("image", "mask", "weight")}, rows, columns)
    for name in ("image", "weight"):
        plane = raw[name].astype(float)
        for c in range(plane.shape[2] if plane.ndim == 3 else 1):
            source, result = (plane[..., c], moved[name][..., c]) if plane.ndim == 3 else (plane, moved[name])
            truth = ndimage.map_coordinates(source, [rows, columns], order=1, mode="mirror")
            assert np.abs(truth - result).max() < 1e-2
    truth = ndimage.map_coordinates(raw["mask"], [rows, columns], order=0, mode="mirror")
    assert (truth != moved["mask"]).mean() < 0.01  # except for ties


def test_rotation_and_scale_against_scipy():
    """The whole of it: a window beyond the edges, turned and enlarged about its center."""
    raw = sample_of(24, 24)
    move = Transform(mirror=6, crop=20, rotate=90, scale=(0.6, 1.7), normalize="unit")
    for i in range(6):
        moves = move.draw(24, 24, sample_rng(0, 0, i))
        assert 0.6 <= moves.scale <= 1.7 and abs(moves.degrees) <= 90
        out = move(raw, sample_rng(0, 0, i))
        turn, center = np.deg2rad(moves.degrees), 9.5
        turned = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) / moves.scale
        away = np.stack(np.mgrid[:20, :20]).reshape(2, -1) - center
        rows, columns = (turned @ away).reshape(2, 20, 20) + center + np.reshape(moves.window[:2], (2, 1, 1))
        for c in range(3):
            truth = ndimage.map_coordinates(raw["image"][..., c].astype(float), [rows, columns], order=1, mode="mirror")
            assert np.abs(truth / 255 - out["image"][c].numpy()).max() < 1e-4
        truth = ndimage.map_coordinates(raw["mask"], [rows, columns], order=0, mode="mirror")
        assert (truth != out["mask"].numpy()).mean() < 0.01
    drawn = [Transform(scale=(0.5, 2.0)).draw(9, 9, sample_rng(0, 0, i)).scale for i in range(300)]
    assert 0.5 <= min(drawn) < 0.55 and 1.95 < max(drawn) <= 2


@pytest.mark.parametrize(
    ("side", "hflip", "vflip", "swapped"),
    [("subject", 1, 0, True), ("subject", 0, 1, True), ("subject", 1, 1, False), ("subject", 0, 0, False),
     ("viewer", 1, 0, True), ("viewer", 0, 1, False), ("viewer", 1, 1, True), ("viewer", 0, 0, False)],
)  # fmt: skip
def test_sides_swap(side, hflip, vflip, swapped):
    labels = spec(side)
    raw = {"image": np.zeros((2, 4, 3), np.uint8), "mask": np.array([[0, 1, 2, 3]] * 2, np.uint8), "id": "f"}
    for given in (labels, json.loads(json.dumps(labels.to_dict()))):
        out = Transform(hflip=hflip, vflip=vflip, labels=given)(raw, sample_rng(0, 0, 0))
        row = [0, 2, 1, 3] if swapped else [0, 1, 2, 3]
        assert out["mask"][0].tolist() == (row[::-1] if hflip else row)


def test_sides_under_turns():
    with pytest.raises(ConfigError, match="viewer"):
        Transform(rot90=True, labels=spec("viewer"))
    with pytest.raises(ConfigError, match="viewer"):
        Transform(rotate=60, labels=spec("viewer"))
    mask = np.array([[1, 1], [1, 1]], np.uint8)
    raw = {"image": np.zeros((2, 2, 1), np.uint8), "mask": mask, "id": "f"}
    move = Transform(rot90=True, labels=spec("subject"))  # a turn is no reflection
    assert all((move(raw, sample_rng(0, 0, i))["mask"] == 1).all() for i in range(8))
