"""Rank images by the uncertainty of their predictions."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..io import replacing
from .decide import confidence_of
from .results import SegmentationResult

SURE = 0.9  # probability from which a class counts as sure in the table, unless another is given
COLUMNS: tuple[str, ...] = ("image", "uncertainty", "unsure")


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
