from __future__ import annotations

import json
import pickle
import subprocess
import sys

import albumentations as A
import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.color import rgb2yiq, yiq2rgb

from unetzoo.datasets import Albumentations, Transform, sample_rng
from unetzoo.datasets.geometry import elastic_displacement, resize, warp
from unetzoo.errors import ConfigError, DataError, PluginError, SizeMismatchError
from unetzoo.labels import LabelSpec

SIDES = ("bg", "left", "right", "nose")


def spec(side):
    return LabelSpec(SIDES, swap_pairs=((1, 2),), side=side)


def sample_of(height=12, width=16, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (height, width, channels), np.uint8),
        "mask": rng.integers(0, 4, (height, width), np.uint8),
        "depth": rng.uniform(0.1, 1, (height, width)).astype(np.float32),
        "valid": rng.uniform(size=(height, width)) < 0.9,
        "weight": rng.uniform(size=(height, width)).astype(np.float32),
        "id": "s",
    }


def marked(row, column, height=8, width=8):
    """One bright pixel of class 1 that is also deep, valid and heavy."""
    sample = {"image": np.zeros((height, width, 6), np.uint8), "id": "m"}
    for name, kind in (("mask", np.uint8), ("depth", np.float32), ("valid", bool), ("weight", np.float32)):
        sample[name] = np.zeros((height, width), kind)
        sample[name][row, column] = 1
    sample["image"][row, column] = 255
    return sample


def where(out):
    """The one place all planes agree on."""
    places = {tuple(torch.nonzero(p == p.max())[0].tolist())
              for p in (*out["image"], out["mask"], out["depth"][0], out["weight"])}  # fmt: skip
    assert len(places) == 1
    return places.pop()


def test_contract():
    for channels in (1, 3, 6):
        before = sample_of(channels=channels)
        kept = pickle.loads(pickle.dumps(before))
        out = Transform(hflip=1.0)(before, sample_rng(0, 0, 0))
        kinds = {"image": torch.float32, "mask": torch.int64, "depth": torch.float32, "valid": torch.bool,
                 "weight": torch.float32}  # fmt: skip
        shapes = {"image": (channels, 12, 16), "depth": (1, 12, 16)}
        for name, kind in kinds.items():
            assert out[name].dtype == kind and out[name].shape == shapes.get(name, (12, 16))
        assert out["id"] == "s" and all(np.array_equal(before[k], kept[k]) for k in kept)  # the dataset's are untouched
        assert torch.allclose(out["image"].flip(-1), torch.from_numpy(before["image"]).permute(2, 0, 1) / 255)
    assert set(Transform()({"image": before["image"], "id": "x"}, sample_rng(0, 0, 0))) == {"image", "id"}


FULL = {"size": 24, "mirror": 3, "crop": [16, 16], "hflip": 0.5, "vflip": 0.5, "rot90": True, "rotate": 20,
        "elastic": 2.0,
        "brightness": 0.2, "contrast": 0.2, "normalize": {"mean": [0.5], "std": [0.25]}}  # fmt: skip


def test_deterministic_and_picklable():
    state = np.random.get_state()[1].tolist(), torch.get_rng_state()
    move = Transform(**json.loads(json.dumps(FULL)))
    outs = [t(sample_of(), sample_rng(1, 2, 3)) for t in (move, pickle.loads(pickle.dumps(move)), move)]
    for out in outs[1:]:
        assert all(torch.equal(out[k], outs[0][k]) for k in ("image", "mask", "depth", "valid", "weight"))
    assert not torch.equal(move(sample_of(), sample_rng(1, 3, 3))["image"], outs[0]["image"])
    assert outs[0]["image"].shape == (3, 16, 16) and torch.isfinite(outs[0]["depth"]).all()
    assert set(outs[0]["mask"].unique().tolist()) <= {0, 1, 2, 3}
    assert np.random.get_state()[1].tolist() == state[0] and torch.equal(torch.get_rng_state(), state[1])


def test_evaluation_has_no_chance():
    move = Transform(**{**FULL, "train": False})
    a, b = (move(sample_of(), sample_rng(i, 0, 0)) for i in (1, 2))
    assert torch.equal(a["image"], b["image"])
    out = Transform(crop=4, train=False)(marked(3, 2), sample_rng(0, 0, 0))  # window 2…5
    assert where(out) == (1, 0)


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
    with pytest.raises(SizeMismatchError, match=r"at least 20×20.*found 12×16.*Fix: lower crop"):
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
    assert (truth != moved["mask"]).mean() < 0.01  # but for ties


