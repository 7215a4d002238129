"""`predict`: a picture of any size in, an answer for every pixel out, whole or by windows.

Mirrored borders are those of the U-Net paper (arXiv:1505.04597, figure 2): the picture is reflected without repeating
its border pixel, again and again where it is smaller than the border.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError, PluginContractError, did_you_mean
from ..labels import LabelSpec
from .geometry import Axis, Blend, Plan, Span, geometry_of, plan_windows
from .pictures import as_picture, check_channels

FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))
SIGMA = 1 / 8  # of a window's answer, as nnU-Net weights its windows (Isensee et al. 2021)

Heads = tuple[Tensor, ...]


def predict(
    net: nn.Module,
    image: Tensor | np.ndarray,
    *,
    tile: int | Sequence[int] | None = None,
    blend: Blend = "exact",
    tta: Literal["flips"] | None = None,
) -> Any:
    """Answer for every pixel of one picture of any size ≥ 1.

    Whole: the picture is mirrored to the right and at the bottom up to the network's next size (a multiple of its
    stride), and the answer cropped. A valid U-Net gets its margin mirrored on all sides. With `tile`, the same canvas
    is cut into windows, and `blend="exact"` gives the answer of the whole, up to rounding. For a valid U-Net in float32
    on the CPU it is bitwise the same wherever a convolution sums in one order for all window sizes: PyTorch's own
    kernels do; oneDNN's do at the paper's widths but for the smallest tiles.

    The network is put into evaluation mode meanwhile; nothing is recorded for gradients. Windows travel to the
    network's device and in its precision; the answer stays where the picture is. Labels of a classification head are
    left out.

    Args:
        net: Any segmentation network. One without `geometry` (SMP's own, plugins' tier 1) is taken to answer at its
            input's size, for multiples of `net.encoder.output_stride` (1 where there is none); where that is not so,
            set `net.geometry`.
        image: A float tensor, as trained on; or an array, whose uint8 is divided by 255, uint16 by 65535, bool taken as
            0 and 1, floats as they are.
        tile: Size of a window, context included: a number, or (height, width); rounded down to the network's grid. A
            side that covers the picture and its padding is not cut.
        blend: How windows meet. "exact" writes every pixel once, from a window that holds all its context;
            "constant" averages windows that overlap by a quarter, "gaussian" weights them by a bell over each window.
            Without `tile` it has no effect.
        tta: "flips" gives the mean answer over the picture and its three mirrorings, turned back. It takes no account
            of classes that change places in a mirror (`Predictor` does).

    Shape:
        image: (C, H, W) tensor, or (H, W) or (H, W, C) array. Returns (classes, H, W), or a NamedTuple of such where
        the network has several heads; (classes, H // 2, W // 2), 1 at least, from a network with `out_stride=2`.

    Raises:
        ConfigError: Unknown `blend` or `tta`; a tile that is too small, with the smallest; exact windows of a network
            that has none.
        InputShapeError: A batch, other channels than the network's, an empty picture.
        DataError: Integers other than those above.
        PluginContractError: The network's answer is not as its geometry says.

    Examples:
        >>> import unetzoo
        >>> net = unetzoo.build("unet", in_channels=1, classes=2, encoder_channels=(4, 8, 16))
        >>> picture = torch.rand(1, 50, 81)
        >>> whole = unetzoo.predict(net, picture)
        >>> whole.shape, torch.allclose(whole, unetzoo.predict(net, picture, tile=64), atol=1e-4)
        (torch.Size([2, 50, 81]), True)
    """
    return predict_picture(net, image, tile=tile, blend=blend, tta=tta)


def predict_picture(
    net: nn.Module,
    image: Tensor | np.ndarray,
    *,
    tile: int | Sequence[int] | None,
    blend: Blend,
    tta: Literal["flips"] | None,
    labels: LabelSpec | None = None,
) -> Any:
    """`predict`, with the label set, whose left and right change places in mirrored pictures."""
    if not isinstance(net, nn.Module):
        raise ConfigError(
            "predict takes a network", found=repr(net), hint='build it first: unetzoo.build("unet") or from_pretrained'
        )
    if tta not in (None, "flips"):
        raise ConfigError(f"unknown tta {tta!r}", hint=did_you_mean(str(tta), ["flips"], "tta") + " (or None)")
    picture = as_picture(image)
    check_channels(net, picture)
    geometry = geometry_of(net)
    plan = plan_windows(geometry, picture.shape[-2:], tile, blend)
    sample = next((p for p in chain(net.parameters(), net.buffers()) if p.is_floating_point()), picture)
    rebuild: Callable[[Sequence[Tensor]], Any] = list

    def answer(window: Tensor) -> Heads:
        nonlocal rebuild
        heads, rebuild = split_heads(net(window))
        expected = (geometry.output(window.shape[-2]), geometry.output(window.shape[-1]))
        for head in heads:
            if head.ndim != 4 or tuple(head.shape[-2:]) != expected:
                raise PluginContractError(
                    "the network answers another size than its geometry says",
                    subject=type(net).__name__,
                    expected=f"(N, classes, {expected[0]}, {expected[1]}) for {tuple(window.shape)}",
                    found=tuple(head.shape),
                    hint="give the network a `geometry` (unetzoo.models.Geometry) that says how its answer lies",
                )
        return heads

    def windows() -> Iterator[tuple[Span, Span, Heads]]:
        rows, columns = (mirrored(axis).to(picture.device) for axis in plan)
        for row, column in plan.windows():
            cut = picture.index_select(1, rows[row.start : row.stop])
            cut = cut.index_select(2, columns[column.start : column.stop])[None].to(sample.device, sample.dtype)
            with torch.inference_mode():
                heads = mean_of_flips(answer, cut, labels) if tta else answer(cut)
            yield row, column, tuple(head[0].to(picture.device) for head in heads)

    with evaluating(net):
        single = len(plan.rows.spans) == len(plan.columns.spans) == 1
        joined = paste(plan, windows()) if blend == "exact" or single else weigh(plan, windows(), blend)
    return rebuild(joined)


def paste(plan: Plan, windows: Iterator[tuple[Span, Span, Heads]]) -> list[Tensor]:
    """Put together answers of which each pixel is kept once."""
    joined: list[Tensor] = []
    for row, column, heads in windows:
        if not joined:
            joined = [head.new_empty(len(head), plan.rows.answer, plan.columns.answer) for head in heads]
        top, bottom, left, right = row.keep.start, row.keep.stop, column.keep.start, column.keep.stop
        for whole, head in zip(joined, heads, strict=True):
            part = head[:, top - row.first : bottom - row.first, left - column.first : right - column.first]
            whole[:, top:bottom, left:right] = part
    return joined


def weigh(plan: Plan, windows: Iterator[tuple[Span, Span, Heads]], blend: Blend) -> list[Tensor]:
    """Sum up overlapping answers with weights that are one in sum at each pixel; in float32 at least."""
    weights = [dict(zip(axis.spans, span_weights(axis, blend), strict=True)) for axis in plan]
    joined: list[Tensor] = []
    dtypes: list[torch.dtype] = []
    for row, column, heads in windows:
        if not joined:
            dtypes = [head.dtype for head in heads]
            joined = [
                torch.zeros(
                    (len(head), plan.rows.answer, plan.columns.answer),
                    dtype=torch.promote_types(head.dtype, torch.float32),
                    device=head.device,
                )
                for head in heads
            ]
        height, width = len(row.keep), len(column.keep)
        for whole, head in zip(joined, heads, strict=True):
            share = weights[0][row][:, None] * weights[1][column]
            place = whole[:, row.keep.start : row.keep.stop, column.keep.start : column.keep.stop]
            place += head[:, :height, :width] * share.to(whole)
    return [whole.to(dtype) for whole, dtype in zip(joined, dtypes, strict=True)]


def span_weights(axis: Axis, blend: str) -> list[Tensor]:
    """One weight for each pixel that each window keeps; they sum to one wherever windows overlap."""
    distance = torch.arange(axis.window, dtype=torch.float64) - (axis.window - 1) / 2
    window = torch.exp(-0.5 * (distance / (SIGMA * axis.window)) ** 2)
    if blend == "constant":
        window = torch.ones_like(window)
    raw = [window[: len(span.keep)] for span in axis.spans]  # the picture may end inside the last one
    total = torch.zeros(axis.answer, dtype=torch.float64)
    for span, weight in zip(axis.spans, raw, strict=True):
        total[span.keep.start : span.keep.stop] += weight
    return [w / total[span.keep.start : span.keep.stop] for span, w in zip(axis.spans, raw, strict=True)]


def mean_of_flips(answer: Callable[[Tensor], Heads], window: Tensor, labels: LabelSpec | None = None) -> Heads:
    """The mean answer over a window and its three mirrorings, turned back.

    The window lies on the pooling grid at either end, so mirroring it is mirroring the canvas: tiles stay exact.

    Raises:
        ConfigError: Left and right are to change places, but the answer has other classes than `labels`.
    """
    total: list[Tensor] = []
    for dims in FLIPS:
        mask, *others = answer(window.flip(dims))
        if labels and labels.swap_pairs:
            if mask.shape[1] != labels.classes:
                raise ConfigError(
                    "labels and network differ", expected=f"{mask.shape[1]} classes", found=labels.classes,
                    hint="give the label set that the network was trained with",
                )  # fmt: skip
            mask = mask[:, labels.swapped_by(hflip=-1 in dims, vflip=-2 in dims)]
        heads = [head.flip(dims) for head in (mask, *others)]
        total = [sum_ + head for sum_, head in zip(total, heads, strict=True)] if total else heads
    return tuple(head / len(FLIPS) for head in total)


def mirrored(axis: Axis) -> Tensor:
    """For each pixel of the canvas, the pixel of the picture that stands there.

    The same as `numpy.pad(mode="reflect")`: 3 2 1 0 1 2 3 2 1 …; a picture of one pixel is repeated.
    """
    position = torch.arange(-axis.before, axis.length - axis.before)
    if axis.size == 1:
        return torch.zeros_like(position)
    period = 2 * (axis.size - 1)
    folded = position.remainder(period)
    return torch.minimum(folded, period - folded)


def split_heads(answer: Any) -> tuple[Heads, Callable[[Sequence[Tensor]], Any]]:
    """The tensors of an answer, and how to make such an answer of others; labels of a classification head are dropped.

    Raises:
        PluginContractError: Neither a tensor, nor a NamedTuple, nor SMP's (masks, labels).
    """
    if isinstance(answer, Tensor):
        return (answer,), lambda heads: heads[0]
    if isinstance(answer, tuple) and hasattr(answer, "_fields"):
        return tuple(answer), lambda heads: type(answer)(*heads)
    if isinstance(answer, tuple) and len(answer) == 2:
        return split_heads(answer[0])
    raise PluginContractError(
        "the network's answer cannot be read",
        expected="logits (N, classes, H, W), or a NamedTuple with masks first",
        found=type(answer).__name__,
        hint="wrap the network in one that gives its logits",
    )


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; afterwards each part has its own mode again (frozen parts differ from the rest)."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
