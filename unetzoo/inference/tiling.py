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
    """A merged output and how much the outputs that it was merged from disagree.

    Args:
        output: As `predict` returns it.
        disagreement: (H, W), or a NamedTuple of these for a network with several heads. For classes from 0 (all agree)
            to 1 (the largest possible disagreement of this number of outputs); for depth the standard deviation.
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
    """Predict one image of any size; the output has a value for every pixel.

    Without `tile`, the image is mirrored to the right and at the bottom up to the network's next size (a multiple of
    its stride), and the output is cropped. For a valid U-Net the margin is mirrored on all sides. With `tile`, the same
    canvas is cut into windows, and `blend="exact"` gives the output of the whole image, up to rounding. For a valid
    U-Net in float32 on the CPU it is bitwise the same wherever a convolution sums in one order for all window sizes:
    PyTorch's own kernels do; oneDNN's do at the paper's widths except for the smallest tiles.

    The network predicts in evaluation mode and without gradients; its mode is restored afterwards. Windows are moved
    to the network's device and precision; the output is on the image's device. The output of a classification head is
    dropped.

    Args:
        net: Any segmentation network, or a `ModelBundle`. One without `geometry` (SMP's own, plugins' tier 1) is
            assumed to keep its input's size, for multiples of `net.encoder.output_stride` (1 where there is none);
            where that is wrong, set `net.geometry`.
        image: A preprocessed float tensor, or an array. A uint8 array is preprocessed as in the network's validation
            if the network carries its preprocessing (trained or loaded networks do), else divided by 255; uint16 is
            divided by 65535, bool becomes 0 and 1, floats are unchanged.
        tile: Size of a window, context included: a number, or (height, width); rounded down to the network's grid. A
            side that covers the image and its padding is not cut. Exact windows are made smaller if the same number
            still covers the image. "auto": the size that fits into `memory` and encodes the fewest pixels twice.
            None: the whole image, or "auto" if `memory` is given.
        blend: How windows are combined. "exact" takes every pixel from one window that contains all its context;
            "constant" averages windows that overlap by a quarter, "gaussian" weights them by a Gaussian over each
            window. Without `tile` it has no effect.
        tta: Test-time augmentation: a `unetzoo.inference.TTA`, or "flips" (also the three mirrored images), "d4" (all
            eight mirrorings and quarter turns) or "paper" (the U-Net paper's seven rotations). Mirrorings and quarter
            turns are done window by window, so that exact tiles stay exact; for other angles and scales whole images
            are resampled, each predicted with `tile` and `blend`. `unetzoo.inference.predict_with_uncertainty` also
            returns how much the outputs disagree.
        labels: The label set, whose left and right labels are exchanged in mirrored images; the network's own by
            default, if it carries one.
        memory: Memory for windows on the network's device, not counting image, output and weights: bytes, or text such
            as "2GB". By default half of the free memory when `tile` is "auto". With a fixed `tile`, it limits how many
            windows go through the network at once on a GPU.
        precision: In which the network computes: "fp32", "bf16", "fp16", or "auto" for bf16 where the device multiplies
            it natively; the output is float32 then. None: in the format of its weights.

    Shape:
        image: (C, H, W) tensor, or (H, W) or (H, W, C) array. Returns (classes, H, W), or a NamedTuple of these for a
        network with several heads; (classes, H // 2, W // 2), at least 1, for a network with `out_stride=2`.

    Raises:
        ConfigError: Unknown `blend` or `tta`; a tile that is too small, with the smallest; too little memory; exact
            windows of a network that has none; labels that cannot be turned, or of another number of classes.
        InputShapeError: A batch, other channels than the network's, an empty image.
        DataError: Integers other than those above.
        PluginContractError: The output contradicts the network's geometry.

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

    For classes, the Jensen–Shannon divergence of the views' probabilities, divided by its maximum for this number of
    views and classes; for depth, the standard deviation. Where they disagree, the prediction depends more on the view
    than on the image.

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
    """A decoded image, preprocessed by the network's own preprocessing if it is known; others by `as_tensor`."""
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3) and image.size:
        preprocess = bundle.preprocess or as_tensor
        return preprocess(image if image.ndim == 3 else image[..., None])
    return as_tensor(image)


def batches(
    windows: Iterable[tuple[Span, Span]], cut: Callable[[Span, Span], Tensor], size: int, *, pinned: bool = False
) -> Iterator[tuple[list[tuple[Span, Span]], Tensor]]:
    """Windows in batches, each with the stacked pixels that `cut` returns, pinned for a copy in the background."""
    waiting = iter(windows)
    while some := list(islice(waiting, size)):
        stack = torch.stack([cut(row, column) for row, column in some])
        yield some, stack.pin_memory() if pinned else stack


def predict_windows(
    predictor: WindowPredictor,
    plan: WindowPlan,
    batched: Iterable[tuple[list[tuple[Span, Span]], Tensor]],
    views: Sequence[View],
    blend: Blend,
) -> Iterator[tuple[Span, Span, Heads]]:
    """The part of each window's output that is kept; of exact windows little more than that is decoded."""
    for some, stack in batched:
        region = _kept_region(some) if blend == "exact" and plan.total > 1 else None
        top, left = (region[0].start, region[1].start) if region else (0, 0)
        heads = predictor.predict(stack, views, region)
        for number, (row, column) in enumerate(some):
            own = shifted(row.kept, top), shifted(column.kept, left)
            yield row, column, tuple(part(head[number], own) for head in heads)


def _kept_region(windows: Sequence[tuple[Span, Span]]) -> Region:
    """The smallest region of the outputs that contains what each window keeps."""
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
    there = [torch.from_numpy(axis).to(image.device) for axis in pixels]  # once per image, not per window

    def cut(*window: Span) -> Tensor:
        cutting = image
        for axis, span in enumerate(window):
            taken = slice(span.start, span.stop)
            cutting = _taken(cutting, axis + 1, pixels[axis][taken], there[axis][taken])
        return cutting

    travels = predictor.on_gpu and image.device.type == "cpu" and plan.total > 1
    windows = predict_windows(predictor, plan, batches(plan.windows(), cut, batch, pinned=travels), views, blend)
    parts = pieces(plan, windows, blend)
    return _filled(plan, arriving(parts) if travels else parts, image.device)


def _merged(predictor: WindowPredictor, image: Tensor, tile: Tile, blend: Blend, memory: Memory) -> list[Tensor]:
    """The output for views that resample the whole image."""
    assert predictor.tta is not None
    size = image.shape[-2], image.shape[-1]
    merger = TTAMerger(predictor.tta, predictor.uncertainty)
    one = WindowPredictor(predictor.net, predictor.tta, predictor.labels, precision=predictor.precision)
    for view in predictor.views:
        output = _predicted(one, view.resampled(image), (view,), tile, blend, memory)
        merger.add(tuple(view.resampled_back(head, size, one.geometry.out_stride) for head in output))
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
    """Rows or columns by their positions (on the host and on the device); a view where none is mirrored."""
    first, last = int(pixels[0]), int(pixels[-1])
    if last - first == len(pixels) - 1:
        return image.narrow(axis, first, len(pixels))
    return image.index_select(axis, there)
