"""clDice: whether thin structures are found along their whole length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..labels import LabelSpec
from ..skeletons import require_skeletons, skeleton
from .per_image import PerImageMetric

Mask = NDArray[np.bool_]


class ClDice(NamedTuple):
    """Scores of the center lines of one image; `tprec` and `tsens` are topology precision and sensitivity."""

    cldice: float
    tprec: float
    tsens: float


class ClDiceMetric(PerImageMetric):
    """Center-line Dice of predicted and true objects, for each class of each image.

    With S(·) the skeleton, `tprec` is the share of S(prediction) inside the truth, `tsens` the share of S(truth) inside
    the prediction, and `cldice` their harmonic mean. A line that is found with another width has a score of 1; a line
    with a gap loses the length of the gap.

    Each is averaged over the images in which the class is in truth or prediction; `images/<class>` is their number.
    A class that is in neither is not scored. A class that is in only one of them gets 0; `missed/<class>` and
    `invented/<class>` count these images. Scores without a class are means over the scored classes; `defined` is
    their number.

    scikit-image computes the skeletons on the host, so `update` waits for the device.

    Args:
        num_classes: Number of classes; 1 means binary.
        ignore_index: Label of the pixels that do not count: they belong to no object, true or predicted.
            By default that of `labels`.
        labels: Names of the classes.
        exclude: Classes not to score, by name or index, such as a background. With two classes only the second
            is ever scored.
        threshold: Binary: the probability above which a pixel is foreground.

    Raises:
        ConfigError: Neither num_classes nor labels; unusable settings; scikit-image is not installed.

    Examples:
        >>> import torch
        >>> truth, predicted = torch.zeros(2, 1, 7, 12, dtype=torch.long)
        >>> truth[0, 3, 1:11], predicted[0, 3, 1:6] = 1, 1
        >>> metric = ClDiceMetric(num_classes=1)
        >>> metric.update(predicted, truth)
        >>> scores = metric.compute()
        >>> scores["tprec"], round(scores["tsens"], 2)
        (1.0, 0.5)

    Source:
        Shit et al., "clDice - a Novel Topology-Preserving Loss Function for Tubular Structure Segmentation", 2021.
    """

    fields = ClDice._fields

    def __init__(
        self,
        num_classes: int | None = None,
        ignore_index: int | None = None,
        labels: LabelSpec | None = None,
        exclude: Sequence[str | int] = (),
        threshold: float = 0.5,
    ) -> None:
        require_skeletons("cldice")
        super().__init__(num_classes, ignore_index, labels, exclude, threshold)

    def measure(self, predicted: Mask, truth: Mask) -> ClDice:
        """Score one class of one image."""
        return cldice(predicted, truth)


def cldice(predicted: Mask, truth: Mask) -> ClDice:
    """Compute clDice, topology precision and topology sensitivity of two masks.

    All are 0 if one mask is empty, and NaN if both are.

    Args:
        predicted: The predicted objects.
        truth: The true objects.

    Shape:
        - predicted, truth: bool (H, W)

    Examples:
        >>> line = np.zeros((3, 9), bool)
        >>> line[1] = True
        >>> cldice(line, line).cldice
        1.0
    """
    if not (predicted.any() and truth.any()):
        nothing = 0.0 if predicted.any() or truth.any() else math.nan
        return ClDice(nothing, nothing, nothing)
    precision, sensitivity = float(truth[skeleton(predicted)].mean()), float(predicted[skeleton(truth)].mean())
    total = precision + sensitivity
    return ClDice(2 * precision * sensitivity / total if total else 0.0, precision, sensitivity)
