"""Base of metrics that score each class of each image on the host, such as distances between outlines."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError
from ..labels import LabelSpec
from . import inputs
from .counting import PixelBins
from .scores import mean, ratio
from .state import SummedState

Mask = NDArray[np.bool_]


class PerImageMetric(SummedState):
    """Scores of each class of each image, averaged over the images in which truth or prediction has the class.

    Subclasses name the scores in `fields` and compute them in `measure`.

    Args:
        num_classes: Number of classes; 1 means binary.
        ignore_index: Label of the pixels that do not count: they belong to no object, true or predicted.
            By default that of `labels`.
        labels: Names of the classes.
        exclude: Classes not to score, by name or index, such as a background. With two classes only the second
            is ever scored.
        threshold: Binary: the probability above which a pixel is foreground.

    Raises:
        ConfigError: Neither num_classes nor labels; unusable settings.
    """

    fields: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        num_classes: int | None = None,
        ignore_index: int | None = None,
        labels: LabelSpec | None = None,
        exclude: Sequence[str | int] = (),
        threshold: float = 0.5,
    ) -> None:
        self.names = inputs.class_names(num_classes, labels)
        self.ignore_index = inputs.ignored_label(ignore_index, labels)
        self.scored = self._kept(exclude)
        self.threshold = inputs.check_probability(threshold, "threshold")
        self._bins = PixelBins(len(self.names), self.ignore_index)
        super().__init__(
            {
                "sums": torch.zeros(len(self.scored), len(self.fields), dtype=torch.float64),
                "counts": torch.zeros(len(self.scored), 3, dtype=torch.int64),  # images, missed, invented
            }
        )

    @abstractmethod
    def measure(self, predicted: Mask, truth: Mask) -> Sequence[float]:
        """Return the scores of one class of one image, in which truth or prediction has the class."""

    def rules(self) -> dict[str, Any]:
        """Return names of the scored classes, ignored label and threshold."""
        return {
            "classes": [self.names[index] for index in self.scored],
            "ignore_index": self.ignore_index,
            "threshold": self.threshold,
        }

    @torch.no_grad()
    def update(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> None:
        """Measure a batch.

        Args:
            output: Logits, or a map of predicted labels.
            target: The true labels.
            weight: Mask of the pixels that count: bool, or 0 and 1. All count by default.

        Shape:
            - output: floats (N, C, H, W), C = num_classes, or 1 for binary; or integers (N, H, W)
            - target: integers (N, H, W) or (N, 1, H, W)
            - weight: (N, H, W) or (N, 1, H, W)

        Raises:
            InputShapeError: An output of the wrong shape.
            SizeMismatchError: Output, target and weight of different sizes.
            DataError: A target without integer labels; weights other than 0 and 1.
            LabelRangeError: Labels outside the classes.
            NonFiniteError: NaN in the logits.
        """
        predicted, logits = inputs.predicted_labels(output, len(self.names), self.threshold)
        truth = inputs.true_labels(target, predicted, output)
        counted = self._bins.counted(truth, predicted, inputs.counted_pixels(weight, truth), logits=logits)
        images = zip(*(labels.cpu().numpy() for labels in (predicted, truth, counted)), strict=True)
        found = [self._measured(*image) for image in images]
        if found:
            sums, counts = (np.sum(part, axis=0) for part in zip(*found, strict=True))
            self.add(sums=torch.from_numpy(sums), counts=torch.from_numpy(counts))

    def compute(self) -> dict[str, float]:
        """Compute all means of the images measured so far."""
        sums: list[list[float]] = self._sums["sums"].tolist()
        counts: list[list[int]] = self._sums["counts"].tolist()
        rows = [[ratio(s, n, math.nan) for s in row] for row, (n, *_) in zip(sums, counts, strict=True)]
        names = [self.names[index] for index in self.scored]
        scores = {field: mean(values) for field, values in zip(self.fields, zip(*rows, strict=True), strict=True)}
        scores["defined"] = float(sum(n > 0 for n, *_ in counts))
        for name, row, numbers in zip(names, rows, counts, strict=True):
            scores |= {f"{field}/{name}": value for field, value in zip(self.fields, row, strict=True)}
            counts_of_class = zip(("images", "missed", "invented"), numbers, strict=True)
            scores |= {f"{what}/{name}": float(number) for what, number in counts_of_class}
        return scores

    def _kept(self, exclude: Sequence[str | int]) -> tuple[int, ...]:
        if isinstance(exclude, str):
            raise ConfigError("unusable exclude", expected="a list of classes", found=repr(exclude))
        index = {name: place for place, name in enumerate(self.names)} | {i: i for i in range(len(self.names))}
        if unknown := [one for one in exclude if one not in index]:
            raise ConfigError("unknown class to exclude", found=unknown, hint="choose from: " + ", ".join(self.names))
        left = {*range(len(self.names))} - {index[one] for one in exclude} - ({0} if len(self.names) == 2 else set())
        if not left:
            raise ConfigError("no class is left to score", subject="exclude", found=list(exclude))
        return tuple(sorted(left))

    def _measured(
        self, predicted: NDArray[Any], truth: NDArray[Any], counted: Mask
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return scores and counts of one image, one row per class."""
        sums, counts = np.zeros((len(self.scored), len(self.fields))), np.zeros((len(self.scored), 3), np.int64)
        for row, label in enumerate(self.scored):
            guess, true = (predicted == label) & counted, (truth == label) & counted
            if guess.any() or true.any():
                sums[row] = self.measure(guess, true)
                counts[row] = 1, not guess.any(), not true.any()
        return sums, counts
