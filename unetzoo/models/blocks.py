"""Building blocks shared by several networks: activations, He initialization, units, encoder and decoder."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.encoders._base import EncoderMixin
from torch import Tensor, nn

from ..errors import ConfigError, InputShapeError, UnknownNameError, did_you_mean
from ..registry import check_keywords

HIDDEN_ACTS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "tanh": nn.Tanh,
}
HiddenAct = str | Mapping[str, Any]


def make_act(hidden_act: HiddenAct, *, inplace: bool = True) -> nn.Module:
    """Build the activation between layers.

    Args:
        hidden_act: A name ("relu"), or a mapping with the name under `type` and keyword arguments.
        inplace: Whether to modify the input in place, if the activation supports it.

    Raises:
        ConfigError: Unknown name or keyword.

    Examples:
        >>> make_act({"type": "leaky_relu", "negative_slope": 0.05})
        LeakyReLU(negative_slope=0.05, inplace=True)
    """
    options: dict[str, Any] = {"type": hidden_act} if isinstance(hidden_act, str) else dict(hidden_act)
    name = options.pop("type", None)
    if name not in HIDDEN_ACTS:
        raise UnknownNameError(f"unknown hidden_act {name!r}", hint=did_you_mean(str(name), HIDDEN_ACTS, "hidden_act"))
    check_keywords(HIDDEN_ACTS[name], options, f"hidden_act {name!r}")
    if "inplace" in inspect.signature(HIDDEN_ACTS[name]).parameters:
        options.setdefault("inplace", inplace)
    return HIDDEN_ACTS[name](**options)


def one_of(name: str, value: object, choices: Sequence[object]) -> None:
    """Check that a value is one of the choices.

    Raises:
        ConfigError: It is not; the error lists the choices.
    """
    if value not in choices:
        raise ConfigError(f"wrong {name}", expected=" or ".join(map(repr, choices)), found=repr(value))


def widths(encoder_channels: Sequence[int]) -> tuple[int, ...]:
    """Check the channels per level, finest first: at least three levels with at least one channel.

    Raises:
        ConfigError: Fewer than two poolings, or a width below 1.
    """
    channels = tuple(encoder_channels)
    if len(channels) < 3 or any(not isinstance(c, int) or c < 1 for c in channels):
        raise ConfigError(
            "wrong encoder_channels",
            expected="three or more positive integers, one per level (depth = their number − 1 ≥ 2)",
            found=channels,
        )
    return channels


def he_normal_(module: nn.Module) -> None:
    """Initialize convolutions from N(0, √(2/N)), where N is the fan-in, and biases with 0 (He 2015; the U-Net paper).

    In a transposed convolution with kernel k and stride s, each output depends on (k/s)² input pixels, so N is
    in_channels·(k/s)², whereas PyTorch's `kaiming_normal_` uses out_channels·k².
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nodes = layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]
        elif isinstance(layer, nn.ConvTranspose2d):
            nodes = layer.in_channels * layer.kernel_size[0] ** 2 / layer.stride[0] ** 2
        else:
            continue
        nn.init.normal_(layer.weight, 0.0, (2.0 / nodes) ** 0.5)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


class ConvUnit(nn.Sequential):
    """3×3 convolution, batch norm and activation, in the given order."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        hidden_act: HiddenAct = "relu",
        order: str = "conv-bn-act",
        bias: bool = False,
        dilation: int = 1,
        padding: int | None = None,
    ) -> None:
        one_of("order", order, ("conv-bn-act", "conv-act-bn"))
        padding = dilation if padding is None else padding
        conv = nn.Conv2d(in_channels, out_channels, 3, padding=padding, dilation=dilation, bias=bias)
        rest = [nn.BatchNorm2d(out_channels), make_act(hidden_act)]
        super().__init__(conv, *(rest if order == "conv-bn-act" else reversed(rest)))


def join(maps: Sequence[Tensor]) -> Tensor:
    """Concatenate maps (N, C, H, W) along the channels; a single map is returned unchanged."""
    return torch.cat(list(maps), dim=1) if len(maps) > 1 else maps[0]


class JoinedLayers(nn.Sequential):
    """A Sequential that first concatenates its inputs.

    If the caller concatenated them, it would hold a reference to the copy until the last layer is done.
    """

    def forward(self, *maps: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Maps (N, Cᵢ, H, W) → the output of the last layer."""
        x = join(maps)
        for layer in self:
            x = layer(x)
        return x


class DoubleConv(JoinedLayers):
    """Two `ConvUnit`s with `mid_channels` between them (default: `out_channels`)."""

    def __init__(self, in_channels: int, out_channels: int, mid_channels: int | None = None, **unit: Any) -> None:
        mid_channels = mid_channels or out_channels
        super().__init__(ConvUnit(in_channels, mid_channels, **unit), ConvUnit(mid_channels, out_channels, **unit))


