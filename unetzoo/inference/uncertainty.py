"""How sure a network is: pixels without a sure class, and images ranked by their uncertainty."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..bundle import Mode
from ..errors import ConfigError
from ..io import replacing
from ..labels import LabelSpec

if TYPE_CHECKING:
    from .results import SegmentationResult

SURE = 0.9  # probability from which a class counts as sure in the table, unless another is given
UNSURE = 255  # value of pixels without a sure class in masks, unless the labels have an `ignore_index`
COLUMNS: tuple[str, ...] = ("image", "uncertainty", "unsure")


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


def entropy_of(probabilities: Tensor, *, several: bool) -> Tensor:
    """Return the entropy of each pixel as a share of its maximum, (H, W); 0 is certain, 1 undecided.

    Args:
        probabilities: Probabilities (C, H, W).
        several: Channels are independent labels, whose entropies are averaged.

    Examples:
        >>> entropy_of(torch.full((4, 1, 1), 0.25), several=False).item()
        1.0
    """
    p = probabilities.double()
    if several or len(p) == 1:
        return ((torch.special.entr(p) + torch.special.entr(1 - p)) / math.log(2)).mean(0)
    return torch.special.entr(p).sum(0) / math.log(len(p))


def uncertainty_record(image: Path, result: SegmentationResult) -> dict[str, Any]:
    """Return one row of `uncertainty.csv`.

    Args:
        image: The image file.
        result: Its prediction.
    """
    probabilities, several = result.probabilities.float().cpu(), result.label_map.ndim == 3
    present = slice(None) if result.missing is None else torch.from_numpy(~result.missing)
    entropy = entropy_of(probabilities, several=several)[present]
    sure = torch.maximum(probabilities, 1 - probabilities).amin(0) if several else confidence_of(probabilities)
    share = (sure[present] < (result.unsure or SURE)).double()
    values = (0.0, 0.0) if not entropy.numel() else (float(entropy.mean()), float(share.mean()))
    return dict(zip(COLUMNS, (str(image), *(round(value, 6) for value in values)), strict=True))


def write_uncertainty(path: Path, entries: Callable[[], Iterable[tuple[int, dict[str, Any]]]]) -> None:
    """Write `uncertainty.csv`, the most uncertain image first.

    Args:
        path: The file.
        entries: Returns number and `uncertainty_record` of each image, in order.

    Raises:
        OSError: The disk is full.
    """
    rows = sorted((row for _, row in entries()), key=lambda row: -row["uncertainty"])
    with replacing(path) as partial, open(partial, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
