"""Decode only a region of the output, from the part of each level's map on which it depends."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..errors import ConfigError, InputShapeError
from .blocks import Decoder
from .geometry import Region


class RegionNetwork(nn.Module):
    """A network that returns one region of its output, decoding little more than that.

    It runs the network's own `forward` on a copy that shares its weights but whose decoder crops its maps. The network
    itself is not modified, so this is thread-safe.

    Args:
        net: A network in evaluation mode for which `decodes_regions` is true.
        region: Rows and columns of the output.
        size: Height and width of the images.

    Shape:
        Images (N, C, *size) → the output in the region; labels of a classification head are those of the whole image.

    Raises:
        ConfigError: The network cannot decode regions, or is in training mode.
        InputShapeError: The size is not divisible by the stride, or the region is empty or not inside the output.

    Examples:
        >>> import unetzoo
        >>> net = unetzoo.build("bnunet", encoder_channels=(4, 8, 16)).eval()
        >>> RegionNetwork(net, (range(8), range(4, 20)), (64, 64))(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 1, 8, 16])
    """

    def __init__(self, net: Any, region: Region, size: Sequence[int]) -> None:
        super().__init__()
        check_region(net, size, region)
        frames = net.geometry.frames(region, size)
        rows, columns = frames[-net.geometry.out_stride.bit_length()]  # at the level of the output
        self.inside = shifted(region[0], rows.start), shifted(region[1], columns.start)
        self.size = tuple(size)
        self.net = _with_children(net, decoder=_PartDecoder(net.decoder, frames))
        self.training = False

    def forward(self, x: Tensor) -> Any:
        """Images → the region of the network's output."""
        if not torch.compiler.is_compiling() and tuple(x.shape[-2:]) != self.size:
            raise InputShapeError("images of another size", expected=self.size, found=tuple(x.shape[-2:]))
        output = self.net(x)
        if self.net.classification_head is None:
            return tree_map(self._cut, output)
        masks, labels = output
        return tree_map(self._cut, masks), labels

    def _cut(self, map: Tensor) -> Tensor:
        return part(map, self.inside)


class _PartDecoder(nn.Module):
    """A decoder that takes the maps of all levels and decodes a frame of each."""

    def __init__(self, decoder: nn.Module, frames: Sequence[Region]) -> None:
        super().__init__()
        corners = [
            (fine[0].start - 2 * coarse[0].start, fine[1].start - 2 * coarse[1].start)
            for coarse, fine in pairwise(frames)
        ]
        self.frames = list(reversed(frames))
        self.decoder = _cutting(decoder, corners)

    def forward(self, features: Sequence[Tensor]) -> Any:
        """Maps of all levels, finest first → the decoder's output for their frames."""
        return self.decoder([part(map, frame) for map, frame in zip(features, self.frames, strict=True)])


def _cutting(module: nn.Module, corners: Sequence[tuple[int, int]]) -> nn.Module:
    """Copy a module, sharing its weights, with the corners at which every `Decoder` crops its maps."""
    if isinstance(module, Decoder):
        twin = _with_children(module)
        twin.corners = corners
        return twin
    return _with_children(
        module,
        **{name: _cutting(child, corners) for name, child in module.named_children() if _holds_decoder(child)},
    )


def _holds_decoder(module: nn.Module) -> bool:
    return any(isinstance(part, Decoder) for part in module.modules())


def _with_children(module: nn.Module, **children: nn.Module) -> Any:
    """Copy a module, sharing its weights and children except for those given."""
    twin = copy.copy(module)
    twin.__dict__["_modules"] = {**module._modules, **children}
    return twin


def decodes_regions(net: Any) -> bool:
    """Whether regions of a network's output can be decoded separately.

    This requires that its geometry gives the reach of each level, its decoder consists of `Decoder` modules, and the
    class that defines `forward` sets `plain_forward`.
    """
    geometry = getattr(net, "geometry", None)
    owner = next(kind for kind in type(net).__mro__ if "forward" in vars(kind))
    vouched = vars(owner).get("plain_forward", False) and "forward" not in vars(net)
    return vouched and geometry is not None and geometry.halo is not None and bool(geometry.decoder) and (
        _holds_decoder(net.decoder)
    )  # fmt: skip


def check_region(net: Any, size: Sequence[int], region: Region) -> None:
    """Check that a network can decode a region of its output for images of (height, width).

    Raises:
        ConfigError: The network cannot decode regions, or is in training mode.
        InputShapeError: The size is not divisible by the stride, or the region is empty or not inside the output.
    """
    if not decodes_regions(net):
        raise ConfigError(f"{net.name} cannot decode a region", hint="cut the region out of the whole output")
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
    height, width = (net.geometry.output(n) for n in size)
    if any(not 0 <= span.start < span.stop <= n for span, n in zip(region, (height, width), strict=True)):
        raise InputShapeError("not a region of the output", expected=f"within {height}×{width}", found=region)


def part(map: Tensor, region: Region) -> Tensor:
    """Crop a map (…, H, W) to a region."""
    rows, columns = region
    return map[..., rows.start : rows.stop, columns.start : columns.stop]


def shifted(span: range, origin: int) -> range:
    """Shift a range of pixels to another origin."""
    return range(span.start - origin, span.stop - origin)
