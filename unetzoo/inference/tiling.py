"""`predict`: an image of any size in, an output for every pixel out, whole or in windows.

Mirrored borders are those of the U-Net paper (arXiv:1505.04597, figure 2): the image is reflected without repeating
its border pixel, again and again where it is smaller than the border.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..bundle import ModelBundle
from ..errors import ConfigError
from ..images.arrays import as_tensor
from ..labels import LabelSpec
from ..models.geometry import Region
from ..models.regions import part, shifted
from ..modules import evaluation_mode
from ..precision import Precision
from .images import check_channels
from .merging import TTAMerger
from .planner import Memory, fit_windows
from .results import resized
from .stitching import Piece, arriving, pieces
from .tta import TTALike, as_tta
from .views import View
from .window_predictor import Heads, WindowPredictor
from .windows import Blend, Span, WindowPlan, host_positions, plan_windows

Tile = int | Sequence[int] | Literal["auto"] | None


class Uncertain(NamedTuple):
    """An output, and how far those that it was merged from are apart.

    Args:
        output: As `predict` gives it.
        disagreement: (H, W), or a NamedTuple of such where the network has several heads. For classes 0 where all
            agree … 1 where they are as far apart as so many outputs can be; for depth the standard deviation.
    """

    output: Any
    disagreement: Any


def predict(
    net: nn.Module | ModelBundle,
    image: Tensor | np.ndarray,
    *,
    tile: Tile = None,
    blend: Blend = "exact",
    tta: TTALike = None,
    labels: LabelSpec | None = None,
    memory: Memory = None,
    precision: Precision | None = None,
) -> Any:
    """SegmentationResult for every pixel of one image of any size ≥ 1.

    Whole: the image is mirrored to the right and at the bottom up to the network's next size (a multiple of its
    stride), and the output cropped. A valid U-Net gets its margin mirrored on all sides. With `tile`, the same canvas
    is cut into windows, and `blend="exact"` gives the output of the whole, up to rounding. For a valid U-Net in float32
    on the CPU it is bitwise the same wherever a convolution sums in one order for all window sizes: PyTorch's own
    kernels do; oneDNN's do at the paper's widths but for the smallest tiles.

    The network is put into evaluation mode meanwhile; nothing is recorded for gradients. Windows travel to the
    network's device and in its precision; the output stays where the image is. Labels of a classification head are
    left out.

    Args:
        net: Any segmentation network, or a `ModelBundle`. One without `geometry` (SMP's own, plugins' tier 1) is taken
            to keep its input's size, for multiples of `net.encoder.output_stride` (1 where there is none); where that
            is not so, set `net.geometry`.
        image: A preprocessed float tensor; or an array. Of uint8, it is preprocessed as the network's validation did,
            where the network carries that (trained or loaded networks do), else divided by 255; uint16 is divided by
            65535, bool taken as 0 and 1, floats as they are.
        tile: Size of a window, context included: a number, or (height, width); rounded down to the network's grid. A
            side that covers the image and its padding is not cut. Exact windows are made smaller where as many of
            them still cover the image. "auto": what fits into `memory` and computes the
            fewest pixels twice. None: the whole, or "auto" where `memory` is given.
        blend: How windows meet. "exact" writes every pixel once, from a window that holds all its context;
            "constant" averages windows that overlap by a quarter, "gaussian" weights them by a bell over each window.
            Without `tile` it has no effect.
        tta: Test-time augmentation: a `unetzoo.inference.TTA`, or "flips" (three mirrorings too), "d4" (all eight
            mirrorings and quarter turns) or "paper" (the U-Net paper's seven rotations). Mirrorings and quarter turns
            are done window by window, so that exact tiles stay exact; other angles and scales make images of their
            own, each predicted as `tile` and `blend` say. How far the outputs are apart:
            `unetzoo.inference.predict_with_uncertainty`.
        labels: The label set, whose left and right change places in mirrored images; that of the network by default,
            where it carries one.
        memory: What windows may take on the network's device, beside image, output and weights: bytes, or a text as
            "2GB". By default half of what is free when `tile` is "auto". With a `tile` of your own, so many windows go
            through the network at once on a GPU.
        precision: In which the network computes: "fp32", "bf16", "fp16", or "auto" for bf16 where the device multiplies
            it natively; the output is float32 then. None: in the format of its weights.

    Shape:
        image: (C, H, W) tensor, or (H, W) or (H, W, C) array. Returns (classes, H, W), or a NamedTuple of such where
        the network has several heads; (classes, H // 2, W // 2), 1 at least, from a network with `out_stride=2`.

    Raises:
        ConfigError: Unknown `blend` or `tta`; a tile that is too small, with the smallest; too little memory; exact
            windows of a network that has none; labels that cannot be turned, or of another number of classes.
        InputShapeError: A batch, other channels than the network's, an empty image.
        DataError: Integers other than those above.
        PluginContractError: The network's output is not as its geometry says.

    Examples:
        >>> import unetzoo
        >>> net = unetzoo.build("unet", in_channels=1, classes=2, encoder_channels=(4, 8, 16))
        >>> image = torch.rand(1, 50, 81)
        >>> whole = unetzoo.predict(net, image)
        >>> whole.shape, torch.allclose(whole, unetzoo.predict(net, image, tile=64), atol=1e-4)
        (torch.Size([2, 50, 81]), True)
    """
    return _predict(net, image, tile=tile, blend=blend, tta=tta, labels=labels, memory=memory, precision=precision)


def predict_with_uncertainty(
    net: nn.Module | ModelBundle,
    image: Tensor | np.ndarray,
    *,
    tta: TTALike = "flips",
    tile: Tile = None,
    blend: Blend = "exact",
    labels: LabelSpec | None = None,
    memory: Memory = None,
    precision: Precision | None = None,
) -> Uncertain:
    """`predict` over several views, and where they disagree.

    Of classes, the Jensen–Shannon divergence of the views' probabilities, divided by the largest that so many views and
    classes can have; of depth, the standard deviation. Where they disagree, the prediction depends on the view
    more than on the image.

    Args:
        net: As for `predict`.
        image: As for `predict`.
        tta: Two views or more.
        tile: As for `predict`.
        blend: As for `predict`.
        labels: As for `predict`.
        memory: As for `predict`.
        precision: As for `predict`.

    Raises:
        ConfigError: A single view; and as `predict`.

    Examples:
        >>> import unetzoo
        >>> net = unetzoo.build("bnunet", in_channels=1, classes=2, encoder_channels=(4, 8, 16))
        >>> output, disagreement = predict_with_uncertainty(net, torch.rand(1, 50, 81), tta="d4")
        >>> output.shape, disagreement.shape, bool(disagreement.max() <= 1)
        (torch.Size([2, 50, 81]), torch.Size([50, 81]), True)
    """
    given = as_tta(tta)
    if given is None or len(given.views()) < 2:
        raise ConfigError(
            "a single view disagrees with nothing", found=f"tta={tta!r}", hint='several, e.g. tta="flips" or tta="d4"'
        )
    return _predict(
        net, image, tile=tile, blend=blend, tta=given, labels=labels, memory=memory, precision=precision,
        uncertainty=True,
    )  # fmt: skip


def _predict(
    net: nn.Module | ModelBundle,
    image: Tensor | np.ndarray,
    *,
    tile: Tile,
    blend: Blend,
    tta: TTALike,
    labels: LabelSpec | None,
    memory: Memory,
    precision: Precision | None,
    uncertainty: bool = False,
) -> Any:
    """`predict` or `predict_with_uncertainty`."""
    bundle = ModelBundle.of(net)
    model: nn.Module = bundle.model
    labels = bundle.labels if labels is None else labels
    predictor = WindowPredictor(model, as_tta(tta), labels, uncertainty, precision)
    prepared = _preprocessed(image, bundle)
    check_channels(model, prepared)
    with evaluation_mode(model):
        if predictor.exact:
            heads = _predicted(predictor, prepared, predictor.views, tile, blend, memory)
        else:
            heads = _merged(predictor, prepared, tile, blend, memory)
    if isinstance(image, np.ndarray) and image.shape[:2] != prepared.shape[1:]:  # resized by the preprocessing
        heads = [resized(head, (image.shape[0], image.shape[1])) for head in heads]
    if not uncertainty:
        return predictor.rebuild(heads)
    half = len(heads) // 2
    return Uncertain(predictor.rebuild(heads[:half]), predictor.rebuild([head[0] for head in heads[half:]]))


def _preprocessed(image: Tensor | np.ndarray, bundle: ModelBundle) -> Tensor:
    """A decoded image as the network's own preprocessing makes it, where that is known; others by `as_tensor`."""
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3) and image.size:
        preprocess = bundle.preprocess or as_tensor
        return preprocess(image if image.ndim == 3 else image[..., None])
    return as_tensor(image)


def batches(
    windows: Iterable[tuple[Span, Span]], cut: Callable[[Span, Span], Tensor], size: int, *, pinned: bool = False
) -> Iterator[tuple[list[tuple[Span, Span]], Tensor]]:
    """So many windows at once, with what `cut` gives for them, stacked; pinned, they travel while a GPU works."""
    waiting = iter(windows)
    while some := list(islice(waiting, size)):
        stack = torch.stack([cut(row, column) for row, column in some])
        yield some, stack.pin_memory() if pinned else stack


def answered(
    predictor: WindowPredictor,
    plan: WindowPlan,
    batched: Iterable[tuple[list[tuple[Span, Span]], Tensor]],
    views: Sequence[View],
    blend: Blend,
) -> Iterator[tuple[Span, Span, Heads]]:
    """What each window keeps of the network's output for it; of exact ones little more than that is decoded."""
    for some, stack in batched:
        region = _kept_of(some) if blend == "exact" and plan.total > 1 else None
        top, left = (region[0].start, region[1].start) if region else (0, 0)
        heads = predictor.predict(stack, views, region)
        for number, (row, column) in enumerate(some):
            own = shifted(row.kept, top), shifted(column.kept, left)
            yield row, column, tuple(part(head[number], own) for head in heads)


def _kept_of(windows: Sequence[tuple[Span, Span]]) -> Region:
    """The part of their outputs that holds what any of some windows keeps."""
    rows, columns = ([span.kept for span in spans] for spans in zip(*windows, strict=True))
    return _hull(rows), _hull(columns)


def _hull(spans: Sequence[range]) -> range:
    return range(min(span.start for span in spans), max(span.stop for span in spans))


def _predicted(
    predictor: WindowPredictor, image: Tensor, views: Sequence[View], tile: Tile, blend: Blend, memory: Memory
) -> list[Tensor]:
    """The output for one image, merged window by window."""
    size = image.shape[-2], image.shape[-1]
    if tile == "auto" or memory is not None:
        fit = fit_windows(predictor, len(image), size, tile, blend, memory)
        plan, batch = fit.plan, fit.batch
    else:
        plan, batch = plan_windows(predictor.geometry, size, tile, blend), 1
    pixels = [host_positions(axis.size, axis.before, axis.length) for axis in plan]
    there = [torch.from_numpy(axis).to(image.device) for axis in pixels]  # here: once an image, not in each window

    def cut(*window: Span) -> Tensor:
        cutting = image
        for axis, span in enumerate(window):
            taken = slice(span.start, span.stop)
            cutting = _taken(cutting, axis + 1, pixels[axis][taken], there[axis][taken])
        return cutting

    travels = predictor.on_gpu and image.device.type == "cpu" and plan.total > 1
    windows = answered(predictor, plan, batches(plan.windows(), cut, batch, pinned=travels), views, blend)
    parts = pieces(plan, windows, blend)
    return _filled(plan, arriving(parts) if travels else parts, image.device)


def _merged(predictor: WindowPredictor, image: Tensor, tile: Tile, blend: Blend, memory: Memory) -> list[Tensor]:
    """The output for views that are images of their own."""
    assert predictor.tta is not None
    size = image.shape[-2], image.shape[-1]
    merger = TTAMerger(predictor.tta, predictor.uncertainty)
    one = WindowPredictor(predictor.net, predictor.tta, predictor.labels, precision=predictor.precision)
    for view in predictor.views:
        answer = _predicted(one, view.resampled(image), (view,), tile, blend, memory)
        merger.add(tuple(view.resampled_back(head, size, one.geometry.out_stride) for head in answer))
    predictor.rebuild = one.rebuild
    return list(merger.merged())


def _filled(plan: WindowPlan, parts: Iterable[Piece], device: torch.device) -> list[Tensor]:
    joined: list[Tensor] = []
    for rows, columns, heads in parts:
        if not joined:
            size = plan.rows.output, plan.columns.output
            joined = [torch.empty((len(head), *size), dtype=head.dtype, device=device) for head in heads]
        for whole, head in zip(joined, heads, strict=True):
            whole[:, rows.start : rows.stop, columns.start : columns.stop] = head
    return joined


def _taken(image: Tensor, axis: int, pixels: np.ndarray, there: Tensor) -> Tensor:
    """Some rows or columns, given on the host and on the device; without a copy where none is mirrored."""
    first, last = int(pixels[0]), int(pixels[-1])
    if last - first == len(pixels) - 1:
        return image.narrow(axis, first, len(pixels))
    return image.index_select(axis, there)
