"""Which precision a network computes in: chosen by the hardware, recorded in runs, used by predictions."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from test_trainer import Squares
from torch import nn

import unetzoo
from unetzoo import precision
from unetzoo.errors import ConfigError
from unetzoo.inference import Predictor, predict_batch, predict_to
from unetzoo.precision import resolve, supported

needs_bf16 = pytest.mark.skipif(precision.bf16_units() is None, reason="the processor does not multiply bfloat16")
PREPROCESS = unetzoo.Preprocess()


@pytest.fixture
def units(monkeypatch):
    """Pretend that the processor has these units."""
    return lambda name: monkeypatch.setattr(precision, "bf16_units", lambda: name)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return unetzoo.build("bnunet", classes=3, encoder_channels=(8, 16, 16)).eval()


@pytest.mark.parametrize(
    ("has", "width", "pixels", "expected"),
    [
        ("amx", 16, 64**2, "bf16"),
        ("amx", 4, 32**2, "fp32"),  # too little work
        ("avx512", 64, 64**2, "bf16"),
        ("avx512", 16, 256**2, "fp32"),  # too narrow
        (None, 64, 256**2, "fp32"),
    ],
)
def test_auto_is_bf16_where_it_gains(units, has, width, pixels, expected):
    units(has)
    assert resolve("auto", nn.Conv2d(3, width, 3), "cpu", pixels) == expected
    for given in ("fp32", "bf16", "fp16"):
        assert resolve(given, nn.Conv2d(3, width, 3), "cpu", pixels) == given


@pytest.mark.parametrize("isa", ["AVX2", "AVX512_CORE", "avx512_core_vnni", "SSE41"])
def test_oneDNN_limited_to_less_has_no_bf16(isa):
    code = "from unetzoo.precision import bf16_units; print(bf16_units())"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": isa}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "None"


def test_a_recorded_precision_is_used_where_the_device_has_it(units):
    units("amx")
    assert [supported(name, "cpu") for name in ("fp32", "bf16", "fp16")] == ["fp32", "bf16", "fp32"]
    units(None)
    assert supported("bf16", "cpu") == "fp32"


def test_unknown_precisions_are_refused(net):
    image = torch.rand(3, 32, 32)
    for call in (
        lambda: unetzoo.predict(net, image, precision="bf61"),
        lambda: Predictor(net, preprocess=PREPROCESS, precision="half"),
        lambda: unetzoo.Trainer(net, unetzoo.LOSSES.build("ce"), precision="tf32"),
    ):
        with pytest.raises(ConfigError):
            call()


@needs_bf16
def test_predictions_in_bf16_are_float32_and_nearly_the_same(net):
    image = torch.rand(3, 70, 93)
    exact, fast = (unetzoo.predict(net, image, precision=name) for name in ("fp32", "bf16"))
    assert exact.dtype == fast.dtype == torch.float32
    assert not torch.equal(exact, fast)
    torch.testing.assert_close(fast, exact, rtol=0, atol=0.05 * float(exact.abs().max()))
    assert torch.equal(exact, unetzoo.predict(net, image))
    tiled = unetzoo.predict(net, image, tile=64, tta="flips", precision="bf16")
    assert tiled.dtype == torch.float32


def train(out, units, has="amx", **settings):
    units(has)
    torch.manual_seed(0)
    net = unetzoo.build("bnunet", in_channels=1, classes=2, encoder_channels=(16, 16, 16))
    settings = {"epochs": 1, "batch_size": 4, "progress": False} | settings
    metrics = unetzoo.METRICS.build("segmentation", labels=Squares.labels)
    trainer = unetzoo.Trainer(net, unetzoo.LOSSES.build("ce"), metrics=metrics, out=out, **settings)
    return trainer, trainer.fit(Squares(8, 32), Squares(4, 32), resume=out is not None and out.exists())


@needs_bf16
def test_a_run_records_its_precision_and_predictions_use_it(tmp_path, units):
    trainer, _ = train(tmp_path / "run", units)
    assert trainer.precision == "bf16"
    assert {p.dtype for p in trainer.net.parameters()} == {torch.float32}
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["precision"] == "bf16"
    bundle = unetzoo.load(tmp_path / "run")
    image = np.random.default_rng(0).integers(0, 256, (48, 64), np.uint8)
    predictor = Predictor(bundle, preprocess=PREPROCESS)
    assert (bundle.precision, predictor.precision) == ("bf16", "bf16")
    prepared = PREPROCESS(image[..., None])
    expected = unetzoo.predict(bundle.model, prepared, precision="bf16").softmax(0)
    np.testing.assert_allclose(predictor.segment(image).probabilities, expected, atol=1e-6)
    units(None)
    assert Predictor(bundle, preprocess=PREPROCESS).precision == "fp32"


@needs_bf16
def test_a_stream_computes_in_the_precision_of_the_run(tmp_path, units):
    train(tmp_path / "run", units)
    bundle = unetzoo.load(tmp_path / "run")
    image = np.random.default_rng(0).integers(0, 256, (96, 64), np.uint8)
    predict_to(bundle, image, tmp_path / "classes.npy", preprocess=PREPROCESS)
    expected = Predictor(bundle, preprocess=PREPROCESS).segment(image).label_map
    assert (np.load(tmp_path / "classes.npy") == expected).mean() >= 0.995


@needs_bf16
def test_validation_scores_the_output_of_predict(tmp_path, units):
    trainer, _ = train(tmp_path / "run", units)
    batch, output = next(iter(trainer.outputs(Squares(4, 32))))
    with precision.autocast("cpu", "bf16"):
        expected = predict_batch(trainer.network, batch["image"])
    assert torch.equal(output, expected.to(output.dtype))


@needs_bf16
@pytest.mark.parametrize("now_has", [None, "amx"])
def test_a_resumed_run_keeps_its_precision(tmp_path, units, now_has):
    whole, history = train(tmp_path / "whole", units, epochs=2)
    train(tmp_path / "parts", units)
    resumed, again = train(tmp_path / "parts", units, now_has, epochs=2)
    assert resumed.precision == "bf16"
    assert [row["train/loss"] for row in again] == [row["train/loss"] for row in history]
    for a, b in zip(whole.net.parameters(), resumed.net.parameters(), strict=True):
        assert torch.equal(a, b)


def test_without_bf16_units_auto_is_fp32_bit_for_bit(tmp_path, units):
    automatic, _ = train(tmp_path / "auto", units, None)
    exact, _ = train(tmp_path / "fp32", units, "amx", precision="fp32")
    assert automatic.precision == exact.precision == "fp32"
    for a, b in zip(automatic.net.parameters(), exact.net.parameters(), strict=True):
        assert torch.equal(a, b)
