"""Mirrored borders, as figure 2 of the U-Net paper (arXiv:1505.04597) shows them, and batches predicted with them.

An image is reflected without repeating its border pixel, again and again where it is smaller than the border. Sizes
may be symbolic, so that `torch.export` records one program for all of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputShapeError
from ..models.geometry import Geometry
from ..modules import evaluation_mode
from .images import check_channels
from .window_predictor import WindowPredictor
from .windows import Blend, canvas_length, plan_windows


def predict_batch(net: nn.Module, images: Tensor, *, tile: Any = None, blend: Blend = "exact") -> Any:
    """`unetzoo.predict` for a batch of images of one size: the same mirrored borders, the same output size.

    Validation and reports call it, so that scores describe what `predict` returns. `net(images)` itself differs
    if the sides are not multiples of the network's stride: it resizes or pads inside the network.

    Args:
        net: As for `unetzoo.predict`.
        images: Preprocessed images, on any device.
        tile: As for `unetzoo.predict`; with it, images are predicted one at a time.
        blend: As for `unetzoo.predict`.

    Shape:
        images: (N, C, H, W), float. Returns (N, classes, H, W), or a NamedTuple of such where the network has several
        heads; the sides are divided by `out_stride` where it is larger than 1. The output of a classification head is
        dropped.

    Raises:
        InputShapeError: Not a batch, an empty one, or other channels than the network's.
        ConfigError: As `unetzoo.predict`.
        PluginContractError: The output contradicts the network's geometry.

    Examples:
        >>> import unetzoo
        >>> net = unetzoo.build("bnunet", in_channels=1, classes=2, encoder_channels=(4, 8, 16))
        >>> images = torch.rand(3, 1, 25, 41)
        >>> logits = predict_batch(net, images)
        >>> logits.shape, torch.allclose(logits[0], unetzoo.predict(net, images[0]), atol=1e-5)
        (torch.Size([3, 2, 25, 41]), True)
    """
    if images.ndim != 4 or not len(images):
        raise InputShapeError(
            "not a batch of images",
            expected="a tensor (N, C, H, W), N ≥ 1",
            found=tuple(images.shape),
            hint="unetzoo.predict takes a single image (C, H, W)",
        )
    if tile is not None:
        from .tiling import predict

        outputs = [predict(net, image, tile=tile, blend=blend) for image in images]
        if isinstance(outputs[0], Tensor):
            return torch.stack(outputs)
        return type(outputs[0])(*(torch.stack(heads) for heads in zip(*outputs, strict=True)))
    predictor = WindowPredictor(net)
    check_channels(net, images[0])
    height, width = images.shape[-2:]
    plan_windows(predictor.geometry, (height, width))  # raises for sizes that the network cannot take
    with evaluation_mode(net):
        heads = predictor.predict(pad_mirrored(images, predictor.geometry), predictor.views)
    return predictor.rebuild([crop(head, predictor.geometry, height, width) for head in heads])


def pad_mirrored(images: Tensor, geometry: Geometry) -> Tensor:
    """Images (N, C, H, W) with the mirrored borders that a network needs to give an output for every pixel."""
    for axis in (2, 3):
        size = images.shape[axis]
        length = canvas_length(geometry, size)
        if not isinstance(size, int) or length != size:
            positions = mirror_positions(size, geometry.margin, length, images.device)
            images = images.index_select(axis, positions)
    return images


def crop(output: Tensor, geometry: Geometry, height: Any, width: Any) -> Tensor:
    """The part of the output for a padded image that belongs to the image of (height, width)."""
    stride = geometry.out_stride
    for axis, size in ((2, height), (3, width)):
        length = torch.sym_max(size // stride, 1) if stride > 1 else size
        if isinstance(length, int):
            output = output.narrow(axis, 0, length)
        else:  # a slice would bind the exported program to sizes where it is not the whole axis
            output = output.index_select(axis, torch.arange(length, device=output.device))
    return output


def mirror_positions(size: Any, before: int, length: Any, device: torch.device | None = None) -> Tensor:
    """For each of `length` pixels of a canvas, the pixel of the image that is reflected there.

    Args:
        size: Pixels of the image.
        before: Pixels of the canvas before the image's first.
        length: Pixels of the canvas.
        device: Of the result.

    Examples:
        >>> mirror_positions(4, 3, 11).tolist()
        [3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]
    """
    position = torch.arange(length, device=device) - before
    period = torch.full_like(position, torch.sym_max(2 * (size - 1), 1))
    folded = position.remainder(period)
    # an image of one pixel is repeated
    return torch.minimum(torch.minimum(folded, period - folded), torch.full_like(folded, size - 1))
