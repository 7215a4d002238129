"""Sums over each class for cross entropy, Dice, Jaccard, Tversky and MCC, without maps of per-pixel values.

`class_sums` reads the logits once and returns a few numbers per class. Its gradient reads them again and writes one
buffer of the logits' size. No other tensor of that size is allocated or kept: between the passes autograd stores the
given logits, labels and weights, and probabilities are recomputed. On CUDA both passes are Triton kernels
(`kernels.py`), on other devices torch operations on blocks of pixels that stay in the cache.

Sums are in double precision if the device supports it. There are no atomic adds, so results are bitwise reproducible.
"""

from __future__ import annotations

import math
import warnings
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._inputs import fit_target, settled
from ._options import Mode
from .blocks import Block, block_dtype, blocks, needs_gradient, sum_dtype, wrong_labels

LOG2_E = math.log2(math.e)


class ClassSums(NamedTuple):
    """Sums over the pixels of each image and class, (N, C), with w the weight (0 where ignored), p the probability.

    Args:
        intersection: `Σ w·p·y`, with y = 1 if the label is this class; 0 unless requested.
        predicted: `Σ w·p`; 0 unless requested.
        true: `Σ w·y`.
        counted: `Σ w`.
        entropy: `Σ w·y·(−ln p)`; 0 unless requested.
        rest: For a softmax `Σ w·(−ln p)`, for a sigmoid `Σ w·(1 − y)·(−ln(1 − p))`; 0 unless requested.
        fault: Whether a label was outside the classes, if not checked before; see `Truth`.
    """

    intersection: Tensor
    predicted: Tensor
    true: Tensor
    counted: Tensor
    entropy: Tensor
    rest: Tensor
    fault: Tensor | None

    def settle(self, loss: Tensor, like: Tensor) -> Tensor:
        """Return the loss in the output's precision (at least fp32); NaN if a label was wrong."""
        return settled(loss, self.fault).to(torch.promote_types(like.dtype, torch.float32))


def class_sums(
    output: Tensor,
    target: Tensor,
    *,
    mode: Mode,
    ignore_index: int | None = None,
    weight: Tensor | None = None,
    overlap: bool = True,
    entropy: bool = False,
    rest: bool = False,
) -> ClassSums:
    """Compute the sums of a batch of logits: softmax for "multiclass", one sigmoid per channel otherwise.

    Args:
        output: Logits (N, C, H, W), in any floating point type.
        target: Integers (N, H, W) or (N, 1, H, W); for multilabel (N, C, H, W).
        mode: How logits become probabilities.
        ignore_index: Label that does not count.
        weight: (N, H, W) or (N, 1, H, W).
        overlap: Whether to compute `ClassSums.intersection` and `predicted`.
        entropy: Whether to compute `ClassSums.entropy`.
        rest: Whether to compute `ClassSums.rest`.

    Raises:
        InputShapeError: Channels that do not fit the mode.
        SizeMismatchError: A target or weight of a different size.
        DataError: A target without integer labels.
        LabelRangeError: Labels outside the classes (CPU; on accelerators and in compiled code see `ClassSums.settle`).
    """
    labels, weight = fit_target(output, target, mode=mode, weight=weight)
    softmax = mode == "multiclass"
    compute = _Sums.apply if needs_gradient(output) else _class_sums
    sums, faults = compute(output, labels, weight, ignore_index, softmax, overlap, entropy, rest)
    fault = wrong_labels(faults, labels, ignore_index, output.shape[1] if softmax else 2)
    return ClassSums(*sums.unbind(1), fault=fault)


# A custom operator, so that `torch.compile` does not trace it.
@torch.library.custom_op("unetzoo::class_sums", mutates_args=())
def _class_sums(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    ignore_index: int | None,
    softmax: bool,
    overlap: bool,
    entropy: bool,
    rest: bool,
) -> tuple[Tensor, Tensor]:
    triton = _triton_for(logits)
    if triton is not None:
        return triton.class_sums(logits, labels, weight, ignore_index, softmax, entropy, rest)
    sums = logits.new_zeros(len(logits), 6, logits.shape[1], dtype=sum_dtype(logits))
    faults = torch.zeros((), dtype=torch.int64, device=logits.device)
    work = _softmax_sums if softmax else _sigmoid_sums
    for block in blocks(logits, labels, weight, ignore_index, one_label=softmax, buffers=1 if softmax else 3):
        work(block, sums[block.n], overlap, entropy, rest)
        faults += block.faults
    return sums, faults


