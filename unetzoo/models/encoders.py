"""Encoders of SMP's table and of timm, plain vision transformers included, for decoders of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from segmentation_models_pytorch.encoders import encoders as smp_table
from segmentation_models_pytorch.encoders import get_encoder
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError, UnetzooError, UnknownNameError, did_you_mean
from .blocks import ConvUnit, Decoder, DoubleConv, HiddenAct
from .pretrained import downloading, start_encoder, weights_file

DECODER = (256, 128, 64, 32, 16)  # SMP's decoder widths, coarsest first
PLAIN_TRANSFORMERS = ("vision_transformer", "eva", "deit")  # modules of timm
TRANSFORMER_STRIDE = 16
STEM = (32, 64)  # channels at strides 1 and 2 beside a transformer


def plain_decoder(encoded: Sequence[int], decoded: Sequence[int], hidden_act: HiddenAct, align: str) -> Decoder:
    """Decoder of transposed convolutions and double convolutions, for skips of any width.

    Args:
        encoded: Channels of each map of the encoder, finest first; may be 0 (dummy maps of some encoders).
        decoded: Channels of each level of the decoder, coarsest first; as many as levels are decoded.
        hidden_act: Non-linearity of the units.
        align: How an up-sampled map is matched to a skip of odd size.
    """
    skips = list(encoded[-2::-1])[: len(decoded)]
    coarse = (encoded[-1], *decoded)
    ups = [nn.ConvTranspose2d(inputs, outputs, 2, stride=2) for inputs, outputs in zip(coarse, decoded, strict=False)]
    blocks = [
        DoubleConv(skip + width, width, hidden_act=hidden_act) for skip, width in zip(skips, decoded, strict=True)
    ]
    return Decoder(ups, blocks, align)


class TransformerPyramid(nn.Module):
    """A feature pyramid from the last map of a plain vision transformer, and two convolutions of the image.

    Images of any size are resized so that the tokens have stride 16, also for patches of 14 pixels.

    Args:
        transformer: A vision transformer of timm.
        in_channels: Channels of the image.
        depth: 4 or 5: the coarsest map has stride 16 or 32.

    Shape:
        (N, in_channels, H, W) → maps of strides 1, 2, 4, 8, 16 and, at depth 5, 32.

    Source:
        Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection", 2022, section 3.
    """

    def __init__(self, transformer: Any, in_channels: int, depth: int) -> None:
        super().__init__()
        width = transformer.embed_dim
        self.model, self.patch = transformer, transformer.patch_embed.patch_size[0]
        self.stem = nn.ModuleList([ConvUnit(in_channels, STEM[0]), ConvUnit(STEM[0], STEM[1])])
        self.up = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(a, b, 2, stride=2), nn.BatchNorm2d(b), nn.GELU())
            for a, b in ((width, width // 2), (width // 2, width // 4))
        )
        self.depth = depth
        self.out_channels = [*STEM, width // 4, width // 2, *[width] * (depth - 3)]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of all levels, finest first."""
        fine = self.stem[0](x)
        half = self.stem[1](F.max_pool2d(fine, 2, ceil_mode=True))
        sides = [-(-side // TRANSFORMER_STRIDE) * self.patch for side in x.shape[-2:]]
        resized = F.interpolate(x, size=sides, mode="bilinear", align_corners=False)
        tokens = self.model.forward_intermediates(resized, indices=1, norm=True, intermediates_only=True)[-1]
        eighth = self.up[0](tokens)
        maps = [fine, half, self.up[1](eighth), eighth, tokens]
        return [*maps, F.max_pool2d(tokens, 2, ceil_mode=True)] if self.depth == 5 else maps


def foreign_encoder(name: str, in_channels: int, depth: int, weights: str | None) -> Any:
    """Build an encoder of SMP's table or of timm (`tu-…`) whose maps have strides 1, 2, 4, …

    Args:
        name: Name of the encoder; of a plain vision transformer, a `TransformerPyramid` is built.
        in_channels: Channels of the image.
        depth: Number of halvings.
        weights: Name or file of pretrained weights, or None.

    Raises:
        UnknownNameError: No such encoder.
        ConfigError: Its maps are no usable pyramid.
    """
    import timm

    if name not in smp_table and not (name.startswith("tu-") and timm.is_model(name[3:])):
        choices = [*smp_table, *("tu-" + model for model in timm.list_models())]
        raise UnknownNameError(f"unknown encoder {name!r}", hint=did_you_mean(name, choices, "encoder"))
    try:
        file = weights_file(weights)
        named = weights if file is None else None
        with downloading(name, named):
            if _is_plain_transformer(name):
                net = _transformer(name, in_channels, depth, named)
            else:
                net = get_encoder(name, in_channels=in_channels, depth=depth, weights=named)
        if file is not None:
            start_encoder(net, file)
        expected, found = pyramid(net, in_channels)
    except UnetzooError:
        raise
    except Exception as error:  # hundreds of architectures by other hands: each fails in its own way
        raise _no_pyramid(name, f"{type(error).__name__}: {error}") from error
    if found != expected:
        raise _no_pyramid(name, found)
    return net


def _is_plain_transformer(name: str) -> bool:
    import timm

    module = timm.model_entrypoint(name[3:]).__module__ if name.startswith("tu-") else ""
    return module.rpartition(".")[2] in PLAIN_TRANSFORMERS


def _transformer(name: str, in_channels: int, depth: int, weights: str | None) -> TransformerPyramid:
    import timm

    if depth not in (4, 5):
        raise ConfigError("wrong encoder_depth", subject=name, expected="4 or 5 for a vision transformer", found=depth)
    net = timm.create_model(
        name[3:], pretrained=weights is not None, in_chans=in_channels, num_classes=0, dynamic_img_size=True
    )
    return TransformerPyramid(net, in_channels, depth)


def pyramid(net: Any, in_channels: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(channels, stride) of each map, declared by an encoder, and measured."""
    size = 4 * 2 ** (len(net.out_channels) - 1)
    probe = torch.zeros(1, in_channels, size, size, device=next(net.parameters()).device)
    with torch.no_grad():
        features = net.eval()(probe)
    net.train()
    declared = [(channels, 2**level) for level, channels in enumerate(net.out_channels)]
    return declared, [(feature.shape[1], size // feature.shape[-1]) for feature in features]


def _no_pyramid(name: str, found: object) -> ConfigError:
    return ConfigError(
        f"the encoder {name!r} gives no usable pyramid",
        expected="maps of the declared channels at strides 1, 2, 4, … for any image size",
        found=found,
        hint="choose a convolutional encoder, e.g. resnet18 or tu-convnext_atto, or another encoder_depth",
    )
