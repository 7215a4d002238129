"""The network: JSON-serializable keywords in, logits (N, classes, H, W) out."""

from torch import Tensor, cat, nn
from torch.nn.functional import interpolate, max_pool2d

from unetzoo.errors import ConfigError
from unetzoo.models import SegmentationModel


class SeparableUNet(SegmentationModel):
    """A U-Net of depthwise separable convolutions; any size in, the same size out.

    Args:
        in_channels: Channels of the image.
        classes: Number of classes.
        width: Channels of the first level; each further level has twice as many.
        levels: Number of levels.
    """

    def __init__(self, in_channels: int = 3, classes: int = 1, width: int = 16, levels: int = 4) -> None:
        super().__init__()
        if classes < 1 or width < 1 or levels < 2:
            found = f"classes={classes}, width={width}, levels={levels}"
            raise ConfigError("invalid size", expected="classes ≥ 1, width ≥ 1, levels ≥ 2", found=found)
        widths = [width * 2**level for level in range(levels)]
        self.encoder = Encoder(in_channels, widths)
        self.decoder = Decoder(widths)
        self.segmentation_head = nn.Sequential(nn.Conv2d(width, classes, 1))
        self.classification_head = None
        self.in_channels, self.name = in_channels, "unetzoo-template-net"
        self.initialize()


class Encoder(nn.Module):
    """One unit per level, with pooling in between; returns the feature maps of all levels, finest first."""

    def __init__(self, in_channels: int, widths: list[int]) -> None:
        super().__init__()
        self.units = nn.ModuleList(unit(*pair) for pair in zip([in_channels, *widths], widths, strict=False))
        self.out_channels, self.output_stride = widths, 2 ** (len(widths) - 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Image → feature maps."""
        maps: list[Tensor] = []
        for layer in self.units:
            x = layer(max_pool2d(x, 2, ceil_mode=True) if maps else x)
            maps.append(x)
        return maps


class Decoder(nn.Module):
    """Upsample to the size of the finer map, concatenate, convolve."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.units = nn.ModuleList(
            unit(coarse + fine, fine) for fine, coarse in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Feature maps → one map at the finest level."""
        x = maps[-1]
        for layer, finer in zip(self.units, maps[-2::-1], strict=True):
            x = layer(cat([interpolate(x, finer.shape[-2:]), finer], 1))
        return x


def unit(inputs: int, outputs: int) -> nn.Sequential:
    """Depthwise 3×3 convolution, pointwise convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