@_class_sums.register_fake
def _(logits, *_):
    sums = logits.new_empty((logits.shape[0], 6, logits.shape[1]), dtype=sum_dtype(logits))
    return sums, logits.new_empty((), dtype=torch.int64)


@torch.library.custom_op("unetzoo::class_sums_gradient", mutates_args=())
def _gradient(
    slopes: Tensor, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int | None, softmax: bool
) -> Tensor:
    triton = _triton_for(logits)
    if triton is not None:
        return triton.gradient(slopes, logits, labels, weight, ignore_index, softmax)
    work = _softmax_gradient if softmax else _sigmoid_gradient
    gradient, slopes = torch.empty_like(logits.flatten(2)), slopes.to(block_dtype(logits))
    for block in blocks(logits, labels, weight, ignore_index, one_label=softmax, buffers=2 if softmax else 3):
        gradient[block.n, :, block.pixels] = work(block, slopes[block.n])
    return gradient.view(logits.shape)


@_gradient.register_fake
def _(slopes, logits, labels, weight, ignore_index, softmax):
    return torch.empty_like(logits.flatten(2)).view(logits.shape)


class _Sums(torch.autograd.Function):  # register_autograd does not support torch.func
    @staticmethod
    def forward(*arguments):
        return _class_sums(*arguments)

    @staticmethod
    def setup_context(ctx, inputs, output):
        logits, labels, weight, ctx.ignore_index, ctx.softmax, *_ = inputs
        ctx.save_for_backward(logits, labels, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, slopes, _):  # pyright: ignore[reportIncompatibleMethodOverride]: due to the decorator
        return _gradient(slopes, *ctx.saved_tensors, ctx.ignore_index, ctx.softmax), *[None] * 7


@cache
def _triton(device: torch.device) -> ModuleType | None:
    """Return the module of kernels if they run on this device."""
    if find_spec("triton") is None:
        return None
    try:
        from . import kernels

        logits, labels = torch.zeros(1, 2, 1, 1, device=device), torch.zeros(1, 1, 1, 1, device=device).long()
        kernels.class_sums(logits, labels, None, None, softmax=True, entropy=True, rest=True)
    except Exception as error:  # a missing compiler may raise anything
        warnings.warn(
            f"Triton does not run here ({type(error).__name__}: {error}): losses use the slower path", stacklevel=2
        )
        return None
    return kernels


def _triton_for(logits: Tensor) -> ModuleType | None:
    kernels = _triton(logits.device) if logits.is_cuda else None
    return kernels if kernels is not None and kernels.serves(logits) else None


def _shifted(x: Tensor, buffer: Tensor) -> Tensor:
    """Return `x − max x` over the classes, an exponent that cannot overflow."""
    return torch.sub(x, x.amax(0), out=buffer)


def _softmax_sums(block: Block, sums: Tensor, overlap: bool, entropy: bool, rest: bool) -> None:
    label, weight = block.labels[0].long(), None if block.weight is None else block.weight[0]
    shifted = _shifted(block.logits, block.buffers[0])
    at_label = shifted.gather(0, label[None])[0] if entropy else label
    of_shifted = (shifted.sum(1) if weight is None else _dot(shifted, weight)) if rest else sums[5]
    exponentials = shifted.mul_(LOG2_E).exp2_()  # takes a third of the time of exp
    total = exponentials.sum(0)
    if overlap:
        probability = exponentials.mul_(total.reciprocal() if weight is None else weight / total)
        sums[0] += _by_label(probability.gather(0, label[None])[0], label, sums)
        sums[1] += probability.sum(1)  # torch sums pairwise here; a matrix product would lose a digit
    true = _by_label(weight, label, sums)
    sums[2] += true
    sums[3] += true.sum()
    if not (entropy or rest):
        return
    log_total = total.log_()
    if entropy:
        surprise = log_total - at_label
        sums[4] += _by_label(surprise if weight is None else surprise * weight, label, sums)
    if rest:
        sums[5] += (log_total if weight is None else log_total * weight).sum() - of_shifted


