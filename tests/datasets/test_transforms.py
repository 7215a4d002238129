"""Transforms: shapes, probabilities and values of their outputs."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import albumentations as A
import numpy as np
import pytest
import torch
from refusals import refused
from skimage.color import rgb2yiq, yiq2rgb
from transforming import marked, sample_of, where

from unetzoo.datasets import Albumentations, Transform, sample_rng
from unetzoo.errors import ConfigError, DataError, PluginError, SizeMismatchError


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


def test_saturation_and_hue_against_scikit_image():
    """Both act in YIQ: luminance and gray stay, the colors' plane is stretched and turned."""
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
    with refused(ConfigError, found="1"):
        move(sample_of(channels=1), sample_rng(0, 0, 0))


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
    gray = {"image": np.full((4, 4, 3), 100, np.uint8), "id": "g"}
    levels = torch.stack([Transform(brightness=0.2)(gray, sample_rng(0, 0, i))["image"][0, 0, 0] for i in range(200)])
    assert levels.min() >= 100 / 255 - 0.2 and levels.max() <= 100 / 255 + 0.2 and levels.std() > 0.08
    out = Transform(contrast=0.5)(sample_of(), sample_rng(0, 0, 0))["image"]
    assert 0 <= out.min() and out.max() <= 1


@pytest.mark.parametrize(
    "wrong",
    [{"size": 0}, {"size": 10**6}, {"crop": [10**5, 10**5]},
     {"size": [1, 2, 3]}, {"crop": 2.5}, {"mirror": -1}, {"hflip": 1.5}, {"vflip": "often"},
     {"rotate": -1},
     {"elastic": -2}, {"brightness": 3}, {"normalize": "zscore"}, {"normalize": {"mean": [0]}},
     {"normalize": {"mean": [0, 0], "std": [1]}}, {"normalize": {"mean": [0], "std": [0]}},
     {"rot90": True, "crop": [4, 6]}, {"rot90": 1}, {"train": "no"}, {"scale": 2}, {"scale": (0, 1)}, {"scale": (2, 1)},
     {"scale": (1, 2, 3)}, {"hue": 200}, {"saturation": -0.1}, {"rotate": float("nan")}, {"on": "cuda"},
     {"labels": "viewer"}, {"normalize": {"mean": [], "std": []}}, {"normalize": {"mean": ["x"], "std": [1]}}],
)  # fmt: skip
def test_arguments(wrong):
    with pytest.raises(ConfigError) as caught:
        Transform(**wrong)
    assert caught.value.hint


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
