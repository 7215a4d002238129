"""Layouts of third-party checkpoints: how to recognize them, and how to map their tensors to our networks.

A network, built-in or from a plugin, lists the layouts it supports in its class attribute `weight_layouts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class WeightLayout:
    """Naming scheme of a third-party checkpoint.

    Args:
        title: Name of the original network.
        has: Tensors that every such checkpoint contains.
        configure: Function from the tensors to the arguments of our network.
        names: Function from the tensors to a mapping of their module names to ours. A name applies to all submodules.
        lacks: Prefixes of names that occur only in variants of this network.
        asks: Arguments not determined by the tensors, each with a hint on where to find its value.

    Examples:
        >>> layout = WeightLayout(
        ...     "somebody's network",
        ...     has=("first.weight",),
        ...     configure=lambda state: {"classes": state["last.weight"].shape[0]},
        ...     names=lambda state: {"first": "encoder.blocks.0.0.0", "last": "segmentation_head.0"},
        ... )
        >>> layout.fits({"other.weight": None})
        False
    """

    title: str
    has: tuple[str, ...]
    configure: Callable[[State], dict[str, Any]]
    names: Callable[[State], Mapping[str, str]]
    lacks: tuple[str, ...] = ()
    asks: Mapping[str, str] = field(default_factory=dict)

    def fits(self, state: State) -> bool:
        """Whether the tensors' names match this layout."""
        return all(name in state for name in self.has) and not any(name.startswith(self.lacks) for name in state)


def rename(module: str, names: Mapping[str, str]) -> str:
    """Rename a module by replacing the longest known prefix of its name.

    Examples:
        >>> rename("left.0.conv", {"left": "encoder", "left.0": "encoder.blocks.0"})
        'encoder.blocks.0.conv'
    """
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if (start := ".".join(parts[:length])) in names:
            return ".".join([names[start], *parts[length:]])
    return module


