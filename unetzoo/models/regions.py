"""Decoding a part of the answer: of each level's map, what that part needs, is cut out before it is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from itertools import pairwise
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map

from ..errors import ConfigError, InputShapeError
from .geometry import Region


def decodes_regions(net: Any) -> bool:
    """Whether a network's decoder takes parts of maps, and its geometry says which it needs."""
    geometry = getattr(net, "geometry", None)
    takes = "corners" in signature(net.decoder.forward).parameters and "region" in signature(net.forward).parameters
    return takes and geometry is not None and geometry.halo is not None and bool(geometry.decoder)


def check_region(net: Any, size: Sequence[int], region: Region) -> None:
    """Check that a network can be asked for a region of its answer to images of (height, width).

    Raises:
        ConfigError: Its decoder does not take parts, or it is in training mode.
        InputShapeError: A size that its poolings do not divide; a region that is empty or not inside the answer.
    """
    if not decodes_regions(net):
        raise ConfigError(f"{net.name} cannot decode a region", hint="leave out region; cut the answer instead")
    if net.training:
        raise ConfigError(
            "a region is decoded in evaluation mode only",
            subject=net.name,
            found="training mode, in which batch norms need the whole map",
            hint="net.eval()",
        )
    if any(n % net.geometry.stride for n in size):
        raise InputShapeError(
            f"{net.name} cannot decode a region of this size",
            expected=f"height and width that are multiples of {net.geometry.stride}",
            found=f"{size[0]}×{size[1]}",
        )
    answer = [net.geometry.output(n) for n in size]
    if any(not 0 <= span.start < span.stop <= n for span, n in zip(region, answer, strict=True)):
        raise InputShapeError("no region of the answer", expected=f"within {answer[0]}×{answer[1]}", found=region)


def decoded(net: Any, features: Sequence[Tensor], region: Region) -> Any:
    """What decoder and heads answer in a region.

    Args:
        net: A network that `decodes_regions`.
        features: Maps of all levels, finest first; each side twice the next one's.
        region: Rows and columns of the answer.
    """
    frames = net.geometry.frames(region, features[0].shape[-2:])
    parts = [part(map, frame) for map, frame in zip(features, reversed(frames), strict=True)]
    corners = [(fine[0].start - 2 * coarse[0].start, fine[1].start - 2 * coarse[1].start)
               for coarse, fine in pairwise(frames)]  # fmt: skip
    rows, columns = frames[-net.geometry.out_stride.bit_length()]  # of the level that the answer has
    inside = shifted(region[0], rows.start), shifted(region[1], columns.start)
    return tree_map(lambda map: part(map, inside), net.masks(net.decoder(parts, corners)))


def part(map: Tensor, region: Region) -> Tensor:
    """Some rows and columns of a map (…, H, W)."""
    rows, columns = region
    return map[..., rows.start : rows.stop, columns.start : columns.stop]


def shifted(span: range, origin: int) -> range:
    """The same pixels, counted from another one."""
    return range(span.start - origin, span.stop - origin)