def test_rotation_and_scale_against_scipy():
    """The whole of it: a window beyond the edges, turned and enlarged about its centre."""
    raw = sample_of(24, 24)
    move = Transform(mirror=6, crop=20, rotate=90, scale=(0.6, 1.7), normalize="unit")
    for i in range(6):
        moves = move.draw(24, 24, sample_rng(0, 0, i))
        assert 0.6 <= moves.scale <= 1.7 and abs(moves.degrees) <= 90
        out = move(raw, sample_rng(0, 0, i))
        turn, centre = np.deg2rad(moves.degrees), 9.5
        turned = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) / moves.scale
        away = np.stack(np.mgrid[:20, :20]).reshape(2, -1) - centre
        rows, columns = (turned @ away).reshape(2, 20, 20) + centre + np.reshape(moves.window[:2], (2, 1, 1))
        for c in range(3):
            truth = ndimage.map_coordinates(raw["image"][..., c].astype(float), [rows, columns], order=1, mode="mirror")
            assert np.abs(truth / 255 - out["image"][c].numpy()).max() < 1e-4
        truth = ndimage.map_coordinates(raw["mask"], [rows, columns], order=0, mode="mirror")
        assert (truth != out["mask"].numpy()).mean() < 0.01
    drawn = [Transform(scale=(0.5, 2.0)).draw(9, 9, sample_rng(0, 0, i)).scale for i in range(300)]
    assert 0.5 <= min(drawn) < 0.55 and 1.95 < max(drawn) <= 2


def test_saturation_and_hue_against_scikit_image():
    """Both act in YIQ: luminance and grey stay, the colours' plane is stretched and turned."""
    raw = sample_of(9, 9, channels=6)
    raw["image"] = raw["image"] // 4 + 96  # nothing is clipped
    raw["image"][0, 0] = 100
    move = Transform(saturation=0.4, hue=50)
    for i in range(4):
        out = move(raw, sample_rng(0, 0, i))["image"].numpy()
        saturation, hue = move.draw(9, 9, sample_rng(0, 0, i)).light[2:]
        for three in (slice(0, 3), slice(3, 6)):
            yiq = rgb2yiq(raw["image"][..., three] / 255)
            colors = (yiq[..., 1] + 1j * yiq[..., 2]) * (1 + saturation) * np.exp(1j * np.deg2rad(hue))
            truth = yiq2rgb(np.stack([yiq[..., 0], colors.real, colors.imag], -1)).transpose(2, 0, 1)
            assert np.abs(truth - out[three]).max() < 1e-3
        assert np.abs(out[:, 0, 0] - 100 / 255).max() < 1e-5
    lights = np.array([move.draw(9, 9, sample_rng(0, 0, i)).light for i in range(200)])
    assert (
        not lights[:, :2].any() and (abs(lights[:, 2:]) <= (0.4, 50)).all() and (lights[:, 2:].std(0) > (0.2, 25)).all()
    )
    with pytest.raises(ConfigError, match=r"need colours.*found 1"):
        move(sample_of(channels=1), sample_rng(0, 0, 0))


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


def test_normalize():
    raw, rng = sample_of(), sample_rng(0, 0, 0)
    x = raw["image"].astype(np.float64).transpose(2, 0, 1)
    truths = {"unit": x / 255, "minmax": (x - x.min()) / (x.max() - x.min()), "standard": (x - x.mean()) / x.std()}
    for name, truth in truths.items():
        assert np.allclose(Transform(normalize=name)(raw, rng)["image"], truth, atol=1e-5)  # type: ignore[arg-type]
    stats = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}
    truth = (x / 255 - np.reshape(stats["mean"], (3, 1, 1))) / np.reshape(stats["std"], (3, 1, 1))
    assert np.allclose(Transform(normalize=stats)(raw, rng)["image"], truth, atol=1e-5)
    with pytest.raises(ConfigError, match="6 channels"):
        Transform(normalize=stats)(sample_of(channels=6), rng)
    black = {"image": np.zeros((4, 4, 3), np.uint8), "id": "k"}
    for name in ("minmax", "standard"):
        assert (Transform(normalize=name)(black, rng)["image"] == 0).all()  # type: ignore[arg-type]


