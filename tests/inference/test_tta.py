"""Test-time augmentation against NumPy and SciPy: the views, and the merging of their outputs."""

import numpy as np
import pytest
import scipy.ndimage
import torch
from conftest import small
from scipy.special import expit, log_softmax, logit, softmax
from torch import nn

from unetzoo import LabelSpec, predict
from unetzoo.errors import ConfigError
from unetzoo.inference import TTA, predict_with_uncertainty
from unetzoo.inference.merging import TTAMerger
from unetzoo.inference.tta import as_tta
from unetzoo.inference.views import View
from unetzoo.models import MaskDepth
from unetzoo.models.base import Geometry

EVERYTHING = TTA(flips=True, rotations=8, scales=(1, 0.75), merge="mean")


def draw(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


class Echo(nn.Module):
    """Returns its input."""

    geometry = Geometry(minimum=1, stride=1, halo=0)

    def forward(self, x):
        return x


class Slope(nn.Module):
    """Returns the column of each pixel, so that the outputs of all views differ."""

    geometry = Geometry(minimum=1, stride=1)

    def __init__(self, classes=2):
        super().__init__()
        self.classes = classes

    def forward(self, x):
        ramp = torch.linspace(-2, 2, x.shape[-1], dtype=x.dtype).expand(len(x), 1, *x.shape[2:])
        return torch.cat([x[:, :1] + (k + 1) * ramp for k in range(self.classes)], 1)


@pytest.mark.parametrize(
    ("tta", "count"),
    [
        (TTA(flips=True), 4),
        (TTA(rotations=4), 4),
        (TTA(rotations=7), 7),
        (TTA(flips=True, rotations=2), 4),
        (TTA(flips=True, rotations=4), 8),
        (TTA(flips=True, rotations=7), 28),
        (TTA(flips=True, rotations=8), 16),
        (TTA(scales=(0.5, 1, 2)), 3),
        (EVERYTHING, 32),
    ],
    ids=str,
)
def test_every_combination_once(tta, count):
    views = tta.views()
    assert len(views) == len(set(views)) == count and views[0] == View()
    whole = {(v.scale, round(v.angle + 90 * v.turns, 6), v.mirror) for v in views}
    assert len(whole) == count
    turns = {round(360 * k / tta.rotations, 6) for k in range(tta.rotations)}
    assert {angle for scale, angle, mirror in whole if scale == 1 and not mirror} >= turns


def by_numpy(view, image):
    """Whole views that move pixels only, (C, H, W)."""
    mirrored = image[:, :, ::-1] if view.mirror else image
    return np.rot90(mirrored, view.turns, (1, 2))


def back_by_numpy(view, answer):
    turned = np.rot90(answer, -view.turns, (1, 2))
    return turned[:, :, ::-1] if view.mirror else turned


@pytest.mark.parametrize("tta", ["flips", "d4", TTA(rotations=4)], ids=str)
@pytest.mark.parametrize("size", [(16, 16), (12, 32), (1, 8), (1, 1)])
def test_mirrorings_and_quarter_turns_of_any_shape(tta, size):
    net, image = Slope(), draw(1, *size)
    views = as_tta(tta).views()
    parts = [
        back_by_numpy(view, net(torch.from_numpy(by_numpy(view, image.numpy()).copy())[None])[0].numpy())
        for view in views
    ]
    assert np.allclose(predict(net, image, tta=tta), np.mean(parts, 0), atol=1e-6)


@pytest.mark.parametrize("view", [View(angle=a) for a in (3.0, 360 / 7 % 90, 45.0, 89.0)], ids=str)
@pytest.mark.parametrize("size", [(20, 31), (5, 40), (1, 17), (2, 2)])
def test_turned_images_are_scipys(view, size):
    image = draw(1, *size).numpy()[0]
    turned = view.resampled(torch.from_numpy(image)[None])[0].numpy()
    cos, sin = np.cos(np.radians(view.angle)), np.sin(np.radians(view.angle))
    y, x = np.mgrid[: turned.shape[0], : turned.shape[1]] - (np.array(turned.shape).reshape(2, 1, 1) - 1) / 2
    middle = (np.array(size) - 1) / 2
    places = np.stack([x * sin + y * cos + middle[0], x * cos - y * sin + middle[1]])  # counter-clockwise
    wanted = scipy.ndimage.map_coordinates(image, places, order=1, mode="mirror")
    assert np.allclose(turned, wanted, atol=1e-4)
    corners = [(h, w) for h in (0, size[0] - 1) for w in (0, size[1] - 1)]
    reach = np.abs(
        [[(w - middle[1]) * s + (h - middle[0]) * c for h, w in corners] for s, c in ((sin, cos), (cos, -sin))]
    )
    assert all(2 * r.max() <= n for r, n in zip(reach, turned.shape, strict=True))  # nothing is cut off


@pytest.mark.parametrize("out_stride", [1, 2])
@pytest.mark.parametrize("view", [View(angle=30), View(2.0), View(0.5), View(1.5, 72.0)], ids=str)
def test_reverted_views_are_aligned(view, out_stride):
    y, x = torch.meshgrid(torch.arange(60.0), torch.arange(44.0), indexing="ij")
    smooth = torch.stack([torch.sin(y / 18) + torch.cos(x / 14)])
    half = smooth.unfold(1, out_stride, out_stride).unfold(2, out_stride, out_stride).mean((-1, -2))
    seen = view.resampled(smooth)
    answer = seen.unfold(1, out_stride, out_stride).unfold(2, out_stride, out_stride).mean((-1, -2))
    back = view.resampled_back(answer, (60, 44), out_stride)
    assert back.shape == half.shape
    inner = (slice(None), slice(4, -4), slice(4, -4))
    assert (back - half)[inner].abs().max() < 0.04


@pytest.mark.parametrize("tta", ["flips", "d4", "paper", EVERYTHING], ids=str)
@pytest.mark.parametrize(("name", "config"), [("unet", {}), ("bnunet", {}), ("dualunet", {"out_stride": 2})])
def test_tiles_equal_the_whole(name, config, tta):
    net, image = small(name, **config).double(), draw(2, 110, 83).double()
    whole, tiled = predict(net, image, tta=tta), predict(net, image, tta=tta, tile=(64, 76))
    pairs = [(whole, tiled)] if name != "dualunet" else zip(whole, tiled, strict=True)
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in pairs)


