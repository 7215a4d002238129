"""Pieces that two or more of these networks share."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn.functional import interpolate

from unetzoo.errors import ConfigError


def one_of(name: str, value: object, choices: Sequence[object]) -> None:
    """Refuse a value that is not among the choices.

    Raises:
        ConfigError: With the choices.
    """
    if value not in choices:
        raise ConfigError(f"wrong {name}", expected=" or ".join(map(repr, choices)), found=repr(value))


def widths(name: str, channels: Sequence[int], least: int = 2, most: int | None = None) -> tuple[int, ...]:
    """Check channels, one number per level.

    Raises:
        ConfigError: Too few or too many levels, or a width below 1.
    """
    levels = tuple(channels) if isinstance(channels, Sequence) else ()
    many = len(levels) < least or (most is not None and len(levels) > most)
    if many or any(isinstance(width, bool) or not isinstance(width, int) or width < 1 for width in levels):
        count = f"{least}" if least == most else f"{least} or more"
        raise ConfigError(f"wrong {name}", expected=f"{count} positive integers, finest level first", found=channels)
    return levels


class ConvUnit(nn.Sequential):
    """3×3 convolution, batch norm (unless `norm` is off) and ReLU."""

    def __init__(self, inputs: int, outputs: int, *, dilation: int = 1, norm: bool = True) -> None:
        conv = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation)
        super().__init__(conv, *([nn.BatchNorm2d(outputs)] if norm else []), nn.ReLU(inplace=True))


class DoubleConv(nn.Sequential):
    """Two `ConvUnit`s."""

    def __init__(self, inputs: int, outputs: int, *, norm: bool = True) -> None:
        super().__init__(ConvUnit(inputs, outputs, norm=norm), ConvUnit(outputs, outputs, norm=norm))


class UpConv(nn.Sequential):
    """Nearest ×2, then a `ConvUnit`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Upsample(scale_factor=2, mode="nearest"), ConvUnit(inputs, outputs))


class Encoder(nn.Module):
    """One module per level; returns every level's map, finest first.

    Args:
        in_channels: Channels of the image.
        channels: Channels of each level, finest first.
        block: Makes a level's module from (input channels, output channels, level).
        pool: The layer between two levels; none for blocks that reduce the size themselves.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        block: Callable[[int, int, int], nn.Module],
        pool: nn.Module | None = None,
    ) -> None:
        super().__init__()
        pairs = zip((in_channels, *channels[:-1]), channels, strict=True)
        self.blocks = nn.ModuleList(block(*pair, level) for level, pair in enumerate(pairs))
        self.pool = pool or nn.Identity()
        self.out_channels, self.output_stride = list(channels), 2 ** (len(channels) - 1)
        he_normal_(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) → one map per level."""
        features = []
        for level, block in enumerate(self.blocks):
            x = block(x if level == 0 else self.pool(x))
            features.append(x)
        return features


def he_normal_(module: nn.Module) -> None:
    """Draw every convolution from N(0, √(2/N)), N = its incoming nodes, as `initialize` does in a decoder."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def resized(x: Tensor, like: Tensor) -> Tensor:
    """A map brought to another's height and width, bilinearly."""
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
