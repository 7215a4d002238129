"""Whose network a checkpoint is, told by the names of its tensors, and which arguments of ours compute the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

State = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """How one author's network is recognized and which of ours computes the same.

    Args:
        title: Whose network.
        model: The name of ours.
        has: Tensors that only this layout holds.
        lacks: Beginnings of names that tell a relative of it.
        configure: The arguments of ours, from the tensors.
    """

    title: str
    model: str
    has: tuple[str, ...]
    configure: Callable[[State], dict[str, Any]]
    lacks: tuple[str, ...] = ()

    def fits(self, state: State) -> bool:
        """Whether the tensors' names are this layout's."""
        return bool(self.has) and all(k in state for k in self.has) and not any(k.startswith(self.lacks) for k in state)


def recognize(state: State) -> str | None:
    """The layout that the tensors' names tell, if any."""
    return next((name for name, layout in LAYOUTS.items() if layout.fits(state)), None)


def _widths(state: State, names: Iterable[str]) -> list[int]:
    """Channels of each level, from the tensors that end its unit; levels that are not there end the list."""
    return [state[name].shape[0] for name in names if name in state]


def _sides(state: State, first: str, last: str) -> dict[str, int]:
    return {"in_channels": state[first].shape[1], "classes": state[last].shape[0]}


def _milesial(state: State) -> dict[str, Any]:
    channels = _widths(
        state, ("inc.double_conv.3.weight", *(f"down{i}.maxpool_conv.1.double_conv.3.weight" for i in range(1, 9)))
    )
    bilinear = "up1.up.weight" not in state
    return {
        **_sides(state, "inc.double_conv.0.weight", "outc.conv.weight"),
        "encoder_channels": [*channels[:-1], channels[-1] * (2 if bilinear else 1)],
        "conv_bias": "inc.double_conv.0.bias" in state,
        "align": "pad",
        **({"up": "bilinear", "width_factor": 2} if bilinear else {}),
    }


def _leejunhyun_unet(state: State) -> dict[str, Any]:
    return {
        **_sides(state, "Conv1.conv.0.weight", "Conv_1x1.weight"),
        "encoder_channels": _widths(state, (f"Conv{i}.conv.3.weight" for i in range(1, 9))),
        "conv_bias": True,
        "up": "upsample_conv",
    }


def _leejunhyun_r2unet(state: State) -> dict[str, Any]:
    return {
        **_sides(state, "RRCNN1.Conv_1x1.weight", "Conv_1x1.weight"),
        "encoder_channels": _widths(state, (f"RRCNN{i}.Conv_1x1.weight" for i in range(1, 9))),
    }


def _mateuszbuda(state: State) -> dict[str, Any]:
    levels = [f"encoder{i}.enc{i}conv2.weight" for i in range(1, 9)]
    return {
        **_sides(state, "encoder1.enc1conv1.weight", "conv.weight"),
        "encoder_channels": _widths(state, (*levels, "bottleneck.bottleneckconv2.weight")),
        "concat": "up-skip",
        "activation": "sigmoid",
    }


def _cityscapes_unet(state: State) -> dict[str, Any]:
    return {
        **_sides(state, "conv_down1.0.weight", "conv_last.weight"),
        "encoder_channels": _widths(state, (f"conv_down{i}.3.weight" for i in range(1, 9))),
        "conv_bias": True,
        "up": "bilinear",
        "order": "conv-act-bn",
        "concat": "up-skip",
    }


def _cityscapes_ddunet(state: State) -> dict[str, Any]:
    return {
        **_sides(state, "conv_down1.0.weight", "conv_last.weight"),
        "encoder_channels": _widths(state, (f"conv_down{i}.3.weight" for i in range(1, 9))),
        "variant": "original",
    }


def _cityscapes_r2unet(state: State) -> dict[str, Any]:
    return {
        **_sides(state, "enc_list.0.forward_conv.0.weight", "conv1x1.0.weight"),
        "encoder_channels": _widths(state, (f"enc_list.{i}.forward_conv.0.weight" for i in range(8))),
        "variant": "cityscapes",
    }


def _helen(state: State) -> dict[str, Any]:
    kernels = [tensor for key, tensor in state.items() if key.endswith(".weight") and tensor.ndim == 4]
    ups = [k for k in kernels if k.shape[2] == 2]
    if not ups or kernels[-1].shape[2] != 1:
        raise ValueError("of a 2×2 up-convolution, or no last 1×1 convolution")
    coarsest_first = [k.shape[0] for k in ups]  # a transposed convolution's first side is its input
    return {
        "in_channels": kernels[0].shape[1],
        "classes": kernels[-1].shape[0],
        "encoder_channels": [ups[-1].shape[1], *reversed(coarsest_first)],
        "conv_bias": True,
        "act": {"type": "leaky_relu", "negative_slope": 0.05},
    }


ATTENTION = ("Att",)
LAYOUTS: dict[str, Layout] = {
    "milesial": Layout(
        "milesial's Pytorch-UNet", "bnunet", ("inc.double_conv.0.weight", "outc.conv.weight"), _milesial
    ),
    "leejunhyun-unet": Layout(
        "LeeJunHyun's U_Net", "bnunet", ("Conv1.conv.0.weight", "Up_conv2.conv.0.weight", "Conv_1x1.weight"),
        _leejunhyun_unet, ATTENTION,
    ),
    "leejunhyun-r2unet": Layout(
        "LeeJunHyun's R2U_Net", "r2unet", ("RRCNN1.Conv_1x1.weight", "Up_RRCNN2.Conv_1x1.weight"),
        _leejunhyun_r2unet, ATTENTION,
    ),
    "mateuszbuda": Layout(
        "mateuszbuda's brain-segmentation U-Net", "bnunet", ("encoder1.enc1conv1.weight", "conv.weight"), _mateuszbuda
    ),
    "cityscapes-unet": Layout(
        "the Cityscapes comparison's U-Net", "bnunet", ("conv_down5.0.weight", "conv_last.weight"), _cityscapes_unet
    ),
    "cityscapes-r2unet": Layout(
        "the Cityscapes comparison's R2U-Net", "r2unet", ("enc_list.0.forward_conv.0.weight", "conv1x1.0.weight"),
        _cityscapes_r2unet,
    ),
    "cityscapes-ddunet": Layout(
        "the Cityscapes comparison's DDU-Net", "ddunet", ("conv_transpose3.weight", "conv_last.weight"),
        _cityscapes_ddunet,
    ),
    "helen": Layout("the Helen system's U-Net (its names are not known: give layout='helen')", "bnunet", (), _helen),
}  # fmt: skip
