"""Triton kernels of `fused.py` for CUDA: two for a softmax and two for sigmoids, one pass over the logits each.

Each program sums tiles of (classes, pixels) in registers and writes the result to a separate row of a buffer, and
torch sums the rows. There are no atomic adds, and the number of programs does not depend on the device.
"""

# The kernel language differs from Python.
# pyright: reportCallIssue=false, reportArgumentType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_CLASSES = 512  # a tile has all classes of its pixels
TILE = 1024
STAGES = tl.constexpr(4)  # number of tiles loaded ahead (software pipelining)
PROGRAMS = 2048  # for the whole batch: several per multiprocessor of the largest devices
PARTS = tl.constexpr(6)  # rows of the sums


def serves(logits: Tensor) -> bool:
    """Whether the kernels support these logits: offsets inside an image are 32-bit."""
    _, classes, height, width = logits.shape
    reach = sum((size - 1) * stride for size, stride in zip(logits.shape[1:], logits.stride()[1:], strict=True))
    fits = max(reach, classes * height * width) < 2**31 - PROGRAMS * TILE
    return fits and classes <= MOST_CLASSES and len(logits) * classes < 2**16  # planes are a grid's second axis


def class_sums(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    ignore_index: int | None,
    softmax: bool,
    entropy: bool,
    rest: bool,
) -> tuple[Tensor, Tensor]:
    """Compute the sums (N, 6, C) in double precision and the number of wrong labels; see `fused.ClassSums`."""
    batch, classes = logits.shape[:2]
    arguments, options, pixels = _arguments(logits, labels, weight, ignore_index)
    planes, width, tile, warps = _shape(batch, classes, softmax)
    programs = max(1, min(triton.cdiv(pixels, tile), triton.cdiv(PROGRAMS, max(1, planes))))
    rows = logits.new_empty(planes, programs, PARTS.value, width, dtype=_precision(logits))
    faults = labels.new_empty(planes, programs, dtype=torch.int32)
    if planes:
        kernel = _softmax_sums if softmax else _sigmoid_sums
        with torch.cuda.device_of(logits):
            kernel[(programs, planes)](
                *arguments, rows, faults, classes, pixels,
                CLASSES=width, TILE=tile, ENTROPY=entropy, REST=rest, num_warps=warps, **options,
            )  # fmt: skip
    sums = rows.sum(1, dtype=torch.float64)
    sums = sums[:, :, :classes] if softmax else sums.view(batch, classes, PARTS.value).transpose(1, 2)
    return sums.contiguous(), faults.sum()


def gradient(
    slopes: Tensor, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int | None, softmax: bool
) -> Tensor:
    """Compute the gradient of the logits from the gradient (N, 6, C) of their sums."""
    batch, classes = logits.shape[:2]
    arguments, options, pixels = _arguments(logits, labels, weight, ignore_index)
    planes, width, tile, warps = _shape(batch, classes, softmax)
    flat = logits.flatten(2)
    out = torch.empty_like(flat)
    if out.numel():
        kernel = _softmax_gradient if softmax else _sigmoid_gradient
        slopes = slopes.to(_precision(logits)).contiguous()
        with torch.cuda.device_of(logits):
            kernel[(triton.cdiv(pixels, tile), planes)](
                *arguments, out, *out.stride(), slopes, classes, pixels,
                CLASSES=width, TILE=tile, num_warps=warps, **options,
            )  # fmt: skip
    return out.view(logits.shape)


def _arguments(logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int | None):
    flat, labels = logits.flatten(2), _known(labels).flatten(2)
    weights = labels if weight is None else _known(weight).flatten(2)  # not read if there is none
    arguments = (flat, *flat.stride(), labels, *labels.stride(), weights, weights.stride(0), weights.stride(2))
    options = {
        "PRECISION": tl.float64 if logits.dtype == torch.float64 else tl.float32,
        "WEIGHTED": weight is not None,
        "IGNORING": ignore_index is not None,
        "ignore_index": ignore_index or 0,
    }
    return arguments, options, flat.shape[2]


