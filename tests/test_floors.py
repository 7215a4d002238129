"""Costs of networks by their structure, compared with sums by hand, layer by layer."""

import json

import pytest
import torch
from conftest import tiny

from benchmarks import counts, floors
from benchmarks.ceilings import Ceilings, measured
from benchmarks.floors import floor, limit, of_bytes
from benchmarks.structure import Case, Op, count


def conv(pixels, inputs, outputs, kernel=3):
    """FLOPs of a convolution, two for a product and its sum."""
    return 2 * pixels * inputs * outputs * kernel**2


def unet_by_hand(size):
    """Figure 1 of the U-Net paper, 1 channel, 2 classes; also only the first layer."""
    widths, total, inputs = (64, 128, 256, 512, 1024), 0, 1
    first = conv((size - 2) ** 2, 1, 64)
    for level, width in enumerate(widths):
        total += conv((size - 2) ** 2, inputs, width) + conv((size - 4) ** 2, width, width)
        size, inputs = (size - 4) // 2 if level < 4 else size - 4, width
    for width in widths[-2::-1]:
        total += conv(size**2, 2 * width, width, 2)  # each pixel gives 2×2
        size *= 2
        total += conv((size - 2) ** 2, 2 * width, width) + conv((size - 4) ** 2, width, width)
        size -= 4
    return total + conv(size**2, 64, 2, 1), first


def bnunet_by_hand(pixels, classes=1):
    total, inputs = 0, 3
    for level, width in enumerate((64, 128, 256, 512, 1024)):
        total += conv(pixels / 4**level, inputs, width) + conv(pixels / 4**level, width, width)
        inputs = width
    for level, width in enumerate((64, 128, 256, 512)):
        total += conv(pixels / 4 ** (level + 1), 2 * width, width, 2)
        total += conv(pixels / 4**level, 2 * width, width) + conv(pixels / 4**level, width, width)
    return total + conv(pixels, 64, classes, 1), conv(pixels, 3, 64)


def r2unet_by_hand(pixels, classes=1):
    total, inputs = 0, 3
    first = conv(pixels, 3, 64, 1)
    for level, width in enumerate((64, 128, 256, 512, 1024)):
        total += conv(pixels / 4**level, inputs, width, 1) + 6 * conv(pixels / 4**level, width, width)
        inputs = width
    for level, width in enumerate((64, 128, 256, 512)):
        total += conv(pixels / 4**level, 2 * width, width)  # after nearest ×2
        total += conv(pixels / 4**level, 2 * width, width, 1) + 6 * conv(pixels / 4**level, width, width)
    return total + conv(pixels, 64, classes, 1), first


@pytest.mark.parametrize(
    ("case", "by_hand", "published"),
    [
        (Case("unet", (572, 572), 1, {"in_channels": 1, "classes": 2}), unet_by_hand(572), (301, 902)),
        (Case("bnunet", (256, 256), 8), [8 * f for f in bnunet_by_hand(256**2)], (771, 2310)),
        (Case("bnunet", (320, 480), 16), [16 * f for f in bnunet_by_hand(320 * 480)], (3613, 10829)),
        (Case("r2unet", (256, 256), 8), [8 * f for f in r2unet_by_hand(256**2)], (2440, 7319)),
    ],
    ids=lambda value: value.name if isinstance(value, Case) else "",
)
def test_flops_by_hand(case, by_hand, published):
    total, first = by_hand
    forward, step = case.count().gflop
    assert forward == pytest.approx(total / 1e9, rel=1e-9)
    assert step == pytest.approx((3 * total - first) / 1e9, rel=1e-9)  # the image needs no gradient
    assert (round(forward), round(step)) == published