def _softmax_gradient(block: Block, slopes: Tensor) -> Tensor:
    """∂/∂x_k = w·(p_k·(a_k − Σ_j p_j·a_j − i·p_t + h + Σ r) + y_k·(i·p_t − h) − r_k): a, i, h, r of predicted, …"""
    label, weight = block.labels[0].long(), None if block.weight is None else block.weight[0]
    intersection, predicted, _, _, entropy, rest = slopes
    exponentials = _shifted(block.logits, block.buffers[0]).mul_(LOG2_E).exp2_()
    share, at_label = exponentials.sum(0).reciprocal_(), -entropy[label]
    common = rest.sum() - at_label
    if overlap := _any_nonzero(slopes[:2]):
        of_label = exponentials.gather(0, label[None])[0].mul_(share).mul_(intersection[label])
        at_label += of_label
        common -= torch.mv(exponentials.t(), predicted).mul_(share).add_(of_label)
    if weight is not None:
        share, at_label = share.mul_(weight), at_label.mul_(weight)
    common.mul_(share)
    if overlap:
        common = torch.addr(common.expand_as(exponentials), predicted, share, out=block.buffers[1])
    gradient = _add_at_label(exponentials.mul_(common), label, at_label)
    if _any_nonzero(rest):
        gradient.addr_(rest, torch.ones_like(share) if weight is None else weight, alpha=-1)
    return gradient


def _sigmoid_sums(block: Block, sums: Tensor, overlap: bool, entropy: bool, rest: bool) -> None:
    x, weight = block.logits, block.weight
    label, probability, product = block.buffers
    label.copy_(block.labels)
    if entropy or rest:  # ln(1 + e^z), z the logit of the opposite label
        away = torch.addcmul(x, x, label, value=-2, out=product)
        surprise = torch.ops.aten.softplus.out(away, 1.0, 50.0, out=probability)
        surprise = surprise if weight is None else surprise.mul_(weight)
        own = torch.mul(surprise, label, out=product)
        sums[4] += own.sum(1)
        sums[5] += surprise.sub_(own).sum(1)
    label = label if weight is None else label.mul_(weight)
    if overlap:
        torch.sigmoid(x, out=probability)
        sums[0] += torch.mul(probability, label, out=product).sum(1)
        sums[1] += (probability if weight is None else probability.mul_(weight)).sum(1)
    sums[2] += label.sum(1)
    sums[3] += x.shape[1] if weight is None else weight.expand_as(x).sum(1)


def _sigmoid_gradient(block: Block, slopes: Tensor) -> Tensor:
    """∂/∂x = w·(p·((a + i·y)·(1 − p) + r + (h − r)·y) − h·y): a, i, h, r of predicted, intersection, entropy, rest."""
    label, probability, gradient = block.buffers
    label.copy_(block.labels)
    intersection, predicted, _, _, entropy, rest = slopes.unsqueeze(-1)
    torch.sigmoid(block.logits, out=probability)
    torch.addcmul(rest, entropy - rest, label, out=gradient)
    if _any_nonzero(slopes[:2]):
        gradient.add_((predicted + intersection * label).mul_(1.0 - probability))
    gradient.mul_(probability).addcmul_(label, entropy, value=-1)
    return gradient if block.weight is None else gradient.mul_(block.weight)


def _any_nonzero(slopes: Tensor) -> bool:
    """Whether any slope is not 0; always true on accelerators, where a check would make the host wait."""
    return not slopes.is_cpu or bool(slopes.any())


def _dot(values: Tensor, weight: Tensor) -> Tensor:
    return torch.linalg.vecdot(values, weight, dim=1)


def _by_label(values: Tensor | None, label: Tensor, sums: Tensor) -> Tensor:
    """Sum the values (1 by default) of each label."""
    classes = sums.shape[-1]
    if label.is_cpu:
        return torch.bincount(label, None if values is None else values.double(), classes)
    own = label == torch.arange(classes, device=label.device)[:, None]  # bincount is not deterministic there
    return own.sum(1) if values is None else torch.where(own, values, 0.0).sum(1)


def _add_at_label(values: Tensor, label: Tensor, addend: Tensor) -> Tensor:
    if label.is_cpu:
        return values.scatter_add_(0, label[None], addend[None])
    own = label == torch.arange(len(values), device=label.device)[:, None]
    return values.add_(torch.where(own, addend, 0.0))
