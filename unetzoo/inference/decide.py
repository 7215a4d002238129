"""Convert logits to classes: probabilities, thresholds, and cleanup of small regions and holes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..cleaning import place_of
from ..errors import ConfigError
from ..labels import LabelSpec, Mode

Threshold = float | Sequence[float] | Mapping[str, float] | None
UNSURE = 255  # value of pixels without a sure class in masks, unless the labels have an `ignore_index`


@dataclass(frozen=True)
class Decision:
    """Converts probabilities to classes.

    Args:
        thresholds: One per channel, or None for a class without a threshold. If empty, the most probable class wins.
        mode: "multilabel" if each channel is an independent label; None means one class per pixel.

    Examples:
        >>> Decision((None, None, 0.3))(torch.tensor([0.5, 0.15, 0.35]).view(3, 1, 1)).item()
        2
    """

    thresholds: tuple[float | None, ...] = ()
    mode: Mode | None = None

    def __call__(self, probabilities: Tensor) -> Tensor:
        """Convert probabilities (…, C, H, W) to uint8 classes (…, H, W), or to 0 and 1 (…, K, H, W) if multilabel."""
        several = self.mode == "multilabel"
        if several or probabilities.shape[-3] == 1:
            limits = torch.tensor(self.thresholds or 0.5, dtype=probabilities.dtype, device=probabilities.device)
            above = (probabilities > limits.view(-1, 1, 1)).to(torch.uint8)
            return above if several else above[..., 0, :, :]
        if not any(limit is not None for limit in self.thresholds):
            return probabilities.argmax(-3).to(torch.uint8)
        limits = [2.0 if limit is None else limit for limit in self.thresholds]
        bounds = torch.tensor(limits, dtype=probabilities.dtype, device=probabilities.device).view(-1, 1, 1)
        passing, winner = probabilities.masked_fill(probabilities <= bounds, -1.0).max(-3)
        rest = probabilities.masked_fill(bounds < 2, -1.0).argmax(-3)
        return torch.where(passing >= 0, winner, rest).to(torch.uint8)

    @classmethod
    def of(cls, threshold: Threshold, labels: LabelSpec, channels: int, mode: Mode | None = None) -> Decision:
        """Build the decision for a threshold.

        A pixel is assigned the most probable class among those whose threshold is exceeded, or else the most probable
        class without a threshold. A single number applies to every class except the first, or to every label if
        multilabel.

        Args:
            threshold: One number, one number per channel, or a mapping from class names to numbers.
            labels: Names of the classes; a network with one channel has two.
            channels: Number of output channels of the network.
            mode: As in `Decision`.

        Raises:
            ConfigError: A threshold is not a probability, their number is wrong, or every class has one.
            UnknownNameError: Unknown class; the error suggests the nearest name.
        """
        independent = mode == "multilabel" or channels == 1
        limits: list[float | None] = [0.5] * channels if independent else [None] * channels
        if isinstance(threshold, Mapping):
            first = labels.classes - channels  # a network with one channel has no background channel
            for name, value in threshold.items():
                place = place_of(name, labels) - first
                if place < 0:
                    hint = f"give it for {labels.names[1]!r}"
                    raise ConfigError("no threshold for the background", subject=name, hint=hint)
                limits[place] = value
        elif isinstance(threshold, Sequence) and len(threshold) not in (1, channels):
            raise ConfigError("wrong number of thresholds", expected=f"1 or {channels}", found=len(threshold))
        elif isinstance(threshold, Sequence) and len(threshold) == channels:
            limits = list(threshold)
        elif threshold is not None:
            value = threshold[0] if isinstance(threshold, Sequence) else threshold
            limits = [value] * channels if independent else [None, *[value] * (channels - 1)]
        for value in limits:
            if value is not None and (not isinstance(value, int | float) or not 0 < value < 1):
                raise ConfigError("wrong threshold", expected="a probability in (0, 1)", found=repr(value))
        if not independent and None not in limits:
            hint = "omit one, e.g. the background's"
            raise ConfigError("every class has a threshold", expected="one class that takes the rest", hint=hint)
        return cls(() if not any(limits) else tuple(limits), mode)


def probabilities_of(net: nn.Module, output: Tensor, *, mode: Mode | None = None) -> Tensor:
    """Convert a network's output to probabilities (…, C, H, W), unless it already ends in a sigmoid or softmax."""
    if ends_in_probabilities(net):
        return output
    output = output.to(torch.promote_types(output.dtype, torch.float32))  # half precision would create ties
    return output.sigmoid() if mode == "multilabel" or output.shape[-3] == 1 else output.softmax(-3)


def ends_in_probabilities(net: nn.Module) -> bool:
    """Whether the output of a network already ends in a sigmoid or softmax."""
    head = getattr(net, "segmentation_head", None)
    parts = head.modules() if isinstance(head, nn.Module) else ()
    return any(isinstance(part, nn.Sigmoid | nn.Softmax | nn.Softmax2d) for part in parts)


def check_unsure(unsure: float | None, mode: Mode | None) -> float | None:
    """Check the probability below which no class is sure.

    Raises:
        ConfigError: Not a probability; pixels may have several labels.
    """
    if unsure is not None and not 0 < unsure < 1:
        raise ConfigError("wrong unsure", expected="a probability in (0, 1), e.g. 0.9", found=unsure)
    if unsure is not None and mode == "multilabel":
        raise ConfigError("masks of several labels have no value for unsure pixels", found=f"unsure={unsure}",
                          hint="leave it out; --write uncertainty ranks the images")  # fmt: skip
    return unsure


def unsure_value(labels: LabelSpec) -> int:
    """Return the value of pixels without a sure class: `ignore_index` of the labels if a mask can hold it, else 255.

    Raises:
        ConfigError: All 256 values are classes.
    """
    own = labels.ignore_index
    if own is not None and labels.classes <= own <= UNSURE:
        return own
    if labels.classes > UNSURE:
        raise ConfigError("no value is left for unsure pixels", expected="at most 255 classes", found=labels.classes,
                          hint="predict without unsure")  # fmt: skip
    return UNSURE


def confidence_of(probabilities: Tensor) -> Tensor:
    """Return the probability of the most probable class, (H, W), for probabilities (C, H, W) of exclusive classes.

    Examples:
        >>> confidence_of(torch.tensor([[[0.25, 0.5]]])).tolist()
        [[0.75, 0.5]]
    """
    return torch.maximum(probabilities, 1 - probabilities)[0] if len(probabilities) == 1 else probabilities.amax(0)


def labels_for(labels: LabelSpec | None, channels: int, *, mode: Mode | None = None) -> LabelSpec:
    """Return the label set for an output with this many channels; one channel means background and foreground.

    Raises:
        ConfigError: The label set has a different size, or there are too many classes for an 8-bit image.
    """
    several = mode == "multilabel"
    wanted = channels if several else max(channels, 2)
    if labels is None:
        labels = LabelSpec.indexed(wanted) if channels > 1 or several else LabelSpec(("background", "foreground"))
    if channels == labels.classes == 1 and not several:
        color = labels.palette[0] if any(labels.palette[0]) else (255, 255, 255)
        return LabelSpec(("background", *labels.names), palette=((0, 0, 0), color))
    if labels.classes != wanted or wanted > 256:
        raise ConfigError(
            "labels and network differ",
            expected=f"{channels} classes" if wanted <= 256 else "at most 256 classes in an 8-bit image",
            found=f"{labels.classes}: {', '.join(labels.names[:8])}",
            hint="give the label set that the network was trained with"
            if wanted <= 256
            else "use unetzoo.predict and write the classes yourself",
        )
    return labels
