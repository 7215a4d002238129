"""The checkpoints of the authors whose networks these are: how each is recognized, and where its tensors belong."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unetzoo.models import WeightLayout

State = Mapping[str, Tensor]
STEPS = "the number of recurrent steps: 2 by the class's default, 3 by the author's training script"
TWICE = {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1"}  # two units in one Sequential → `DoubleConv`


def block(theirs: str, ours: str, inner: Mapping[str, str]) -> dict[str, str]:
    """The names of a block's layers."""
    return {f"{theirs}.{name}": f"{ours}.{own}" for name, own in inner.items()}


def count(state: State, name: str) -> int:
    """How many numbers from 1 on, put into `name`, give a tensor of the checkpoint."""
    found = 0
    while name.format(found + 1) in state:
        found += 1
    return found


def width(state: State, name: str) -> int:
    """Output channels of a convolution."""
    return state[f"{name}.weight"].shape[0]


# ------------------------------------------------------------------------------------ LeeJunHyun's Image_Segmentation


def attention_config(state: State, unit: str = "Conv{}.conv.0", first: str = "Conv1.conv.0") -> dict[str, Any]:
    """Arguments of `AttentionUNet`."""
    levels = range(1, count(state, f"{unit}.weight") + 1)
    return {
        "in_channels": state[f"{first}.weight"].shape[1],
        "classes": width(state, "Conv_1x1"),
        "encoder_channels": [width(state, unit.format(level)) for level in levels],
    }


def recurrent_config(state: State) -> dict[str, Any]:
    """Arguments of `R2AttentionUNet`, but for `t`."""
    return attention_config(state, "RRCNN{}.Conv_1x1", "RRCNN1.Conv_1x1")


def lee_names(state: State, unit: str, up: str, inner: Mapping[str, str], levels: int) -> dict[str, str]:
    """Levels are counted from 1; an up-sampling layer has the number of the level below it."""
    names = {"Conv_1x1": "segmentation_head.0"}
    gate = {"W_g": "gating", "W_x": "skip", "psi.0": "attention.1", "psi.1": "attention.2"}
    for level in range(1, levels + 1):
        place = levels - level
        names |= block(unit.format(level), f"encoder.blocks.{level - 1}", inner)
        names |= block(up.format(level), f"decoder.blocks.{place}", inner)
        names |= block(f"Up{level}.up", f"decoder.ups.{place}.1", {"1": "0", "2": "1"})
        names |= block(f"Att{level}", f"decoder.gates.{place}", gate)
    return names


def attention_names(state: State) -> dict[str, str]:
    """LeeJunHyun's names → `AttentionUNet`'s."""
    return lee_names(state, "Conv{}.conv", "Up_conv{}.conv", TWICE, count(state, "Conv{}.conv.0.weight"))


def recurrent_names(state: State) -> dict[str, str]:
    """LeeJunHyun's names → `R2AttentionUNet`'s."""
    inner = {"Conv_1x1": "project"}
    inner |= {f"RCNN.{n}.conv.{layer}": f"layers.{n}.unit.{layer}" for n in range(2) for layer in range(2)}
    return lee_names(state, "RRCNN{}", "Up_RRCNN{}", inner, count(state, "RRCNN{}.Conv_1x1.weight"))


# ------------------------------------------------------------------------------------------- 4uiiurz1's NestedUNet


def nested_config(state: State) -> dict[str, Any]:
    """Arguments of `UNetPlusPlus`."""
    levels = count(state, "conv0_{}.conv1.weight") + 1
    return {
        "in_channels": state["conv0_0.conv1.weight"].shape[1],
        "classes": width(state, "final"),
        "encoder_channels": [width(state, f"conv{level}_0.conv2") for level in range(levels)],
        "up": "bilinear",
    }


def nested_names(state: State) -> dict[str, str]:
    """Node (level, place): its names → ours."""
    inner = {"conv1": "0.0", "bn1": "0.1", "conv2": "1.0", "bn2": "1.1"}
    levels = count(state, "conv0_{}.conv1.weight") + 1
    names = {"final": "segmentation_head.0"}
    for i in range(levels):
        names |= block(f"conv{i}_0", f"encoder.blocks.{i}", inner)
        for j in range(1, levels - i):
            names |= block(f"conv{i}_{j}", f"decoder.nodes.{i}_{j}", inner)
    return names


# ------------------------------------------------------------------------------------------- xuebinqin's U-2-Net


def u2net_config(state: State) -> dict[str, Any]:
    """Arguments of `U2Net`; the authors' networks return probabilities."""
    return {
        "in_channels": state["stage1.rebnconvin.conv_s1.weight"].shape[1],
        "classes": width(state, "outconv"),
        "encoder_channels": [width(state, f"stage{n}.rebnconvin.conv_s1") for n in range(1, 7)],
        "mid_channels": [width(state, f"stage{n}.rebnconv1.conv_s1") for n in range(1, 7)],
        "decoder_mid_channels": [width(state, f"stage{n}d.rebnconv1.conv_s1") for n in range(1, 6)],
        "activation": "sigmoid",
    }


def u2net_names(state: State) -> dict[str, str]:
    """Stages and sides are counted from 1; so are the layers of a unit, on the way up with a "d"."""
    names = {"outconv": "segmentation_head.0"}
    for n in range(1, 7):
        names[f"side{n}"] = f"decoder.sides.{n - 1}"
        names |= unit_names(state, f"stage{n}", f"encoder.blocks.{n - 1}")
        names |= unit_names(state, f"stage{n}d", f"decoder.stages.{n - 1}")
    return names


def unit_names(state: State, theirs: str, ours: str) -> dict[str, str]:
    """The layers of a residual U-block; the deepest of the way down is the bottom."""
    layer = {"conv_s1": "0", "bn_s1": "1"}
    height = count(state, theirs + ".rebnconv{}.conv_s1.weight")
    names = block(f"{theirs}.rebnconvin", f"{ours}.entry", layer)
    names |= block(f"{theirs}.rebnconv{height}", f"{ours}.bottom", layer)
    for level in range(1, height):
        names |= block(f"{theirs}.rebnconv{level}", f"{ours}.down.{level - 1}", layer)
        names |= block(f"{theirs}.rebnconv{level}d", f"{ours}.up.{height - 1 - level}", layer)
    return names


ATTENTION = {
    "leejunhyun-attention-unet": WeightLayout(
        "LeeJunHyun's AttU_Net",
        ("Conv1.conv.0.weight", "Att2.psi.0.weight", "Conv_1x1.weight"),
        attention_config,
        attention_names,
    )
}
R2ATTENTION = {
    "leejunhyun-r2attention-unet": WeightLayout(
        "LeeJunHyun's R2AttU_Net",
        ("RRCNN1.Conv_1x1.weight", "Att2.psi.0.weight", "Conv_1x1.weight"),
        recurrent_config,
        recurrent_names,
        asks={"t": STEPS},
    )
}
NESTED = {
    "4uiiurz1-nested-unet": WeightLayout(
        "4uiiurz1's NestedUNet", ("conv0_0.conv1.weight", "conv0_1.conv1.weight", "final.weight"),
        nested_config, nested_names,
    )
}  # fmt: skip
U2NET = {
    "u2net": WeightLayout(
        "the authors' U2NET or U2NETP", ("stage1.rebnconvin.conv_s1.weight", "side6.weight", "outconv.weight"),
        u2net_config, u2net_names,
    )
}  # fmt: skip
