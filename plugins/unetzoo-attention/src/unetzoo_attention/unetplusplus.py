"""UNet++: nested U-Nets of every depth with dense skips between their decoders.

Zhou, Siddiquee, Tajbakhsh, Liang: *UNet++: A Nested U-Net Architecture for Medical Image Segmentation*,
arXiv:1807.10165, figure 1 and equation 1. Node X(i, j) lies at level i; X(i, 0) are the encoder's. The authors' code is
`Nest_Net` (github.com/MrGiovanni/UNetPlusPlus); the common PyTorch one is 4uiiurz1's `NestedUNet`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from unetzoo.errors import ConfigError
from unetzoo.models import Card, Deviation, Geometry, SegmentationModel, classification_head, segmentation_head

from .blocks import DoubleConv, Encoder, one_of, resized, widths
from .facts import output_size, parameters
from .layouts import NESTED
from .supervision import supervised

WIDTHS = (32, 64, 128, 256, 512)


class UNetPlusPlus(SegmentationModel):
    """Nested U-Net, with or without deep supervision.

    With `deep_supervision` each branch X(0, 1) … X(0, L), the end of a U-Net of that depth, has its output, and the
    mask is their mean (the paper's accurate mode). In training mode the output is `Supervised(mask, sides)`, for the
    loss `DeepSupervision`; in evaluation mode only the mask. `pruned(level)` gives the smaller network that ends in
    one branch (the paper's fast mode).

    Args:
        in_channels: Channels of the image.
        classes: Channels of the output.
        encoder_channels: Channels of each level, finest first; their number − 1 is L, the number of poolings.
        deep_supervision: An output for each branch.
        up: "transpose" (2×2 transposed convolution, the authors' code) or "bilinear" (corners aligned, the common
            PyTorch code).
        norm: Batch norm after each 3×3 convolution.
        activation: Of the mask, by SMP's names; side outputs stay logits.
        aux_params: Options of SMP's classification head.

    Shape:
        (N, in_channels, H, W) → (N, classes, H, W) for H, W ≥ 16 at the default depth.

    Raises:
        ConfigError: Wrong arguments.

    Examples:
        >>> net = UNetPlusPlus(classes=2, encoder_channels=(4, 8, 16), deep_supervision=True)
        >>> output = net(torch.zeros(2, 3, 37, 50))
        >>> output.mask.shape, [tuple(side.shape) for side in output.split()]
        (torch.Size([2, 2, 37, 50]), [(2, 2, 37, 50), (2, 2, 37, 50)])
        >>> net.eval()(torch.zeros(2, 3, 37, 50)).shape
        torch.Size([2, 2, 37, 50])
    """

    weight_layouts = NESTED

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        encoder_channels: Sequence[int] = WIDTHS,
        deep_supervision: bool = False,
        up: str = "transpose",
        norm: bool = True,
        activation: str | None = None,
        aux_params: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        one_of("up", up, ("transpose", "bilinear"))
        channels = widths("encoder_channels", encoder_channels)
        depth = len(channels) - 1
        self.encoder = Encoder(in_channels, channels, lambda i, o, _: DoubleConv(i, o, norm=norm), nn.MaxPool2d(2))
        self.decoder = NestedDecoder(channels, up, norm)
        branches = depth if deep_supervision else 1
        self.segmentation_head = segmentation_head(branches * channels[0], classes, activation)
        self.classification_head = classification_head(channels[-1], aux_params)
        self.in_channels, self.name, self.deep_supervision = in_channels, "unetplusplus", deep_supervision
        self.geometry = geometry(depth, up)
        self.initialize()

    def forward(self, x: Tensor) -> Any:
        """Encoder, nested decoder over its skips, 1×1 convolution; with deep supervision one output per branch."""
        self.check_input_shape(x)
        *skips, coarsest = self.encoder(x)
        branches = self.decoder([*skips, coarsest])
        masks = self.supervised(branches) if self.deep_supervision else self.segmentation_head(branches[-1])
        return self.with_labels(masks, coarsest)

    def supervised(self, branches: Sequence[Tensor]) -> Any:
        """The mean of the branches' masks; in training mode with each of them, as `Supervised`."""
        conv, activation = self.segmentation_head
        parts = conv.weight.split(branches[0].shape[1], dim=1)
        sides = [conv2d(x, part, conv.bias, padding=conv.padding) for x, part in zip(branches, parts, strict=True)]
        mask = activation(torch.stack(sides).mean(dim=0))
        return supervised(mask, sides) if self.training else mask

    def pruned(self, level: int) -> "UNetPlusPlus":
        """The network that ends in branch X(0, level), with copies of the weights: shallower, smaller, faster.

        Its mask is that branch's side output. A classification head is left out.

        Raises:
            ConfigError: No such branch; a network without deep supervision, whose other branches were never trained; a
                head of a larger kernel.

        Examples:
            >>> net = UNetPlusPlus(encoder_channels=(4, 8, 16, 32), deep_supervision=True)
            >>> [sum(p.numel() for p in net.pruned(level).parameters()) for level in (1, 2, 3)]
            [1781, 8361, 35197]
        """
        channels, conv = self.encoder.out_channels, self.segmentation_head[0]
        if not self.deep_supervision or level not in range(1, len(channels)) or conv.kernel_size != (1, 1):
            raise ConfigError(
                "cannot prune",
                subject=f"level {level}",
                expected=f"deep_supervision=True, a level of 1…{len(channels) - 1}, a 1×1 convolution as head",
                found=f"deep_supervision={self.deep_supervision}, a kernel of {conv.kernel_size}",
            )
        options = {key: value for key, value in self.config.items() if not key.startswith("_")}
        options |= {"encoder_channels": channels[: level + 1], "classes": conv.out_channels}
        small = UNetPlusPlus(**options | {"deep_supervision": False, "aux_params": None}).to(conv.weight)
        state = self.state_dict()
        state["segmentation_head.0.weight"] = conv.weight.split(channels[0], dim=1)[level - 1]
        state.setdefault("segmentation_head.0.bias", conv.weight.new_zeros(conv.out_channels))
        small.load_state_dict({name: state[name] for name in small.state_dict()})
        return small.train(self.training)


class NestedDecoder(nn.Module):
    """All nodes X(i, j), j ≥ 1: the nodes before it at its level and the up-sampled node below, convolved.

    Args:
        channels: Of each level, finest first.
        up: "transpose" or "bilinear".
        norm: Batch norm in the convolutions.
    """

    def __init__(self, channels: Sequence[int], up: str, norm: bool) -> None:
        super().__init__()
        self.ups, self.nodes = nn.ModuleDict(), nn.ModuleDict()
        self.depth = len(channels) - 1
        for i, j in self.order():
            fine, coarse = channels[i], channels[i + 1]
            below = fine if up == "transpose" else coarse
            self.ups[f"{i}_{j}"] = up_sampling(up, coarse, fine)
            self.nodes[f"{i}_{j}"] = DoubleConv(j * fine + below, fine, norm=norm)

    def order(self) -> list[tuple[int, int]]:
        """(level, place) of each node, each after those it needs."""
        return [(i, j) for j in range(1, self.depth + 1) for i in range(self.depth - j + 1)]

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Maps of all levels, finest first → the branches X(0, 1) … X(0, L)."""
        rows = [[feature] for feature in features]
        for i, j in self.order():
            row = rows[i]
            below = resized(self.ups[f"{i}_{j}"](rows[i + 1][j - 1]), row[0])
            row.append(self.nodes[f"{i}_{j}"](torch.cat([*row, below], dim=1)))
        return rows[0][1:]


def up_sampling(up: str, coarse: int, fine: int) -> nn.Module:
    """×2, to the finer level's width, or bilinearly and as wide as it was."""
    if up == "transpose":
        return nn.ConvTranspose2d(coarse, fine, 2, stride=2)
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)


def geometry(depth: int, up: str) -> Geometry:
    """Sizes and reach; bilinear weights with aligned corners depend on the image's size, so no window is exact."""
    unbounded = {"halo": None, "receptive_field": None} if up == "bilinear" else {}
    return Geometry.of_unet(encoder=[2] * (depth + 1), decoder=[2] * depth, up=[(0, 0)] * depth, **unbounded)


UNetPlusPlus.card = Card(
    title="UNet++",
    paper="UNet++: A Nested U-Net Architecture for Medical Image Segmentation",
    authors="Zongwei Zhou, Md Mahfuzur Rahman Siddiquee, Nima Tajbakhsh, Jianming Liang",
    year=2018,
    source="arXiv:1807.10165",
    figure="Figure 1",
    faithful="Widths 32…512, dense skips and deep supervision at full resolution; "
    "in_channels=1, norm=False is the authors' network to the parameter.",
    deviations=(
        Deviation(
            paper="No batch normalization in the authors' code, but dropout.",
            ours="Batch norm after each 3×3 convolution, no dropout; norm=False leaves it out.",
            reason="The common PyTorch implementation; trains at larger rates.",
        ),
        Deviation(
            paper="The branches' probabilities are averaged.",
            ours="Their logits are averaged.",
            reason="Losses and metrics read logits.",
        ),
        Deviation(
            paper="A 1×1 convolution for each branch.",
            ours="One over all branches side by side, of which each branch uses its part; they share the bias.",
            reason="`segmentation_head[0]` can be replaced for other classes; the mean of all is that one layer.",
        ),
    ),
    facts=(
        parameters(9_041_601, "the authors' Nest_Net, 9.04 M in the paper", in_channels=1, norm=False),
        parameters(9_163_329, "4uiiurz1 NestedUNet", up="bilinear"),
        parameters(9_049_473, "as built by default"),
        output_size(256),
        output_size(101),
    ),
)
