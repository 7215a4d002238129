"""Confusion counts straight from logits on CUDA: every logit is read once, and no map of labels is written.

Imported only where a CUDA device asks for it. Each program works through its share of pixel blocks: the most likely
class, then the pixel's bin, then a histogram of the block, added to its own. The histograms are summed at the end;
only labels outside the classes, which end in an error anyway, are added atomically. All sums are of integers, so every
run gives the same.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024  # pixels at once
PROGRAMS = 1024  # most programs; a few for each multiprocessor
MOST_CLASSES = 60  # their histogram has room in the registers of a program


def count(logits: Tensor, truth: Tensor, ignored: int | None, *, least: int, values: int) -> Tensor:
    """The counts of `PixelBins.count` over a whole batch.

    Args:
        logits: Logits.
        truth: True labels.
        ignored: The label of the pixels that do not count.
        least: The smallest label outside the classes that has a bin of its own.
        values: How many bins there are for labels outside the classes.

    Shape:
        - logits: floats (N, C, H, W), in any memory format; C ≤ `MOST_CLASSES`
        - truth: integers (N, H, W)
        - result: int64 (1, bins)
    """
    images, classes, rows, columns = logits.shape
    flat = logits.flatten(2)  # a copy only of a cut-out, whose pixels have no common stride
    cells, blocks = classes**2, images * triton.cdiv(rows * columns, BLOCK)
    programs, bins = max(1, min(PROGRAMS, blocks)), triton.next_power_of_2(cells + 3)
    counts = torch.empty(programs, bins, dtype=torch.int32, device=logits.device)
    odd = torch.zeros(values, dtype=torch.int64, device=logits.device)
    run: Any = _count[(programs,)]  # constants are given as plain numbers
    with torch.cuda.device_of(logits):  # Triton launches on the current device
        run(
            flat, truth.contiguous(), counts, odd, blocks, rows * columns, *flat.stride(), ignored or 0,
            IGNORES=ignored is not None, CLASSES=classes, LEAST=least, ODD=values,
            BINS=bins, SIZE=BLOCK, PRECISION=tl.float64 if logits.dtype == torch.float64 else tl.float32,
        )  # fmt: skip
    total = counts.sum(0, dtype=torch.int64)
    none = torch.zeros_like(odd)  # predictions of logits are never outside the classes
    return torch.cat([total[:cells], total[cells : cells + 1], odd, none, total[cells + 1 : cells + 2]])[None]


@triton.jit
def _count(
    logits, truth, counts, odd, blocks, pixels,
    image_stride, class_stride, pixel_stride, ignored,
    IGNORES: tl.constexpr, CLASSES: tl.constexpr, LEAST: tl.constexpr, ODD: tl.constexpr,
    BINS: tl.constexpr, SIZE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    cells: tl.constexpr = CLASSES * CLASSES
    lane = tl.arange(0, SIZE)
    histogram = tl.zeros([BINS], dtype=tl.int32)
    per_image = tl.cdiv(pixels, SIZE)
    for block in range(tl.program_id(0), blocks, tl.num_programs(0)):
        image = (block // per_image).to(tl.int64)
        pixel = (block % per_image) * SIZE + lane
        inside = pixel < pixels
        place = logits + image * image_stride + pixel.to(tl.int64) * pixel_stride
        best = tl.load(place, mask=inside, other=0.0).to(PRECISION)
        wrong = best != best
        label = tl.zeros([SIZE], dtype=tl.int32)
        for channel in range(1, CLASSES):
            place += class_stride
            value = tl.load(place, mask=inside, other=0.0).to(PRECISION)
            larger = value > best
            best = tl.where(larger, value, best)
            label = tl.where(larger, channel, label)
            wrong = wrong | (value != value)
        true = tl.load(truth + image * pixels + pixel, mask=inside, other=0).to(tl.int64)
        known = (true >= 0) & (true < CLASSES)
        # The later, the stronger: an ignored pixel counts for nothing, whatever was predicted there.
        bins = tl.where(known, true.to(tl.int32) * CLASSES + label, cells + 2)
        bins = tl.where(wrong & known, cells + 1, bins)
        strange = inside & (known == 0)
        if IGNORES:
            bins = tl.where(true == ignored, cells, bins)
            strange = strange & (true != ignored)
        histogram += tl.histogram(tl.where(inside, bins, cells + 2), BINS)
        value_bin = tl.minimum(tl.maximum(true, LEAST - 1), LEAST + ODD - 2) - (LEAST - 1)
        tl.atomic_add(odd + value_bin, 1, mask=strange)
    tl.store(counts + tl.program_id(0) * BINS + tl.arange(0, BINS), histogram)