def test_light():
    grey = {"image": np.full((4, 4, 3), 100, np.uint8), "id": "g"}
    levels = torch.stack([Transform(brightness=0.2)(grey, sample_rng(0, 0, i))["image"][0, 0, 0] for i in range(200)])
    assert levels.min() >= 100 / 255 - 0.2 and levels.max() <= 100 / 255 + 0.2 and levels.std() > 0.08
    out = Transform(contrast=0.5)(sample_of(), sample_rng(0, 0, 0))["image"]
    assert 0 <= out.min() and out.max() <= 1


@pytest.mark.parametrize(
    "wrong",
    [{"size": 0}, {"size": [1, 2, 3]}, {"crop": 2.5}, {"mirror": -1}, {"hflip": 1.5}, {"vflip": "often"},
     {"rotate": -1},
     {"elastic": -2}, {"brightness": 3}, {"normalize": "zscore"}, {"normalize": {"mean": [0]}},
     {"normalize": {"mean": [0, 0], "std": [1]}}, {"normalize": {"mean": [0], "std": [0]}},
     {"rot90": True, "crop": [4, 6]}, {"rot90": 1}, {"train": "no"}, {"scale": 2}, {"scale": (0, 1)}, {"scale": (2, 1)},
     {"scale": (1, 2, 3)}, {"hue": 200}, {"saturation": -0.1}, {"rotate": float("nan")}, {"on": "cuda"},
     {"labels": "viewer"}, {"normalize": {"mean": [], "std": []}}, {"normalize": {"mean": ["x"], "std": [1]}}],
)  # fmt: skip
def test_arguments(wrong):
    with pytest.raises(ConfigError, match="Fix: "):
        Transform(**wrong)


def test_strange_samples():
    move, rng = Transform(), sample_rng(0, 0, 0)
    good = sample_of()
    for bad in (
        {**good, "image": good["image"].astype(np.float32)},
        {"mask": good["mask"]},
        {**good, "edge": good["mask"]},
    ):
        with pytest.raises(DataError):
            move(bad, rng)
    with pytest.raises(SizeMismatchError):
        move({**good, "mask": good["mask"][:4]}, rng)


def test_albumentations():
    pipeline = A.Compose([A.RandomCrop(8, 8), A.HorizontalFlip(p=0.5), A.RandomBrightnessContrast(p=1)])
    move = Albumentations(pipeline, Transform(normalize="unit"))
    for channels in (1, 3, 6):
        raw = sample_of(channels=channels)
        outs = [t(raw, sample_rng(0, 0, 5)) for t in (move, move, pickle.loads(pickle.dumps(move)))]
        assert outs[0]["image"].shape == (channels, 8, 8) and outs[0]["valid"].dtype == torch.bool
        for key in ("image", "mask", "depth", "valid", "weight"):
            assert torch.equal(outs[0][key], outs[1][key]) and torch.equal(outs[0][key], outs[2][key])
    assert len({move(sample_of(), sample_rng(0, 0, i))["mask"].numpy().tobytes() for i in range(8)}) > 4
    written = json.loads(json.dumps(A.to_dict(A.Compose([A.HorizontalFlip(p=1.0)]))))
    assert where(Albumentations(written)(marked(1, 2), sample_rng(0, 0, 0))) == (1, 5)
    for wrong in ({"x": 1}, 3):
        with pytest.raises(ConfigError):
            Albumentations(wrong)
    with pytest.raises(PluginError, match="Crop size"):
        Albumentations(A.RandomCrop(99, 99))(sample_of(), sample_rng(0, 0, 0))


SOCKETS = """
import os, sys

def audit(event, args):
    local = event == 'socket.connect' and isinstance(args[1], (str, bytes))  # workers talk through unix sockets
    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname') and not local:
        os._exit(9)

sys.addaudithook(audit)  # a spawned worker imports this file and installs it too

if __name__ == '__main__':
    os.environ.pop('NO_ALBUMENTATIONS_UPDATE', None)
    from torch.utils.data import DataLoader
    from unetzoo.datasets import Albumentations, Composites, Transform
    assert 'albumentations' not in sys.modules
    move = Albumentations({'transform': {'__class_fullname__': 'HorizontalFlip', 'p': 1.0}}, Transform(hflip=0.5))
    data = Composites(size=32, length=2, foregrounds=1, backgrounds=1, transform=move)
    assert len(data[0]['image']) == 6
    loader = DataLoader(data, num_workers=1, multiprocessing_context='spawn')
    assert len(list(loader)) == 2
    print('quiet')
"""


def test_no_socket_in_main_or_spawned_worker(tmp_path):
    script = tmp_path / "sockets.py"
    script.write_text(SOCKETS)
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0 and "quiet" in run.stdout, run.stderr