def test_kept_activations_by_hand():
    """BN-UNet: the maps of the convolution and the ReLU of each unit; concatenated and pooled maps, pooling indices."""
    pixels, kept = 64 * 64, 0
    for level, width in enumerate((64, 128, 256, 512, 1024)):
        area = pixels // 4**level
        kept += 4 * (4 * width * area) + 2 * 2 * 4 * width  # two units; mean and deviation of each norm
        if level:
            kept += (4 + 8) * (width // 2) * area  # the pooled map, with int64 indices
        if level < 4:
            kept += 4 * (4 * width * area) + 2 * 2 * 4 * width + 4 * 2 * width * area
    kept += 4 * pixels  # the logits
    found = Case("bnunet", (64, 64)).count().kept
    assert found == kept


def test_floor_is_the_longer_of_work_and_bytes():
    ceilings = Ceilings(tflops=1.0, gigabytes=1.0)
    busy, wide = Op("convolution", int(4e9), 10, 10), Op("add", 0, int(2e6), int(1e6))
    norm, free = Op("native_batch_norm", 0, int(1e6), int(1e6)), Op("relu_", 0, int(9e9), int(9e9))
    least = floors.floor((busy, wide, norm, free), ceilings)
    assert least.work == pytest.approx(4e-3)
    assert least.kernels == pytest.approx(4e-3 + 3e-3 + 3e-3)  # the statistics need a separate pass
    assert least.compute_bound == pytest.approx(0.4)


def test_floors_of_an_h200():
    """The design: 4.29 ms per step and 1.44 ms forward for BN-UNet 256², batch 8, within a tenth."""
    counted = Case("bnunet", (256, 256), 8, dtype=torch.bfloat16).count()
    assert 1e3 * floors.floor(counted.forward + counted.backward, floors.H200).kernels == pytest.approx(4.29, rel=0.1)


def test_any_network_and_the_command(capsys, monkeypatch):
    import segmentation_models_pytorch as smp

    net = smp.Unet("resnet18", encoder_weights=None)
    net.in_channels = 3
    assert count(net, (64, 64)).gflop[0] > 0
    monkeypatch.setattr("sys.argv", ["floors", "ddunet", "--size", "64", "48", "--save-memory", "--dtype", "float32"])
    floors.main()
    assert "10,804,097" in capsys.readouterr().out
    assert measured(repeats=1).tflops > 0


def test_nothing_grows_over_epochs():
    """FLOPs, operations, kept and peak bytes. If a change is intended: `python -m benchmarks.counts --update`."""
    assert counts.worse(counts.counted(), json.loads(counts.KEPT.read_text())) == []


def test_growth_is_reported():
    row = {"kept_bytes": 1000, "kernels": {}}
    assert counts.worse({"a": {"kept_bytes": 1100, "kernels": {}}}, {"a": row}) == ["a: kept_bytes 1,000 → 1,100"]
    assert counts.worse({"a": {"kept_bytes": 900, "kernels": {}}}, {"a": row}) == []
    assert counts.worse({"b": row}, {"a": row}) == ["a: no longer counted", "b: not kept yet"]


def test_saving_memory_runs_no_convolution_again():
    plain = count(tiny("bnunet"), (64, 64)).kernels()["backward"]
    again = count(tiny("bnunet"), (64, 64), save=True).kernels()["backward"]
    assert again.pop("native_batch_norm") > 0 and "convolution" not in again
    assert plain["convolution_backward"] == again["convolution_backward"]


@pytest.mark.parametrize("name", ["bnunet", "r2unet"])
def test_limits_exclude_layers_that_inference_folds(name, monkeypatch):
    ceilings = Ceilings(tflops=1.0, gigabytes=1000.0)
    monkeypatch.setattr(floors, "measured", lambda dtype=torch.float32: ceilings)
    case = Case(name, (32, 32), 1, {"encoder_channels": (4, 8, 8)})
    counted, inference, training = case.count(), limit(case, train=False), limit(case, train=True)
    assert training.seconds == floor(counted.forward + counted.backward, ceilings).kernels
    assert floor(counted.forward, ceilings).work < inference.seconds < floor(counted.forward, ceilings).kernels
    assert training.what == "direct convolutions as separate kernels in float32; 1 TFLOP/s, 1000 GB/s"
    assert of_bytes(5e9).seconds == 0.005
