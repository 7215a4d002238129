"""Pixels into bins against NumPy, on the CPU's path and on the one that never reads a value back."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from unetzoo import METRICS, LabelSpec
from unetzoo.metrics import counting, inputs
from unetzoo.metrics.counting import PixelBins

STRANGE = (-(2**40), -1000, -129, -128, -1, 200, 255, 256, 300, 2**40)


def numpy_counts(truth, predicted, classes, ignored, nans=None):
    """Matrix, ignored, strange by value in truth and prediction, NaN: pixel by pixel."""
    matrix, skipped, nan, odd = np.zeros((classes, classes), int), 0, 0, ({}, {})
    top = max(255, classes - 1)

    def name(value):
        return "below -128" if value < -128 else f"above {top}" if value > top else str(value)

    for place, (t, p) in enumerate(zip(truth.flatten().tolist(), predicted.flatten().tolist(), strict=True)):
        if t == ignored:
            skipped += 1
        elif not 0 <= t < classes:
            odd[0][name(t)] = odd[0].get(name(t), 0) + 1
        elif nans is not None and nans.flatten()[place]:
            nan += 1
        elif not 0 <= p < classes:
            odd[1][name(p)] = odd[1].get(name(p), 0) + 1
        else:
            matrix[t, p] += 1
    return matrix.tolist(), skipped, odd, nan


def told(bins, counts):
    row = counts.tolist()
    *odd, nan = bins.outside(row)
    return bins.matrix(counts).tolist(), row[bins.cells], tuple(odd), nan


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    classes=st.sampled_from((2, 3, 19, 90, 300)),
    ignored=st.sampled_from((None, 0, 255, -1, -100, 299, -1000, 65535, 2**40)),
    strange=st.sampled_from(("", "truth", "prediction", "both")),
    block=st.sampled_from((7, 2**18)),
)
def test_every_pixel_has_one_bin(seed, classes, ignored, strange, block):
    rng = np.random.default_rng(seed)
    truth, predicted = (torch.from_numpy(rng.integers(0, classes, (2, 5, 6))) for _ in range(2))
    truth[torch.from_numpy(rng.random(truth.shape) < 0.2)] = 0 if ignored is None else ignored
    for which, labels in (("truth", truth), ("prediction", predicted)):
        if strange in (which, "both"):
            labels.view(-1)[: len(STRANGE)] = torch.tensor(STRANGE)[torch.from_numpy(rng.permutation(len(STRANGE)))]
    bins = PixelBins(classes, ignored)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "BLOCK", block)
        seen = bins.count(truth, predicted)
    assert seen.dtype == torch.int64 and seen.shape == (2, bins.total)
    assert torch.equal(seen, bins.count_without_sync(truth, predicted))
    for image in range(2):
        assert told(bins, seen[image]) == numpy_counts(truth[image], predicted[image], classes, ignored)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16, torch.uint32])
def test_every_integer_type_of_labels(dtype):
    rng = np.random.default_rng(0)
    truth, predicted = (torch.from_numpy(rng.integers(0, 5, (1, 6, 7))) for _ in range(2))
    truth[0, 0, :3] = 100
    bins = PixelBins(5, 100)
    expected = bins.count_without_sync(truth, predicted)
    for count in (bins.count, bins.count_without_sync):
        assert torch.equal(count(truth.to(dtype), predicted.to(dtype)), expected)
    far = PixelBins(5, 65535)
    assert torch.equal(far.count(truth.to(dtype), predicted.to(dtype)), far.count_without_sync(truth, predicted))
    truth[0, 1, 1] = 77
    assert told(bins, bins.count(truth.to(dtype), predicted.to(dtype))[0])[2] == ({"77": 1}, {})


def test_bool_masks_and_empty_batches():
    truth, predicted = (torch.rand(1, 5, 6, generator=torch.Generator().manual_seed(s)) > 0.5 for s in (0, 1))
    assert torch.equal(PixelBins(2).count(truth, predicted), PixelBins(2).count(truth.long(), predicted.long()))
    for shape in ((0, 4, 4), (2, 0, 4)):
        nothing = torch.zeros(shape, dtype=torch.int64)
        for count in (PixelBins(3).count, PixelBins(3).count_without_sync):
            assert count(nothing, nothing).shape == (shape[0], PixelBins(3).total) and not count(nothing, nothing).any()


def test_nan_of_logits_is_no_label():
    truth, nans = torch.randint(0, 3, (1, 6, 7)), torch.rand(1, 6, 7) < 0.3
    truth[0, 0], predicted = 255, torch.randint(0, 3, (1, 6, 7))
    bins = PixelBins(3, 255)
    for count in (bins.count, bins.count_without_sync):
        counts = count(truth, predicted.masked_fill(nans, 3), logits=True)[0]
        assert told(bins, counts) == numpy_counts(truth, predicted, 3, 255, nans.numpy())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (1, 2, 9, 9), (2, 19, 30, 20), (2, 300, 3, 3), (0, 3, 4, 4)])
def test_argmax_takes_the_first_of_the_largest(shape, dtype, memory_format, monkeypatch):
    monkeypatch.setattr(inputs, "NUMBERS", 250)
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul(3).round().to(dtype)  # many ties
    labels = inputs.argmax(logits.contiguous(memory_format=memory_format))
    assert labels.dtype == (torch.int32 if shape[1] > 255 else torch.uint8)
    if memory_format == torch.contiguous_format:
        assert np.array_equal(labels.numpy(), logits.double().numpy().argmax(1))
    best = logits.gather(1, labels.long()[:, None])[:, 0]
    assert torch.equal(best, logits.amax(1) if shape[0] else best)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_argmax_marks_nan_and_takes_infinities(memory_format):
    logits = torch.zeros(1, 3, 2, 2).contiguous(memory_format=memory_format)
    logits[0, :, 0, 0] = torch.tensor([5.0, math.nan, 9.0])
    logits[0, :, 0, 1] = torch.tensor([math.nan, 7.0, 7.0])
    logits[0, :, 1, 0] = torch.tensor([5.0, math.inf, -math.inf])
    logits[0, :, 1, 1] = torch.tensor([-math.inf, -math.inf, -5.0])
    assert inputs.argmax(logits).tolist() == [[[3, 3], [1, 2]]]


def test_argmax_of_a_cut_out():
    logits = torch.randn(2, 4, 12, 13)[:, :, 2:-2, 3:-3]
    assert torch.equal(inputs.argmax(logits).long(), logits.argmax(1))


class Blindfold(TorchDispatchMode):
    """Fails if the host reads a value or waits for a size."""

    REFUSED = (
        "_local_scalar_dense", "item", "nonzero", "masked_select", "unique", "_unique", "_unique2", "unique_dim",
        "unique_consecutive", "bincount", "equal", "is_nonzero", "histc",
    )  # fmt: skip

    def __init__(self, allowed=()):
        super().__init__()
        self.allowed, self.calls = allowed, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        self.calls += 1
        assert name not in self.REFUSED or name in self.allowed, f"{name} reads a value"
        if name in ("index", "index_put", "index_put_"):
            assert all(index is None or index.dtype != torch.bool for index in args[1]), "a mask as an index"
        return function(*args, **(kwargs or {}))


def test_the_synchronization_guard_catches_reads():
    for look in (lambda x: x.sum().item(), lambda x: bool(x.any()), lambda x: x[x > 0], torch.unique, torch.bincount):
        with pytest.raises(AssertionError), Blindfold():
            look(torch.ones(3, dtype=torch.int64))


@pytest.mark.parametrize("logits", [False, True])
def test_counting_on_a_device_reads_nothing(logits):
    truth, predicted = torch.randint(0, 4, (2, 5, 6)), torch.randint(0, 4, (2, 5, 6))
    bins = PixelBins(4, 255)
    with Blindfold() as watch:
        counts = bins.count_without_sync(truth, predicted, logits=logits)
    assert watch.calls > 5 and counts.sum() == truth.numel()


LABELS = LabelSpec(("a", "b", "c"), groups={"ac": (0, 2)}, ignore_index=255)
PLANES, MAPS = (2, 1, 16, 12), (2, 16, 12)
UPDATES = {
    "logits": ("segmentation", {"labels": LABELS}, torch.rand(2, 3, 16, 12), torch.randint(0, 3, MAPS)),
    "label maps": ("segmentation", {"labels": LABELS}, torch.randint(0, 3, MAPS), torch.randint(0, 3, MAPS)),
    "binary": ("segmentation", {"num_classes": 1, "threshold": 0.3}, torch.rand(PLANES), torch.randint(0, 2, MAPS)),
    "all scores": (
        "segmentation", {"labels": LABELS, "per_image": True, "one_vs_rest": 0.5},
        torch.rand(2, 3, 16, 12), torch.randint(0, 3, MAPS),
    ),
    "multilabel": (
        "segmentation", {"labels": LABELS, "mode": "multilabel", "threshold": (0.5, 0.2, 0.7), "per_image": True},
        torch.rand(2, 3, 16, 12), torch.randint(0, 2, (2, 3, 16, 12)),
    ),
    "sweep": ("sweep", {"num_classes": 1, "ignore_index": 255}, torch.rand(PLANES), torch.randint(0, 2, MAPS)),
    "depth": ("depth", {}, torch.rand(PLANES), torch.rand(PLANES), torch.rand(PLANES) > 0.5),
    "ssim": ("ssim", {}, torch.rand(PLANES), torch.rand(PLANES), torch.rand(PLANES) > 0.5),
    "psnr": ("psnr", {}, torch.rand(PLANES), torch.rand(PLANES), torch.rand(PLANES) > 0.5),
}  # fmt: skip


@pytest.mark.parametrize("case", UPDATES)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_updates_never_wait(case, device):
    """Twice, so that the state is met too; tensors on "meta" have no values that could be read at all."""
    name, options, *batch = UPDATES[case]
    metric, batch = METRICS.build(name, **options), [tensor.to(device) for tensor in batch]
    watch = Blindfold(allowed=("bincount",)) if device == "cpu" else contextlib.nullcontext()
    with watch:
        metric.update(*batch[:2], **({"weight": batch[2]} if len(batch) > 2 else {}))
        metric.update(*batch[:2], **({"weight": batch[2]} if len(batch) > 2 else {}))
    for key, tensor in metric.state().items():
        assert tensor.device.type == device
        assert tensor.shape == metric._zeros[key].shape and tensor.dtype == metric._zeros[key].dtype