def merged(answers, merge, mode):
    merger = TTAMerger(TTA(merge=merge, mode=mode), uncertainty=True)
    for answer in answers:
        merger.add((torch.from_numpy(answer)[None],))
    return [part[0].numpy() for part in merger.merged()]


def entropy(p, axis=None):
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, -p * np.log(p), 0.0)
    return terms if axis is None else terms.sum(axis, keepdims=True)


@pytest.mark.parametrize("spread", [0.1, 3.0, 60.0])
@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_merging_is_that_of_the_probabilities(channels, mode, spread):
    answers = np.random.default_rng(0).normal(0, spread, (6, channels, 3, 4))
    binary = channels == 1 or mode == "multilabel"
    p = expit(answers) if binary else softmax(answers, 1)
    back = expit if binary else (lambda x: softmax(x, 0))
    both = np.stack([p, expit(-answers)]) if binary else p[None]
    geometric = np.exp(np.log(np.maximum(both, 1e-300)).mean(1))
    geometric = geometric[0] / geometric.sum(0) if binary else geometric[0] / geometric[0].sum(0)
    largest = p.max(0) if binary else p.max(0) / p.max(0).sum(0)
    for merge, wanted in (("mean", p.mean(0)), ("gmean", geometric), ("max", largest)):
        found, disagreement = merged(answers, merge, mode)
        assert np.allclose(back(found), wanted, atol=1e-9), merge
        assert disagreement.shape == (1, 3, 4)
    assert np.allclose(merged(answers, "gmean", mode)[0], answers.mean(0))
    if spread < 50:
        tails = logit(p.mean(0)) if binary else np.log(p.mean(0))
        assert np.allclose(merged(answers, "mean", mode)[0], tails, atol=1e-6)  # logits, not only their softmax


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_disagreement_by_numpy(channels, mode):
    answers = np.random.default_rng(0).normal(0, 2, (3, channels, 4, 5))
    if channels == 1 or mode == "multilabel":
        p = np.stack([expit(answers), expit(-answers)], 1)
        apart = (entropy(p.mean(0)).sum(0) - entropy(p).sum(1).mean(0)) / np.log(2)
        wanted = apart.max(0)
    else:
        p = np.exp(log_softmax(answers, 1))
        wanted = (entropy(p.mean(0), 0) - entropy(p, 1).mean(0))[0] / np.log(min(3, channels))
    assert np.allclose(merged(answers, "mean", mode)[1][0], wanted, atol=1e-9)