CONV_NORM_ACT = {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1"}  # two units in one Sequential → `DoubleConv`
CONV_ACT_NORM = {"0": "0.0", "2": "0.2", "3": "1.0", "5": "1.2"}


def block(theirs: str, ours: str, inner: Mapping[str, str] = CONV_NORM_ACT) -> dict[str, str]:
    """Map the names of a block's layers to ours."""
    return {f"{theirs}.{name}": f"{ours}.{own}" for name, own in inner.items()}


def count_levels(state: State, name: str, start: int = 1) -> int:
    """Count the consecutive numbers for which `name`, formatted with the number, is a tensor of the checkpoint."""
    found = 0
    while name.format(start + found) in state:
        found += 1
    return found


def widths(state: State, names: Iterable[str]) -> list[int]:
    """Return the output channels of convolutions."""
    return [state[name].shape[0] for name in names]


def ends(state: State, first: str, last: str) -> dict[str, int]:
    """Return the image channels and number of classes, from the first and last convolution."""
    return {"in_channels": state[first].shape[1], "classes": state[last].shape[0]}


# ------------------------------------------------------------------------- milesial's Pytorch-UNet, and Helen's system


def _milesial_config(state: State) -> dict[str, Any]:
    depth = count_levels(state, "down{}.maxpool_conv.1.double_conv.3.weight")
    downs = [f"down{level}.maxpool_conv.1" for level in range(1, depth + 1)]
    channels = widths(state, (f"{unit}.double_conv.3.weight" for unit in ("inc", *downs)))
    bilinear = "up1.up.weight" not in state
    return {
        **ends(state, "inc.double_conv.0.weight", "outc.conv.weight"),
        "encoder_channels": [*channels[:-1], channels[-1] * (2 if bilinear else 1)],
        "conv_bias": "inc.double_conv.0.bias" in state,
        "align": "pad",
        **({"up": "bilinear", "width_factor": 2} if bilinear else {}),
    }


def _milesial_names(state: State) -> dict[str, str]:
    names = {**block("inc.double_conv", "encoder.blocks.0"), "outc.conv": "segmentation_head.0"}
    for level in range(1, count_levels(state, "down{}.maxpool_conv.1.double_conv.3.weight") + 1):
        names |= block(f"down{level}.maxpool_conv.1.double_conv", f"encoder.blocks.{level}")
        names |= block(f"up{level}.conv.double_conv", f"decoder.blocks.{level - 1}")
        names[f"up{level}.up"] = f"decoder.ups.{level - 1}"
    return names


def _helen_config(state: State) -> dict[str, Any]:
    return {**_milesial_config(state), "hidden_act": {"type": "leaky_relu", "negative_slope": 0.05}}


# ------------------------------------------------------------------------------------ LeeJunHyun's Image_Segmentation


def _lee_config(state: State) -> dict[str, Any]:
    levels = range(1, count_levels(state, "Conv{}.conv.3.weight") + 1)
    return {
        **ends(state, "Conv1.conv.0.weight", "Conv_1x1.weight"),
        "encoder_channels": widths(state, (f"Conv{level}.conv.3.weight" for level in levels)),
        "conv_bias": True,
        "up": "upsample_conv",
    }


def _lee_names(state: State) -> dict[str, str]:
    levels = count_levels(state, "Conv{}.conv.3.weight")
    names = {"Conv_1x1": "segmentation_head.0"}
    for level in range(1, levels + 1):
        names |= block(f"Conv{level}.conv", f"encoder.blocks.{level - 1}")
        names |= block(f"Up_conv{level}.conv", f"decoder.blocks.{levels - level}")
        names |= block(f"Up{level}.up", f"decoder.ups.{levels - level}.1", {"1": "0", "2": "1"})
    return names


def _lee_recurrent_config(state: State) -> dict[str, Any]:
    levels = range(1, count_levels(state, "RRCNN{}.Conv_1x1.weight") + 1)
    return {
        **ends(state, "RRCNN1.Conv_1x1.weight", "Conv_1x1.weight"),
        "encoder_channels": widths(state, (f"RRCNN{level}.Conv_1x1.weight" for level in levels)),
    }


def _lee_recurrent_names(state: State) -> dict[str, str]:
    levels = count_levels(state, "RRCNN{}.Conv_1x1.weight")
    unit = {"Conv_1x1": "project", "RCNN": "layers"}
    names = {"Conv_1x1": "segmentation_head.0"}
    for level in range(1, levels + 1):
        names |= block(f"RRCNN{level}", f"encoder.blocks.{level - 1}", unit)
        names |= block(f"Up_RRCNN{level}", f"decoder.blocks.{levels - level}", unit)
        names |= block(f"Up{level}.up", f"decoder.ups.{levels - level}.1", {"1": "0", "2": "1"})
    return names


# ------------------------------------------------------------------------------ mateuszbuda's brain-segmentation U-Net


def _mateuszbuda_config(state: State) -> dict[str, Any]:
    levels = range(1, count_levels(state, "encoder{0}.enc{0}conv2.weight") + 1)
    units = [*(f"encoder{level}.enc{level}conv2" for level in levels), "bottleneck.bottleneckconv2"]
    return {
        **ends(state, "encoder1.enc1conv1.weight", "conv.weight"),
        "encoder_channels": widths(state, (f"{unit}.weight" for unit in units)),
        "concat": "up-skip",
        "activation": "sigmoid",
    }


def _mateuszbuda_names(state: State) -> dict[str, str]:
    depth = count_levels(state, "encoder{0}.enc{0}conv2.weight")
    layers = {"conv1": "0.0", "norm1": "0.1", "conv2": "1.0", "norm2": "1.1"}

    def unit(theirs: str, ours: str) -> dict[str, str]:
        return {f"{theirs}{name}": f"{ours}.{own}" for name, own in layers.items()}

    names = {**unit("bottleneck.bottleneck", f"encoder.blocks.{depth}"), "conv": "segmentation_head.0"}
    for level in range(1, depth + 1):
        names |= unit(f"encoder{level}.enc{level}", f"encoder.blocks.{level - 1}")
        names |= unit(f"decoder{level}.dec{level}", f"decoder.blocks.{depth - level}")
        names[f"upconv{level}"] = f"decoder.ups.{depth - level}"
    return names


# ------------------------------------------------------------------------------------------- the Cityscapes comparison


def _cityscapes_config(state: State) -> dict[str, Any]:
    levels = range(1, count_levels(state, "conv_down{}.3.weight") + 1)
    return {
        **ends(state, "conv_down1.0.weight", "conv_last.weight"),
        "encoder_channels": widths(state, (f"conv_down{level}.3.weight" for level in levels)),
    }


def _cityscapes_unet_config(state: State) -> dict[str, Any]:
    rest = {"conv_bias": True, "up": "bilinear", "order": "conv-act-bn", "concat": "up-skip"}
    return {**_cityscapes_config(state), **rest}


def _cityscapes_ddunet_config(state: State) -> dict[str, Any]:
    return {**_cityscapes_config(state), "variant": "original"}


def _cityscapes_names(state: State) -> dict[str, str]:
    levels = count_levels(state, "conv_down{}.3.weight")
    names = {"conv_last": "segmentation_head.0"}
    for level in range(1, levels + 1):
        names |= block(f"conv_down{level}", f"encoder.blocks.{level - 1}", CONV_ACT_NORM)
        names |= block(f"conv_up{level}", f"decoder.blocks.{levels - 1 - level}", CONV_ACT_NORM)
        names[f"conv_transpose{level}"] = f"decoder.ups.{levels - 1 - level}"
    return names


def _cityscapes_r2unet_config(state: State) -> dict[str, Any]:
    levels = range(count_levels(state, "enc_list.{}.forward_conv.0.weight", start=0))
    return {
        **ends(state, "enc_list.0.forward_conv.0.weight", "conv1x1.0.weight"),
        "encoder_channels": widths(state, (f"enc_list.{level}.forward_conv.0.weight" for level in levels)),
        "variant": "cityscapes",
    }


def _cityscapes_r2unet_names(state: State) -> dict[str, str]:
    inner = {
        "forward_conv": "feed",
        "rec_block1.rec_conv": "layers.0.conv",
        "rec_block2.rec_conv": "layers.1.conv",
    }
    names = {"trans_conv_list": "decoder.ups", "conv1x1": "segmentation_head"}
    for level in range(count_levels(state, "enc_list.{}.forward_conv.0.weight", start=0)):
        names |= block(f"enc_list.{level}", f"encoder.blocks.{level}", inner)
        names |= block(f"dec_list.{level}", f"decoder.blocks.{level}", inner)
    return names


MILESIAL = ("inc.double_conv.0.weight", "outc.conv.weight")
ATTENTION = ("Att",)
STEPS = "the number of recurrent steps: 2 by the class's default, 3 by the author's training script"

BNUNET: Mapping[str, WeightLayout] = {
    "milesial": WeightLayout("milesial's Pytorch-UNet", MILESIAL, _milesial_config, _milesial_names),
    "helen": WeightLayout(
        "the Helen system's U-Net", (*MILESIAL, "inc.double_conv.0.bias"), _helen_config, _milesial_names
    ),
    "leejunhyun-unet": WeightLayout(
        "LeeJunHyun's U_Net",
        ("Conv1.conv.0.weight", "Up_conv2.conv.0.weight", "Conv_1x1.weight"),
        _lee_config,
        _lee_names,
        lacks=ATTENTION,
    ),
    "mateuszbuda": WeightLayout(
        "mateuszbuda's brain-segmentation U-Net",
        ("encoder1.enc1conv1.weight", "conv.weight"),
        _mateuszbuda_config,
        _mateuszbuda_names,
    ),
    "cityscapes-unet": WeightLayout(
        "the Cityscapes comparison's U-Net",
        ("conv_down5.0.weight", "conv_last.weight"),
        _cityscapes_unet_config,
        _cityscapes_names,
    ),
}
R2UNET: Mapping[str, WeightLayout] = {
    "leejunhyun-r2unet": WeightLayout(
        "LeeJunHyun's R2U_Net",
        ("RRCNN1.Conv_1x1.weight", "Up_RRCNN2.Conv_1x1.weight"),
        _lee_recurrent_config,
        _lee_recurrent_names,
        lacks=ATTENTION,
        asks={"t": STEPS},
    ),
    "cityscapes-r2unet": WeightLayout(
        "the Cityscapes comparison's R2U-Net",
        ("enc_list.0.forward_conv.0.weight", "conv1x1.0.weight"),
        _cityscapes_r2unet_config,
        _cityscapes_r2unet_names,
    ),
}
DDUNET: Mapping[str, WeightLayout] = {
    "cityscapes-ddunet": WeightLayout(
        "the Cityscapes comparison's DDU-Net",
        ("conv_transpose3.weight", "conv_last.weight"),
        _cityscapes_ddunet_config,
        _cityscapes_names,
    ),
}
