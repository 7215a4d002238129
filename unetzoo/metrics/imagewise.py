"""Scores per image, as sums over images: of every class, and of the image's mean over its classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .scores import FORMULAS, ratio

SCORES = ("iou", "f1")


def zeros(classes: int) -> dict[str, Tensor]:
    """The sums over no image: scores of the classes and, last, of the whole image; and over how many they go."""
    return {
        "image_sums": torch.zeros(len(SCORES), classes + 1, dtype=torch.float64),
        "images": torch.zeros(classes + 1, dtype=torch.int64),
    }


def sums(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor, *, empty: float) -> dict[str, Tensor]:
    """What the images of a batch add to the sums.

    Args:
        tp: True positives of each image and class.
        fp: False positives.
        fn: False negatives.
        tn: True negatives.
        empty: Score of a class that is in neither truth nor prediction of an image; NaN: it is not counted there.

    Shape:
        - tp, fp, fn, tn: integers (N, classes)
    """
    tp, fp, fn, tn = (counts.double() for counts in (tp, fp, fn, tn))
    counted = (tp + fp + fn if math.isnan(empty) else tp + fp + fn + tn) > 0
    totals = []
    for score in SCORES:
        numerator, denominator = FORMULAS[score](tp, fp, fn, tn)
        value = torch.where(denominator > 0, numerator / denominator, empty).where(counted, 0.0)
        image = value.sum(1, keepdim=True) / counted.sum(1, keepdim=True).clamp(min=1)
        totals.append(torch.cat([value, image], 1).sum(0))
    images = torch.cat([counted, counted.any(1, keepdim=True)], 1).sum(0)
    return {"image_sums": torch.stack(totals), "images": images}


def means(state: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, float]:
    """`image/<score>` of the sums; NaN without any image."""
    *defined, total = state["images"].tolist()
    scores = {"image/count": float(total)}
    for score, (*by_class, whole) in zip(SCORES, state["image_sums"].tolist(), strict=True):
        scores["image/miou" if score == "iou" else "image/mdice"] = ratio(whole, total, math.nan)
        pairs = zip(names, by_class, defined, strict=True)
        scores |= {f"image/{score}/{name}": ratio(scored, count, math.nan) for name, scored, count in pairs}
    return scores | {f"image/defined/{name}": float(count) for name, count in zip(names, defined, strict=True)}
