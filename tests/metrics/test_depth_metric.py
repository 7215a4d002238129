"""Depth scores against NumPy float64 and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from unetzoo.errors import ConfigError, DataError, InputShapeError, NonFiniteError, SizeMismatchError
from unetzoo.metrics import DepthMetric


def numpy_scores(p: np.ndarray, g: np.ndarray, low: float, high: float) -> dict[str, float]:
    rmse = np.sqrt(((p - g) ** 2).mean())
    p, g = p.clip(low, high), g.clip(low, high)
    e, worse = np.log(p) - np.log(g), np.maximum(p / g, g / p)
    return {
        "rmse": rmse,
        "abs_rel": (np.abs(p - g) / g).mean(),
        "sq_rel": ((p - g) ** 2 / g).mean(),
        "rmse_log": np.sqrt((e**2).mean()),
        "log10": np.abs(np.log10(p) - np.log10(g)).mean(),
        "silog": 100 * np.sqrt(e.var()),
        "delta1": (worse < 1.25).mean(),
        "delta2": (worse < 1.25**2).mean(),
        "delta3": (worse < 1.25**3).mean(),
        "pixels": p.size,
    }


@pytest.mark.parametrize("clamp", [1e-3, (0.1, 1.0), [0.05, 0.7]])
def test_is_the_formula_on_valid_pixels(clamp):
    generator = torch.Generator().manual_seed(0)
    output = torch.rand(3, 1, 9, 10, generator=generator) * 1.2 - 0.1  # some below 0, some above 1
    target = (output + 0.2 * torch.randn(output.shape, generator=generator)).clamp(0, 1)
    valid = torch.rand(output.shape, generator=generator) > 0.3
    target[~valid] = float("nan")
    metric = DepthMetric(clamp)
    for part in (slice(0, 1), slice(1, 3)):  # images of a batch of 1 and one of 2
        metric.update(output[part], target[part], weight=valid[part])
    p, g = output[valid].double().numpy(), target[valid].double().numpy()
    low, high = (clamp, np.inf) if isinstance(clamp, float) else clamp
    assert metric.compute() == pytest.approx(numpy_scores(p, g, low, high), rel=1e-12)


def test_by_hand():
    metric = DepthMetric()
    weight = torch.tensor([[[1, 1, 0]]])
    metric.update(torch.tensor([[[[1.0, 2.0, 8.0]]]]), torch.tensor([[[1.0, 1.0, 4.0]]]), weight=weight)
    ln2 = math.log(2)
    assert metric.compute() == pytest.approx(
        {
            "rmse": math.sqrt(1 / 2),
            "abs_rel": 1 / 2,
            "sq_rel": 1 / 2,
            "rmse_log": ln2 / math.sqrt(2),
            "log10": math.log10(2) / 2,
            "silog": 50 * ln2,
            "delta1": 1 / 2,
            "delta2": 1 / 2,
            "delta3": 1 / 2,
            "pixels": 2.0,
        }
    )


def test_perfect_and_scaled():
    depth = torch.rand(1, 1, 8, 8) + 0.1
    metric = DepthMetric()
    metric.update(depth, depth)
    scores = metric.compute()
    assert [scores[name] for name in ("rmse", "abs_rel", "silog", "delta1")] == [0.0, 0.0, 0.0, 1.0]
    metric.reset()
    metric.update(2 * depth, depth)  # only a wrong scale, which silog ignores
    scores = metric.compute()
    assert scores["silog"] == pytest.approx(0, abs=1e-4) and scores["abs_rel"] == pytest.approx(1)
    assert scores["delta3"] == 0.0


def test_depth_zero_is_clamped():
    metric = DepthMetric(clamp=0.1)
    metric.update(torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.05))
    scores = metric.compute()
    assert scores["abs_rel"] == scores["rmse_log"] == 0.0 and scores["rmse"] == pytest.approx(0.05)


def test_no_valid_pixel():
    metric = DepthMetric()
    metric.update(
        torch.rand(1, 1, 2, 2), torch.full((1, 1, 2, 2), float("nan")), weight=torch.zeros(1, 2, 2, dtype=torch.bool)
    )
    scores = metric.compute()
    assert scores.pop("pixels") == 0 and all(math.isnan(value) for value in scores.values())


def test_nonfinite_values_are_reported_by_compute():
    output, target = torch.rand(1, 1, 2, 2), torch.rand(1, 1, 2, 2)
    for place, error, message in ((output, NonFiniteError, "predicted"), (target, DataError, "true")):
        kept = place[0, 0, 0, 0].item()
        place[0, 0, 0, 0] = float("nan")
        metric = DepthMetric()
        metric.update(output, target)
        with pytest.raises(error, match=message):
            metric.compute()
        place[0, 0, 0, 0] = kept


def test_wrong_arguments():
    for clamp in (0.0, -1.0, (1.0, 0.1), (0.1, 0.5, 1.0), (), float("nan")):
        with pytest.raises(ConfigError, match="clamp"):
            DepthMetric(clamp)
    metric, depth = DepthMetric(), torch.rand(1, 1, 4, 4)
    with pytest.raises(InputShapeError):
        metric.update(torch.rand(1, 2, 4, 4), depth)
    with pytest.raises(SizeMismatchError, match="target"):
        metric.update(depth, depth[..., :2])
    with pytest.raises(SizeMismatchError, match="weight"):
        metric.update(depth, depth, weight=depth[:, 0, :2] > 0)