def test_disagreement_has_its_ends():
    sure = np.full((2, 4, 1, 2), -100.0)
    sure[:, 0, 0, 0] = 100.0  # both the same class at the first pixel, another at the second
    sure[0, 1, 0, 1] = sure[1, 2, 0, 1] = 100.0
    assert merged(sure, "mean", "multiclass")[1].tolist() == [[[0.0, 1.0]]]


class Deep(Slope):
    def forward(self, x):
        return MaskDepth(super().forward(x), x[:, :1] * torch.linspace(0, 1, x.shape[-1], dtype=x.dtype))


@pytest.mark.parametrize("merge", ["mean", "gmean", "max"])
@pytest.mark.parametrize("scales", [(1.0,), (1.0, 2.0)])
def test_depth_is_averaged_and_its_deviation_reported(merge, scales):
    net, image = Deep(), torch.ones(1, 6, 9, dtype=torch.float64)
    answer, apart = predict_with_uncertainty(net, image, tta=TTA(flips=True, scales=scales, merge=merge))
    ramp = np.linspace(0, 1, 9)
    if scales == (1.0,):
        assert np.allclose(answer.depth[0], np.mean([ramp, ramp[::-1]], 0))
        assert np.allclose(apart.depth, np.std([ramp, ramp[::-1]], 0), atol=1e-7)
    assert apart.mask.shape == apart.depth.shape == (6, 9)
    assert apart.mask[:, 4].max() < 1e-6 < apart.mask[:, 0].min()  # both mirrors meet in the middle


def test_uncertainty_by_tiles_and_of_agreeing_views():
    net, image = small(), draw(2, 100, 70)
    whole, tiled = (predict_with_uncertainty(net, image, tta="d4", tile=t) for t in (None, 64))
    assert torch.allclose(whole.disagreement, tiled.disagreement, atol=1e-5)
    assert torch.allclose(whole.output, predict(net, image, tta="d4"))
    assert predict_with_uncertainty(Echo(), draw(3, 8, 9), tta="d4").disagreement.max() < 1e-6
    for single in (None, TTA(), TTA(scales=(0.5,))):
        with pytest.raises(ConfigError, match="disagrees with nothing"):
            predict_with_uncertainty(net, image, tta=single)


def test_raw_outputs_are_merged_without_activation():
    image = draw(1, 4, 7)
    mirrored = image.flip(2)
    net = Slope()
    both = [net(image[None])[0], net(mirrored[None])[0].flip(2)]
    mean = predict(net, image, tta=TTA(flips=True, merge="mean", mode="raw"))
    most = predict(net, image, tta=TTA(flips=True, merge="max", mode="raw"))
    assert torch.allclose(mean, (both[0] + both[1]) / 2, atol=1e-6) and torch.allclose(most, torch.maximum(*both))


SIDES = ("face", "left", "right")