def _known(values: Tensor) -> Tensor:
    if values.dtype == torch.bool:
        return values.view(torch.uint8)
    return values.long() if values.dtype in (torch.uint16, torch.uint32, torch.uint64) else values


def _precision(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


def _shape(batch: int, classes: int, softmax: bool) -> tuple[int, int, int, int]:
    """Return the number of planes, the classes and pixels of a tile, and the warps of a program."""
    if not softmax:
        return batch * classes, 1, TILE, 4
    width = triton.next_power_of_2(classes)
    tile = max(16, TILE // width)
    return batch, width, tile, min(16, max(4, width * tile // 256))


@triton.jit
def _read(labels, label_p, weights, weight_p, pixel, inside, classes, ignore_index, PRECISION, WEIGHTED, IGNORING):
    """Read labels of pixels, their weights (0 where ignored, wrong or outside the image), and which are wrong."""
    label = tl.load(labels + pixel * label_p, mask=inside, other=0).to(tl.int64)
    wrong = (label < 0) | (label >= classes)
    ignored = wrong
    if IGNORING:
        ignored = wrong | (label == ignore_index)
        wrong = wrong & (label != ignore_index)
    if WEIGHTED:
        weight = tl.load(weights + pixel * weight_p, mask=inside, other=0).to(PRECISION)
    else:
        weight = tl.full(pixel.shape, 1.0, PRECISION)
    weight = tl.where(ignored | (inside == 0), 0.0, weight)
    return tl.where(ignored, 0, label).to(tl.int32), weight, wrong & inside


@triton.jit
def _log1p(x):
    """ln(1 + x) for x ≥ 0, accurate even where 1 + x rounds to 1."""
    above = 1.0 + x
    return tl.where(above == 1.0, x, tl.log(above) * x / tl.where(above == 1.0, 1.0, above - 1.0))


@triton.jit
def _softmax_sums(
    logits, logit_n, logit_c, logit_p, labels, label_n, label_c, label_p, weights, weight_n, weight_p,
    rows, faults, classes, pixels, ignore_index,
    CLASSES: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr, WEIGHTED: tl.constexpr, IGNORING: tl.constexpr,
    ENTROPY: tl.constexpr, REST: tl.constexpr,
):  # fmt: skip
    program, n = tl.program_id(0), tl.program_id(1).to(tl.int64)
    k = tl.arange(0, CLASSES)
    real = k < classes
    logits += n * logit_n + k[:, None] * logit_c
    intersection = tl.zeros((CLASSES, TILE), PRECISION)
    predicted = tl.zeros((CLASSES, TILE), PRECISION)
    true = tl.zeros((CLASSES, TILE), PRECISION)
    entropy = tl.zeros((CLASSES, TILE), PRECISION)
    rest = tl.zeros((CLASSES, TILE), PRECISION)
    wrongs = tl.zeros((TILE,), tl.int32)
    for start in tl.range(program * TILE, pixels, tl.num_programs(0) * TILE, num_stages=STAGES):
        pixel = start + tl.arange(0, TILE)
        inside = pixel < pixels
        label, weight, wrong = _read(
            labels + n * label_n, label_p, weights + n * weight_n, weight_p, pixel, inside,
            classes, ignore_index, PRECISION, WEIGHTED, IGNORING,
        )  # fmt: skip
        x = tl.load(logits + pixel[None, :] * logit_p, mask=real[:, None] & inside[None, :], other=0).to(PRECISION)
        x = tl.where(weight[None, :] == 0, 0.0, x)
        x = tl.where(real[:, None], x, float("-inf"))
        peak = tl.max(x, 0)
        exponentials = tl.exp(x - peak[None, :])
        total = tl.sum(exponentials, 0)
        own = k[:, None] == label[None, :]
        at_label = tl.sum(tl.where(own, x, 0.0), 0) - peak
        share = weight / total
        predicted += exponentials * share[None, :]
        intersection += tl.where(own, (tl.exp(at_label) * share)[None, :], 0.0)
        true += tl.where(own, weight[None, :], 0.0)
        if ENTROPY:
            log_total = tl.log(total)
            entropy += tl.where(own, ((log_total - at_label) * weight)[None, :], 0.0)
            if REST:
                surprise = log_total[None, :] - (x - peak[None, :])
                rest += tl.where(real[:, None], surprise, 0.0) * weight[None, :]
        wrongs += wrong.to(tl.int32)
    true_of_class = tl.sum(true, 1)
    counted = tl.zeros((CLASSES,), PRECISION) + tl.sum(true_of_class, 0)  # a counted pixel has one label
    row = n * tl.num_programs(0) + program
    rows += row * PARTS * CLASSES + k
    tl.store(rows, tl.sum(intersection, 1))
    tl.store(rows + CLASSES, tl.sum(predicted, 1))
    tl.store(rows + 2 * CLASSES, true_of_class)
    tl.store(rows + 3 * CLASSES, counted)
    tl.store(rows + 4 * CLASSES, tl.sum(entropy, 1))
    tl.store(rows + 5 * CLASSES, tl.sum(rest, 1))
    tl.store(faults + row, tl.sum(wrongs, 0))


@triton.jit
def _softmax_gradient(
    logits, logit_n, logit_c, logit_p, labels, label_n, label_c, label_p, weights, weight_n, weight_p,
    out, out_n, out_c, out_p, slopes, classes, pixels, ignore_index,
    CLASSES: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr, WEIGHTED: tl.constexpr, IGNORING: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(1).to(tl.int64)
    k = tl.arange(0, CLASSES)
    real = k < classes
    slopes += n * PARTS * classes
    predicted = tl.load(slopes + classes + k, mask=real, other=0.0)
    rest = tl.load(slopes + 5 * classes + k, mask=real, other=0.0)
    pixel = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = pixel < pixels
    label, weight, _ = _read(
        labels + n * label_n, label_p, weights + n * weight_n, weight_p, pixel, inside,
        classes, ignore_index, PRECISION, WEIGHTED, IGNORING,
    )  # fmt: skip
    here = real[:, None] & inside[None, :]
    x = tl.load(logits + n * logit_n + k[:, None] * logit_c + pixel[None, :] * logit_p, mask=here, other=0).to(
        PRECISION
    )
    x = tl.where(weight[None, :] == 0, 0.0, x)
    x = tl.where(real[:, None], x, float("-inf"))
    exponentials = tl.exp(x - tl.max(x, 0)[None, :])
    share = 1.0 / tl.sum(exponentials, 0)
    own = k[:, None] == label[None, :]
    of_label = tl.sum(tl.where(own, exponentials, 0.0), 0) * share
    at_label = of_label * tl.load(slopes + label) - tl.load(slopes + 4 * classes + label)
    common = tl.sum(rest, 0) - tl.sum(exponentials * predicted[:, None], 0) * share - at_label
    value = exponentials * ((predicted[:, None] + common[None, :]) * (share * weight)[None, :])
    value += tl.where(own, (at_label * weight)[None, :], 0.0) - rest[:, None] * weight[None, :]
    tl.store(out + n * out_n + k[:, None] * out_c + pixel[None, :] * out_p, value.to(out.dtype.element_ty), mask=here)


@triton.jit
def _sigmoid_sums(
    logits, logit_n, logit_c, logit_p, labels, label_n, label_c, label_p, weights, weight_n, weight_p,
    rows, faults, classes, pixels, ignore_index,
    CLASSES: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr, WEIGHTED: tl.constexpr, IGNORING: tl.constexpr,
    ENTROPY: tl.constexpr, REST: tl.constexpr,
):  # fmt: skip
    program, plane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    n, k = plane // classes, plane % classes
    logits += n * logit_n + k * logit_c
    intersection = tl.zeros((TILE,), PRECISION)
    predicted = tl.zeros((TILE,), PRECISION)
    true = tl.zeros((TILE,), PRECISION)
    counted = tl.zeros((TILE,), PRECISION)
    entropy = tl.zeros((TILE,), PRECISION)
    rest = tl.zeros((TILE,), PRECISION)
    wrongs = tl.zeros((TILE,), tl.int32)
    for start in tl.range(program * TILE, pixels, tl.num_programs(0) * TILE, num_stages=STAGES):
        pixel = start + tl.arange(0, TILE)
        inside = pixel < pixels
        label, weight, wrong = _read(
            labels + n * label_n + k * label_c, label_p, weights + n * weight_n, weight_p, pixel, inside,
            2, ignore_index, PRECISION, WEIGHTED, IGNORING,
        )  # fmt: skip
        x = tl.load(logits + pixel * logit_p, mask=inside, other=0).to(PRECISION)
        x = tl.where(weight == 0, 0.0, x)
        small = tl.exp(-tl.abs(x))
        probability = tl.where(x >= 0, 1.0, small) / (1.0 + small)
        positive = tl.where(label == 1, weight, 0.0)
        intersection += probability * positive
        predicted += probability * weight
        true += positive
        counted += weight
        if ENTROPY or REST:
            log_small = _log1p(small)
            entropy += (tl.maximum(-x, 0.0) + log_small) * positive
            rest += (tl.maximum(x, 0.0) + log_small) * (weight - positive)
        wrongs += wrong.to(tl.int32)
    row = plane * tl.num_programs(0) + program
    rows += row * PARTS
    tl.store(rows, tl.sum(intersection, 0))
    tl.store(rows + 1, tl.sum(predicted, 0))
    tl.store(rows + 2, tl.sum(true, 0))
    tl.store(rows + 3, tl.sum(counted, 0))
    tl.store(rows + 4, tl.sum(entropy, 0))
    tl.store(rows + 5, tl.sum(rest, 0))
    tl.store(faults + row, tl.sum(wrongs, 0))


@triton.jit
def _sigmoid_gradient(
    logits, logit_n, logit_c, logit_p, labels, label_n, label_c, label_p, weights, weight_n, weight_p,
    out, out_n, out_c, out_p, slopes, classes, pixels, ignore_index,
    CLASSES: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr, WEIGHTED: tl.constexpr, IGNORING: tl.constexpr,
):  # fmt: skip
    plane = tl.program_id(1).to(tl.int64)
    n, k = plane // classes, plane % classes
    slopes += n * PARTS * classes + k
    intersection, predicted = tl.load(slopes), tl.load(slopes + classes)
    entropy, rest = tl.load(slopes + 4 * classes), tl.load(slopes + 5 * classes)
    pixel = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = pixel < pixels
    label, weight, _ = _read(
        labels + n * label_n + k * label_c, label_p, weights + n * weight_n, weight_p, pixel, inside,
        2, ignore_index, PRECISION, WEIGHTED, IGNORING,
    )  # fmt: skip
    x = tl.load(logits + n * logit_n + k * logit_c + pixel * logit_p, mask=inside, other=0).to(PRECISION)
    x = tl.where(weight == 0, 0.0, x)
    small = tl.exp(-tl.abs(x))
    probability = tl.where(x >= 0, 1.0, small) / (1.0 + small)
    absent = tl.where(x >= 0, small, 1.0) / (1.0 + small)
    positive = label == 1
    region = (predicted + tl.where(positive, intersection, 0.0)) * probability * absent
    value = (region + tl.where(positive, -entropy * absent, rest * probability)) * weight
    tl.store(out + n * out_n + k * out_c + pixel * out_p, value.to(out.dtype.element_ty), mask=inside)
