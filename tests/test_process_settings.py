"""Losses, metrics and predictions do not depend on torch's global settings."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

import unetzoo
from unetzoo.inference import predict_to


@contextmanager
def default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def no_gradients():
    with torch.no_grad():
        yield


# "meta" simulates a GPU: a tensor made there by mistake cannot meet one on the CPU.
SETTINGS = {"float64": default_dtype, "device": lambda: torch.device("meta"), "no gradients": no_gradients}
PAIRS = ["ce", "dice", "dice_ce", "tversky", "focal", "lovasz", "mcc", "boundary", "border_ce"]
MAPS = ["l1", "rmse", "berhu", "silog", "gradient", "ssim", "depth_ssim"]


@pytest.fixture(params=SETTINGS)
def setting(request):
    return SETTINGS[request.param]


def build(registry, name, **keywords):
    known = unetzoo.registry.keywords(registry.get(name))
    return registry.build(name, **{key: value for key, value in keywords.items() if key in known})


def batch(name):
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(2, 16, 16, generator=generator)
    if name in MAPS or name in ("depth", "psnr"):
        return *(torch.rand(2, 1, 16, 16, generator=generator) for _ in range(2)), weight
    return torch.randn(2, 3, 16, 16, generator=generator), torch.randint(0, 3, (2, 16, 16), generator=generator), weight


@pytest.mark.parametrize("name", [*PAIRS, *MAPS])
def test_losses(name, setting):
    output, target, weight = batch(name)

    def values():
        loss = build(unetzoo.LOSSES, name, mode="multiclass")
        return [loss(output, target), loss(output, target, weight=weight)]

    expected = values()
    with setting():
        found = values()
    assert [v.dtype for v in found] == [torch.float32] * 2
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["segmentation", "surface", "depth", "ssim", "psnr"])
def test_metrics(name, setting):
    output, target, weight = batch(name)

    def scores():
        metric = build(unetzoo.METRICS, name, num_classes=3)
        metric.update(output, target)
        metric.update(output, target, weight=weight > 0.5)
        return metric.compute()

    expected = scores()
    with setting():
        assert scores() == pytest.approx(expected, abs=0, nan_ok=True)


@pytest.mark.parametrize("options", [{}, {"tile": 56}, {"tile": 24, "blend": "gaussian"}, {"tta": "d4"}])
def test_predictions(options, setting, tmp_path):
    net = unetzoo.build("bnunet", classes=3, encoder_channels=(2, 4, 8)).eval()
    image = np.random.default_rng(0).integers(0, 256, (70, 64, 3), np.uint8)
    expected = unetzoo.predict(net, image, **options)
    with setting():
        found = unetzoo.predict(net, image, **options)
        optimized = unetzoo.predict(unetzoo.optimize(net), image, **options)
        predict_to(net, image, tmp_path / "classes.npy", preprocess=unetzoo.Preprocess(), **options)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    torch.testing.assert_close(optimized, expected, rtol=0, atol=1e-4)
    assert (np.load(tmp_path / "classes.npy") == expected.argmax(0).numpy()).mean() > 0.99