class Eyes(nn.Module):
    """Bright pixels are "left" in the left half of the image, "right" in the other."""

    geometry = Geometry(minimum=1, stride=1)

    def forward(self, x):
        half = x.shape[-1] // 2
        mask = torch.zeros(len(x), 3, *x.shape[2:], dtype=x.dtype)
        mask[:, 0] = 1 - x[:, 0]
        mask[:, 1, :, :half] = x[:, 0, :, :half]
        mask[:, 2, :, half:] = x[:, 0, :, half:]
        return mask


@pytest.mark.parametrize("tta", [TTA(flips=True), TTA(rotations=2), TTA(flips=True, rotations=2)], ids=str)
def test_the_viewers_left_and_right_change_places(tta):
    labels = LabelSpec(SIDES, swap_pairs=((1, 2),), side="viewer")
    image = torch.zeros(1, 5, 8)
    image[0, 2, [1, 6]] = 1
    upright = Eyes()(image[None])[0]
    assert torch.allclose(predict(Eyes(), image, tta=tta, labels=labels), upright, atol=1e-6)
    assert not torch.allclose(predict(Eyes(), image, tta=tta), upright, atol=1e-6)


@pytest.mark.parametrize("tta", [TTA(flips=True), TTA(flips=True, rotations=4)], ids=str)
def test_the_subjects_change_places_in_mirrors_only(tta):
    labels = LabelSpec(SIDES, swap_pairs=((1, 2),), side="subject")
    net, image = Slope(3), draw(1, 6, 10)
    parts = []
    for view in tta.views():
        answer = net(torch.from_numpy(by_numpy(view, image.numpy()).copy())[None])[0].numpy()
        parts.append(back_by_numpy(view, answer[[0, 2, 1]] if view.mirror else answer))
    assert np.allclose(predict(net, image, tta=tta, labels=labels), np.mean(parts, 0), atol=1e-6)


@pytest.mark.parametrize("rotations", [3, 4, 7])
def test_turned_images_leave_the_viewer_no_sides(rotations):
    labels = LabelSpec(SIDES, swap_pairs=((1, 2),), side="viewer")
    with pytest.raises(ConfigError, match=f"rotations={rotations}.*rotations=1 or 2"):
        predict(Echo(), draw(3, 8, 8), tta=TTA(rotations=rotations), labels=labels)
    other = LabelSpec(SIDES, swap_pairs=((1, 2),), side="subject")
    assert predict(Echo(), draw(3, 8, 8), tta=TTA(rotations=rotations), labels=other).shape == (3, 8, 8)
    with pytest.raises(ConfigError, match="labels and network differ"):
        predict(Echo(), draw(2, 8, 8), tta=TTA(rotations=rotations), labels=other)


def test_half_precision_and_the_networks_mode():
    net = small().to(torch.bfloat16).train()
    answer = predict(net, draw(2, 40, 30), tta=EVERYTHING)
    assert answer.dtype == torch.bfloat16 and answer.shape == (3, 40, 30) and net.training
    assert answer.isfinite().all() and not answer.is_inference()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"flips": 1}, "flips"),
        ({"rotations": 0}, "rotations"),
        ({"rotations": True}, "rotations"),
        ({"rotations": 2.5}, "rotations"),
        ({"scales": ()}, "scales"),
        ({"scales": 2}, "scales"),
        ({"scales": (0,)}, "scales"),
        ({"scales": (1, 1.0)}, "scales"),
        ({"scales": (float("nan"),)}, "scales"),
        ({"scales": "1"}, "scales"),
        ({"merge": "means"}, "did you mean 'mean'"),
        ({"mode": "binary"}, "mode"),
        ({"mode": "raw"}, "geometric"),
    ],
    ids=str,
)
def test_invalid_augmentations_are_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        TTA(**options)


def test_words():
    assert as_tta(None) is None and as_tta("flips") == TTA(flips=True)
    assert as_tta("paper").views() == TTA(rotations=7).views()
    with pytest.raises(ConfigError, match="did you mean 'flips'"):
        as_tta("flip")
    with pytest.raises(ConfigError, match="TTA"):
        as_tta(4)
