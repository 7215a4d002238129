"""The CUDA kernel in Triton's interpreter; run by test_kernels.py in a separate process."""

import contextlib
import itertools

import torch

from unetzoo.metrics import SegmentationMetric, counting
from unetzoo.metrics.counting import LEAST, PixelBins
from unetzoo.metrics.inputs import argmax


def count(kernels, logits, truth, bins):
    return kernels.count(logits, truth, bins.ignored, least=LEAST, values=len(bins.values))


def check(
    kernels, classes, shape, ignored, dtype, label_dtype, strange=(), nan=False, memory_format=torch.contiguous_format
):
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(shape[0], classes, *shape[1:], generator=generator).to(dtype)
    logits = logits.contiguous(memory_format=memory_format)
    truth = torch.randint(0, classes, shape, generator=generator)
    if ignored is not None:
        truth[torch.rand(shape, generator=generator) < 0.2] = ignored
    for place, value in enumerate(strange):
        truth.view(-1)[5 * place] = value
    if nan:
        logits[:, 1, ::2, ::3] = float("nan")
    truth, bins = truth.to(label_dtype), PixelBins(classes, ignored)
    for part in (slice(None), slice(1, -2)):  # whole, and a cut-out whose rows lie apart
        some, true = logits[..., part], truth[..., part]
        counts = count(kernels, some, true, bins)
        expected = bins.count_without_sync(true[None], argmax(some)[None], logits=True)
        assert torch.equal(counts, expected), (classes, shape, ignored, dtype)
        assert counts.sum() == true.numel()


class Devices:
    """Notes on which device's account kernels are launched."""

    def __init__(self):
        self.of = []

    def __call__(self, tensor):
        self.of.append(tensor)
        return contextlib.nullcontext()


def check_one_column(kernels):
    """An image one pixel wide, whose columns have any stride, and logits that differ only in double precision."""
    logits = torch.randn(2, 3, 1, 9).transpose(2, 3)
    assert logits.stride()[2:] == (1, 9) and logits.is_contiguous()
    fine = torch.tensor([1.0, 1.0 + 1e-12]).double().view(1, 2, 1, 1)
    for values, truth in ((logits, torch.randint(0, 3, (2, 9, 1))), (fine, torch.ones(1, 1, 1).long())):
        bins = PixelBins(values.shape[1])
        expected = bins.count_without_sync(truth[None], argmax(values)[None], logits=True)
        assert torch.equal(count(kernels, values, truth, bins), expected), values.dtype


def main():
    from unetzoo.metrics import kernels  # Triton must be there

    kernels.BLOCK, kernels.PROGRAMS = 64, 3  # several blocks a program, and a last one that is not full
    for classes, ignored in itertools.product((2, 3, 19), (None, 255, -100, 1)):
        check(kernels, classes, (2, 9, 11), ignored, torch.float32, torch.int64)
    check(kernels, 19, (3, 16, 16), 255, torch.bfloat16, torch.uint8, strange=(200, 19, 255))
    check(
        kernels,
        5,
        (2, 7, 13),
        255,
        torch.float32,
        torch.int64,
        strange=(-1, -129, -(2**40), 2**40, 256, 300, 254),
        nan=True,
    )
    check(kernels, 4, (2, 10, 6), None, torch.float16, torch.int32, nan=True, memory_format=torch.channels_last)
    check(kernels, 60, (1, 5, 5), 255, torch.float32, torch.int64)
    check_one_column(kernels)

    torch.cuda.device_of = devices = Devices()  # Triton would launch on the current device
    logits = torch.randn(1, 2, 4, 4)
    count(kernels, logits, torch.zeros(1, 4, 4).long(), PixelBins(2))
    assert devices.of == [logits]

    calls = []
    counting._kernels = lambda device: calls.append(device) or kernels
    logits, truth = torch.randn(2, 4, 8, 9), torch.randint(0, 4, (2, 1, 8, 9))
    metric, by_labels = SegmentationMetric(num_classes=4), SegmentationMetric(num_classes=4)
    metric.update(logits, truth)
    assert len(calls) == 1
    by_labels.update(logits.argmax(1), truth)
    assert len(calls) == 1 and torch.equal(metric.confusion, by_labels.confusion)
    for options in ({"per_image": True}, {"one_vs_rest": 0.5}):  # need more than the kernel counts
        SegmentationMetric(num_classes=4, **options).update(logits, truth)
    SegmentationMetric(num_classes=61).update(torch.randn(1, 61, 2, 2), torch.zeros(1, 2, 2).long())
    assert len(calls) == 2
    print("equal")


if __name__ == "__main__":
    main()
