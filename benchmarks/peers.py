"""The networks that ours are compared with: plain versions of common definitions, and those of other libraries.

The plain definitions have the same parameters in the same order as ours (encoder, up-sampling, decoder, head), so
weights can be copied one by one and outputs compared.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512, 1024)


def double_conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
    )  # fmt: skip


class CommonUNet(nn.Module):
    """The padded U-Net with batch norm and transposed convolutions, as in most repositories."""

    def __init__(self, in_channels: int = 3, classes: int = 1) -> None:
        super().__init__()
        self.down = nn.ModuleList(double_conv(i, o) for i, o in zip((in_channels, *WIDTHS[:-1]), WIDTHS, strict=True))
        pairs = list(zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for coarse, fine in pairs)
        self.conv = nn.ModuleList(double_conv(2 * fine, fine) for _, fine in pairs)
        self.out = nn.Conv2d(WIDTHS[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        skips.pop()
        for up, block in zip(self.up, self.conv, strict=True):
            x = block(torch.cat([skips.pop(), up(x)], dim=1))
        return self.out(x)


class RecurrentBlock(nn.Module):
    """The recurrent unit of the common implementation: t + 1 applications of one convolution with its norm."""

    def __init__(self, channels: int, t: int) -> None:
        super().__init__()
        self.t = t
        self.conv = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        for _ in range(self.t):
            y = self.conv(x + y)
        return y


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, t: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(inputs, outputs, 1)
        self.layers = nn.Sequential(RecurrentBlock(outputs, t), RecurrentBlock(outputs, t))

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)
        return x + self.layers(x)


class CommonR2UNet(nn.Module):
    """R2U-Net as in most repositories, t = 2."""

    def __init__(self, in_channels: int = 3, classes: int = 1, t: int = 2) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            ResidualBlock(i, o, t) for i, o in zip((in_channels, *WIDTHS[:-1]), WIDTHS, strict=True)
        )
        pairs = list(zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True))
        self.up = nn.ModuleList(
            nn.Sequential(
                nn.Upsample(scale_factor=2), nn.Conv2d(coarse, fine, 3, padding=1), nn.BatchNorm2d(fine),
                nn.ReLU(inplace=True),
            )
            for coarse, fine in pairs
        )  # fmt: skip
        self.conv = nn.ModuleList(ResidualBlock(2 * fine, fine, t) for _, fine in pairs)
        self.out = nn.Conv2d(WIDTHS[0], classes, 1)

    forward = CommonUNet.forward


SAME: dict[str, Callable[..., nn.Module]] = {"bnunet": CommonUNet, "r2unet": CommonR2UNet}


def same(name: str, net: nn.Module, **config: Any) -> nn.Module:
    """The common definition of one of our networks, with the same weights, statistics and mode."""
    peer = SAME[name](**config)
    state = dict(zip(peer.state_dict(), net.state_dict().values(), strict=True))
    peer.load_state_dict(state)
    return peer.train(net.training)


def others(in_channels: int, classes: int) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Similar networks of other libraries that are installed, with a note on each."""
    import segmentation_models_pytorch as smp

    nets: dict[str, nn.Module] = {
        "SMP Unet, resnet34": smp.Unet("resnet34", encoder_weights=None, in_channels=in_channels, classes=classes)
    }
    notes = {"SMP Unet, resnet34": "another, smaller network: for scale"}
    if find_spec("monai"):
        from monai.networks.nets.basic_unet import BasicUNet

        nets["MONAI BasicUNet"] = BasicUNet(2, in_channels, classes, features=(*WIDTHS, WIDTHS[0]), norm="batch")
        notes["MONAI BasicUNet"] = "the same widths, leaky ReLU and biases"
    if find_spec("dynamic_network_architectures"):
        from dynamic_network_architectures.architectures.unet import PlainConvUNet  # pyright: ignore

        nets["nnU-Net PlainConvUNet"] = PlainConvUNet(
            in_channels, len(WIDTHS), WIDTHS, nn.Conv2d, 3, [1, 2, 2, 2, 2], 2, classes, 2, conv_bias=True,
            norm_op=nn.InstanceNorm2d, norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
        )  # fmt: skip
        notes["nnU-Net PlainConvUNet"] = "the same widths, strided convolutions, instance norm, leaky ReLU"
    return nets, notes


def missing() -> str:
    """The peers that are not installed, as text; empty if all are."""
    absent = [name for name, package in {"MONAI": "monai", "nnU-Net": "dynamic_network_architectures"}.items()
              if find_spec(package) is None]  # fmt: skip
    return f"left out, as not installed: {', '.join(absent)}" if absent else ""