class Recurrent(nn.Module):
    """f(x), then repeatedly f(x + previous), with the same convolution (and norm) in every step."""

    def __init__(self, conv: nn.Module, steps: int) -> None:
        super().__init__()
        self.conv, self.steps = conv, steps

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape, after 1 + `steps` applications."""
        previous = self.conv(x)
        for _ in range(self.steps):
            previous = self.conv(x + previous)
        return previous


class UpsampleConv(nn.Sequential):
    """Nearest-neighbor up-sampling ×2 and a `ConvUnit`, as in common implementations of U-Net and R2U-Net."""

    def __init__(self, in_channels: int, out_channels: int, **unit: Any) -> None:
        super().__init__(nn.Upsample(scale_factor=2, mode="nearest"), ConvUnit(in_channels, out_channels, **unit))


def match_size(x: Tensor, size: Sequence[int], align: str) -> Tensor:
    """Match an up-sampled map to the size of its skip, which differs by a pixel after pooling of an odd size.

    Args:
        x: Map (N, C, h, w).
        size: Height and width of the skip.
        align: "resize" interpolates; "pad" adds zeros, half before and half after (or crops, if x is larger).
    """
    rows, columns = size[0] - x.shape[-2], size[1] - x.shape[-1]
    if _holds(rows == 0) and _holds(columns == 0):
        return x
    if align == "resize":
        return F.interpolate(x, size=list(size), mode="bilinear", align_corners=False)
    return F.pad(x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])


def _holds(condition: bool) -> bool:
    """Whether a condition holds or, with symbolic sizes, always holds, so that one compiled graph serves all sizes."""
    if torch.compiler.is_compiling():
        from torch.fx.experimental.symbolic_shapes import statically_known_true

        return statically_known_true(condition)
    return condition


class Encoder(nn.Module, EncoderMixin):
    """One block per level with 2×2 max-pooling in between; returns the map of every level, finest first.

    Like SMP's VGG encoders, its first map has stride 1.

    Args:
        in_channels: Channels of the image.
        channels: Channels of each level, finest first.
        block: Builds a level's module from (input channels, output channels, level).
    """

    _is_torch_scriptable = False  # like our networks: TorchScript is deprecated

    def __init__(self, in_channels: int, channels: Sequence[int], block: Callable[[int, int, int], nn.Module]) -> None:
        super().__init__()
        inputs = (in_channels, *channels[:-1])
        self.blocks = nn.ModuleList(
            block(*pair, level) for level, pair in enumerate(zip(inputs, channels, strict=True))
        )
        self.pool = nn.MaxPool2d(2)
        self._out_channels = list(channels)
        self._in_channels = in_channels
        self._depth = len(channels) - 1
        self._output_stride = 2**self._depth

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) → one map per level."""
        features = []
        for level, block in enumerate(self.blocks):
            x = block(x if level == 0 else self.pool(x))
            features.append(x)
        return features

    def make_dilated(self, output_stride: int) -> None:
        """Check the stride, which is fixed by the depth, since max-pooling cannot be replaced with dilation.

        Raises:
            ConfigError: The stride is not 2^depth.
        """
        if output_stride == self._output_stride:
            return
        raise ConfigError(
            "this encoder cannot be dilated",
            expected=f"output_stride {self._output_stride}",
            found=output_stride,
            hint="choose a depth with 2^depth = output_stride, or choose a strided encoder",
        )


def table_widths(channels: Sequence[int], depth: int, output_stride: int) -> tuple[int, ...]:
    """Return the widths for SMP's depths 1–5; the last width is repeated beyond the network's own depth.

    Raises:
        ConfigError: Invalid depth or output stride.

    Examples:
        >>> table_widths((64, 128, 256, 512, 1024), depth=5, output_stride=32)
        (64, 128, 256, 512, 1024, 1024)
    """
    one_of("encoder depth", depth, (1, 2, 3, 4, 5))
    one_of("output_stride", output_stride, (8, 16, 32))  # make_dilated rejects the smaller ones
    return (*channels, *[channels[-1]] * 5)[: depth + 1]


class Decoder(nn.Module):
    """Decoder that, from the coarsest map up, up-samples, matches the skip's size, concatenates and convolves.

    Args:
        ups: One up-sampling module per level, coarsest first.
        blocks: One block per level, coarsest first; each takes the maps to concatenate.
        align: How sizes are matched ("resize" or "pad", see `match_size`).
        concat: Order of the concatenation, "skip-up" or "up-skip".
    """

    corners: Sequence[tuple[int, int]] | None = None  # set on copies that decode a region, see `regions.py`

    def __init__(
        self, ups: Iterable[nn.Module], blocks: Iterable[nn.Module], align: str = "resize", concat: str = "skip-up"
    ) -> None:
        super().__init__()
        one_of("align", align, ("resize", "pad"))
        one_of("concat", concat, ("skip-up", "up-skip"))
        self.ups, self.blocks = nn.ModuleList(ups), nn.ModuleList(blocks)
        self.align, self.skip_first = align, concat == "skip-up"

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps of all levels, finest first → one map at the finest size."""
        x = features[-1]
        for level, (up, skip) in enumerate(zip(self.ups, features[-2::-1], strict=True)):
            x = self.fit(level, up(x), skip.shape[-2:])  # a separate statement frees the coarser map before the block
            x = self.merge(level, x, skip)
        return x

    def fit(self, level: int, x: Tensor, size: Sequence[int]) -> Tensor:
        """Match an up-sampled map to the size of its skip."""
        if self.corners is None:
            return match_size(x, size, self.align)
        top, left = self.corners[level]
        return x[..., top : top + size[0], left : left + size[1]]

    def merge(self, level: int, x: Tensor, skip: Tensor) -> Tensor:
        """Apply the level's block to the skip and the up-sampled map."""
        return self.blocks[level](skip, x) if self.skip_first else self.blocks[level](x, skip)


def crop_center(x: Tensor, size: Sequence[int]) -> Tensor:
    """Crop the center (height, width) of a map.

    Raises:
        InputShapeError: The map is smaller.
    """
    top, left = (x.shape[-2] - size[0]) // 2, (x.shape[-1] - size[1]) // 2
    if top < 0 or left < 0:
        raise InputShapeError("cannot crop", expected=f"at least {tuple(size)}", found=tuple(x.shape[-2:]))
    return x[..., top : top + size[0], left : left + size[1]]
