"""`predict`: predict an image of any size, as a whole or in windows.

Borders are mirrored as in the U-Net paper (arXiv:1505.04597, figure 2): the image is reflected without repeating its
border pixel, several times if it is smaller than the border.
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
    """A merged output and the disagreement between the individual outputs.

    Args:
        output: The output as returned by `predict`.
        disagreement: (H, W), or a NamedTuple of these for a network with several heads. For classes, it ranges from 0
            (full agreement) to 1 (the largest possible disagreement); for depth, it is the standard deviation.
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

    Without `tile`, the image is padded by mirroring at the right and bottom to the network's next size (a multiple of
    its stride), and the output is cropped. For a valid U-Net, the margin is mirrored on all sides. With `tile`, the
    same canvas is cut into windows, and `blend="exact"` yields the output of the whole image up to rounding. For a
    valid U-Net in float32 on the CPU, the two are bitwise identical if convolutions sum in the same order for all
    window sizes: PyTorch's own kernels do, and so do oneDNN's at the paper's widths except for the smallest tiles.

    The network runs in evaluation mode and without gradients; its mode is restored afterwards. Windows are moved to
    the network's device and dtype; the output is on the image's device. The output of a classification head is
    discarded.

    Args:
        net: Any segmentation network, or a `ModelBundle`. A network without `geometry` (an SMP model, a tier 1 plugin)
            is assumed to preserve its input's size for multiples of `net.encoder.output_stride` (1 if it has none);
            set `net.geometry` if this is wrong.
        image: A preprocessed float tensor, or an array. A decoded image (uint8, or float32 in 0…1 if the network was
            trained with a range of values) is preprocessed as in validation if the network has preprocessing attached
            (as trained and loaded networks do). Otherwise uint8 is divided by 255, uint16 by 65535, bool becomes 0 and
            1, and floats are unchanged.
        tile: Size of a window including context, as a number or (height, width), rounded down to the network's grid. A
            side that covers the image and its padding is not cut. Exact windows are made smaller if the same number of
            them still covers the image. "auto" chooses the size that fits into `memory` with the fewest redundant
            pixels. None means the whole image, or "auto" if `memory` is given.
        blend: How windows are combined. "exact" takes every pixel from one window that contains its whole context,
            "constant" averages windows that overlap by a quarter, and "gaussian" weights them by a Gaussian over each
            window. It has no effect without `tile`.
        tta: Test-time augmentation: a `unetzoo.inference.TTA`, or "flips" (adds the three mirrored images), "d4" (all
            eight flips and quarter turns) or "paper" (the U-Net paper's seven rotations). Flips and quarter turns are
            applied to each window, so exact tiles remain exact; for other angles and scales, whole images are
            resampled, each predicted with `tile` and `blend`. `unetzoo.inference.predict_with_uncertainty` also
            returns the disagreement between the outputs.
        labels: The label set whose left and right labels are swapped in mirrored images; by default the one attached to
            the network, if any.
        memory: Memory for windows on the network's device, excluding image, output and weights, in bytes or as a
            string such as "2GB". Half of the free memory by default if `tile` is "auto". With a fixed `tile`, it
            limits the number of windows per batch on a GPU.
        precision: Precision of the forward pass: "fp32", "bf16", "fp16", or "auto" for bf16 if the device supports it
            natively; the output is then float32. None uses the dtype of the weights.

    Shape:
        image: (C, H, W) tensor, or (H, W) or (H, W, C) array. Returns (classes, H, W), or a NamedTuple of these for a
        network with several heads; (classes, H // 2, W // 2), at least 1, for a network with `out_stride=2`.

    Raises:
        ConfigError: `blend` or `tta` is unknown, the tile is too small (the error gives the minimum), the memory limit
            is too low, the network has no exact windows, or the labels cannot be rotated or do not match the network.
        InputShapeError: The image is a batch, is empty, or has the wrong number of channels.
        DataError: The integer type of the image is not supported.
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
    """Predict an image in several views, and measure their disagreement.

    For classes, the disagreement is the Jensen–Shannon divergence of the views' probabilities, divided by its maximum
    for this number of views and classes; for depth, it is the standard deviation. Where it is high, the prediction
    depends more on the view than on the image.

    Args:
        net: As for `predict`.
        image: As for `predict`.
        tta: Test-time augmentation with at least two views.
        tile: As for `predict`.
        blend: As for `predict`.
        labels: As for `predict`.
        memory: As for `predict`.
        precision: As for `predict`.

    Raises:
        ConfigError: `tta` has a single view; or as for `predict`.

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
    """Implement `predict` and `predict_with_uncertainty`."""
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
    """Preprocess a decoded image with the bundle's preprocessing if it is known, or else with `as_tensor`."""
    floats = bundle.pixels is not None and bundle.pixels.range is not None
    decoded = isinstance(image, np.ndarray) and (image.dtype == np.uint8 or (floats and image.dtype == np.float32))
    if isinstance(image, np.ndarray) and decoded and image.ndim in (2, 3) and image.size:
        preprocess = bundle.preprocess or as_tensor
        return preprocess(image if image.ndim == 3 else image[..., None])
    return as_tensor(image)


def batches(
    windows: Iterable[tuple[Span, Span]], cut: Callable[[Span, Span], Tensor], size: int, *, pinned: bool = False
) -> Iterator[tuple[list[tuple[Span, Span]], Tensor]]:
    """Group windows into batches, each with the stacked pixels returned by `cut`, optionally in pinned memory."""
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
    """Yield the part of each window's output that is kept; exact windows are decoded only around that part."""
    for some, stack in batched:
        region = _kept_region(some) if blend == "exact" and plan.total > 1 else None
        top, left = (region[0].start, region[1].start) if region else (0, 0)
        heads = predictor.predict(stack, views, region)
        for number, (row, column) in enumerate(some):
            own = shifted(row.kept, top), shifted(column.kept, left)
            yield row, column, tuple(part(head[number], own) for head in heads)


def _kept_region(windows: Sequence[tuple[Span, Span]]) -> Region:
    """Return the smallest region of the outputs that contains the kept part of each window."""
    rows, columns = ([span.kept for span in spans] for spans in zip(*windows, strict=True))
    return _hull(rows), _hull(columns)


def _hull(spans: Sequence[range]) -> range:
    return range(min(span.start for span in spans), max(span.stop for span in spans))


def _predicted(
    predictor: WindowPredictor, image: Tensor, views: Sequence[View], tile: Tile, blend: Blend, memory: Memory
) -> list[Tensor]:
    """Predict one image, merging views window by window."""
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
    """Predict one image in views that resample the whole image."""
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
    """Select rows or columns by position (on the host and on the device); returns a view if none is mirrored."""
    first, last = int(pixels[0]), int(pixels[-1])
    if last - first == len(pixels) - 1:
        return image.narrow(axis, first, len(pixels))
    return image.index_select(axis, there)
