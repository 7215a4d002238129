"""Rand and information scores and pixel error of the ISBI 2012 challenge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError, InputShapeError
from ..labels import LabelSpec
from . import inputs
from .counting import PixelBins
from .scores import ratio
from .state import SummedState

Mask = NDArray[np.bool_]
Segments = NDArray[np.integer[Any]]


class Pairs(NamedTuple):
    """Numbers of pixel pairs: together in both, in the truth, in the prediction; and all pairs."""

    both: int
    truth: int
    predicted: int
    all: int

    @property
    def f(self) -> float:
        """F-score, 2·both / (truth + predicted); NaN where no pixels are together."""
        return ratio(2 * self.both, self.truth + self.predicted, math.nan)


class Information(NamedTuple):
    """Σ n·log n over groups of pixels: together in both, in the truth, in the prediction; and the number of pixels."""

    both: float
    truth: float
    predicted: float
    pixels: float

    @property
    def entropies(self) -> tuple[float, float, float]:
        """Mutual information of truth and prediction, entropy of the truth, entropy of the prediction."""
        if not self.pixels:
            return math.nan, math.nan, math.nan
        both, truth, predicted = (math.log(self.pixels) - part / self.pixels for part in self[:3])
        exact = [value if value > 1e-12 else 0.0 for value in (truth + predicted - both, truth, predicted)]  # rounding
        return exact[0], exact[1], exact[2]

    @property
    def f(self) -> float:
        """F-score, 2·information / (both entropies); NaN without several objects."""
        shared, truth, predicted = self.entropies
        return ratio(2 * shared, truth + predicted, math.nan)


class RandMetric(SummedState):
    """Rand and information scores of objects separated by boundaries, such as cells between membranes.

    Objects are the connected components of the foreground in truth and prediction. Only pixels of the true
    foreground count (foreground-restricted), so boundaries may be drawn thicker or thinner. Over all pairs of such
    pixels of one image, summed over images:

    - `rand_f`: F-score of the pairs that are together, 2·both / (true + predicted); `rand_error` = 1 − `rand_f` is the
      adapted Rand error
    - `rand_split` = both / true: 1 when no object is split; `rand_merge` = both / predicted: 1 when none are merged
    - `rand_index`: share of pairs that are rightly together or rightly apart
    - `rand_threshold`: the threshold with the best `rand_f`, at which all of these are computed
    - `image/rand_f`: at that threshold, the mean over images
    - `info_f`: F-score of the mutual information I of true and predicted objects, 2·I / (H(true) + H(predicted)), with
      the entropies H over all true foreground pixels; `info_split` = I / H(predicted) falls when objects are split,
      `info_merge` = I / H(true) when they are merged; `info_threshold`: the threshold with the best `info_f`
    - `pixel_error`: share of wrong pixels among all that are not ignored, at the threshold that is best for it,
      `pixel_threshold`

    Ignored pixels separate objects in truth and prediction, so the prediction there does not matter. The challenge has
    thinned predicted boundaries since 2015; `thin` has the same effect without leaving lines of one pixel. SciPy labels
    the objects on the host, so `update` waits for the device.

    Args:
        num_classes: 1, or 2.
        ignore_index: Label of the pixels that do not count; that of `labels` by default.
        labels: Two names.
        foreground: Class of the objects, 0 or 1.
        thresholds: Foreground probabilities above which a pixel is foreground; the best one is chosen. More than
            one requires logits.
        connectivity: Neighbors of a pixel. 1: above, below, left and right; 2: also diagonally.
        predicted_boundary: How to treat predicted boundary pixels within a true object: "single", each pixel is a
            separate object, or "object", all of an image form one object.
        thin: Whether each predicted boundary pixel belongs to the nearest predicted object instead.

    Raises:
        ConfigError: Not binary; unusable settings.

    Examples:
        >>> truth = torch.tensor([[[1, 1, 0, 1, 1]]])
        >>> metric = RandMetric(num_classes=1)
        >>> metric.update(torch.ones_like(truth), truth)
        >>> scores = metric.compute()
        >>> scores["rand_split"], round(scores["rand_merge"], 3), scores["pixel_error"]
        (1.0, 0.333, 0.2)

    Source:
        Arganda-Carreras et al., "Crowdsourcing the creation of image segmentation algorithms for connectomics", 2015,
        equations 2–5, and its information scores.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        ignore_index: int | None = None,
        labels: LabelSpec | None = None,
        foreground: int = 1,
        thresholds: Sequence[float] = (0.5,),
        connectivity: Literal[1, 2] = 1,
        predicted_boundary: Literal["single", "object"] = "single",
        thin: bool = False,
    ) -> None:
        self.names = inputs.binary_names(num_classes, labels, "rand")
        self.ignore_index = inputs.ignored_label(ignore_index, labels)
        for what, value, known in (
            ("foreground", foreground, (0, 1)),
            ("connectivity", connectivity, (1, 2)),
            ("predicted_boundary", predicted_boundary, ("single", "object")),
            ("thin", thin, (False, True)),
        ):
            if value not in known:
                expected = " or ".join(map(repr, known))
                raise ConfigError(f"unusable {what}", expected=expected, found=repr(value))
        if not thresholds:
            raise ConfigError("no thresholds", expected="at least one probability in (0, 1)")
        self.thresholds = tuple(inputs.check_probability(threshold, "threshold") for threshold in thresholds)
        self.foreground, self.connectivity, self.thin = foreground, connectivity, thin
        self.predicted_boundary: Literal["single", "object"] = predicted_boundary
        self._bins = PixelBins(2, self.ignore_index)
        count = len(self.thresholds)
        super().__init__(
            {
                "pairs": torch.zeros(count, len(Pairs._fields), dtype=torch.int64),
                "information": torch.zeros(count, len(Information._fields), dtype=torch.float64),
                "wrong": torch.zeros(count, dtype=torch.int64),
                "pixels": torch.zeros(1, dtype=torch.int64),
                "image_f": torch.zeros(count, dtype=torch.float64),
                "images": torch.zeros(count, dtype=torch.int64),  # images with an F-score
            }
        )

    def rules(self) -> dict[str, Any]:
        """Return names, ignored label and settings."""
        names = ("names", "ignore_index", "foreground", "thresholds", "connectivity", "predicted_boundary", "thin")
        return {name: getattr(self, name) for name in names}

    @torch.no_grad()
    def update(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> None:
        """Count a batch.

        Args:
            output: Logits, or a map of predicted labels.
            target: The true labels.
            weight: Mask of the pixels that count: bool, or 0 and 1. All count by default.

        Shape:
            - output: floats (N, 1, H, W) or (N, 2, H, W); or integers (N, H, W)
            - target: integers (N, H, W) or (N, 1, H, W)
            - weight: (N, H, W) or (N, 1, H, W)

        Raises:
            InputShapeError: An output of the wrong shape; labels with several thresholds.
            SizeMismatchError: Output, target and weight of different sizes.
            DataError: A target without integer labels; weights other than 0 and 1.
            LabelRangeError: Labels other than 0, 1 and the ignored one.
            NonFiniteError: NaN in the logits.
        """
        if len(self.thresholds) > 1 and not output.is_floating_point():
            raise InputShapeError("several thresholds need logits", expected="floats", found=output.dtype)
        for index, threshold in enumerate(self.thresholds):
            cut = threshold if self.foreground == 1 else 1.0 - threshold
            predicted, logits = inputs.predicted_labels(output, 2, cut)
            truth = inputs.true_labels(target, predicted, output)
            counted = self._bins.counted(truth, predicted, inputs.counted_pixels(weight, truth), logits=logits)
            maps = (labels.cpu().numpy() for labels in (truth, predicted, counted))
            for image in zip(*maps, strict=True):
                self._count(index, *image)

    def compute(self) -> dict[str, float]:
        """Compute all scores of the images counted so far; NaN where no pixels are together."""
        pairs = [Pairs(*row) for row in self._sums["pairs"].tolist()]
        wrong: list[int] = self._sums["wrong"].tolist()
        pixels = int(self._sums["pixels"])
        best = max(range(len(pairs)), key=lambda index: (not math.isnan(pairs[index].f), pairs[index].f, -index))
        information = [Information(*row) for row in self._sums["information"].tolist()]
        told = max(range(len(information)), key=lambda i: (not math.isnan(information[i].f), information[i].f, -i))
        mutual, true_entropy, predicted_entropy = information[told].entropies
        least = min(range(len(wrong)), key=lambda index: (wrong[index], index))
        both, truth, predicted, every = pairs[best]
        return {
            "rand_f": pairs[best].f,
            "rand_error": 1.0 - pairs[best].f,
            "rand_split": ratio(both, truth, math.nan),
            "rand_merge": ratio(both, predicted, math.nan),
            "rand_index": ratio(every + 2 * both - truth - predicted, every, math.nan),
            "rand_threshold": self.thresholds[best],
            "image/rand_f": ratio(float(self._sums["image_f"][best]), int(self._sums["images"][best]), math.nan),
            "info_f": information[told].f,
            "info_split": ratio(mutual, predicted_entropy, math.nan),
            "info_merge": ratio(mutual, true_entropy, math.nan),
            "info_threshold": self.thresholds[told],
            "pixel_error": ratio(wrong[least], pixels, math.nan),
            "pixel_threshold": self.thresholds[least],
        }

    def _count(self, index: int, truth: NDArray[Any], predicted: NDArray[Any], counted: Mask) -> None:
        true, guess = ((labels == self.foreground) & counted for labels in (truth, predicted))
        segments = objects(true, self.connectivity), objects(guess, self.connectivity)
        if self.thin:
            segments = segments[0], thinned(segments[1])
        pairs = pairs_of(*segments, predicted_boundary=self.predicted_boundary)
        information = information_of(*segments, predicted_boundary=self.predicted_boundary)
        place = torch.zeros(len(self.thresholds), dtype=torch.int64, device="cpu")
        place[index] = 1
        defined = not math.isnan(pairs.f)
        self.add(
            pairs=place[:, None] * torch.tensor(pairs, device="cpu"),
            information=place[:, None] * torch.tensor(information, dtype=torch.float64, device="cpu"),
            wrong=place * int((true != guess).sum()),
            pixels=torch.tensor([int(counted.sum()) if index == 0 else 0], device="cpu"),
            image_f=place.double() * (pairs.f if defined else 0.0),
            images=place * int(defined),
        )


def objects(mask: NDArray[np.bool_], connectivity: int = 1) -> Segments:
    """Return the connected components of a mask, numbered from 1; 0 elsewhere."""
    from scipy.ndimage import generate_binary_structure, label

    return label(mask, generate_binary_structure(mask.ndim, connectivity))[0]  # pyright: ignore


def pairs_of(
    truth: Segments, predicted: Segments, *, predicted_boundary: Literal["single", "object"] = "single"
) -> Pairs:
    """Count the pairs of pixels whose true number is above 0.

    Args:
        truth: Numbered objects; pixels of 0 do not count.
        predicted: Numbered objects.
        predicted_boundary: How to treat predicted zeros; see `RandMetric`.

    Examples:
        >>> pairs_of(np.array([1, 1, 2, 2]), np.array([1, 1, 1, 1]))
        Pairs(both=2, truth=2, predicted=6, all=6)
    """
    both, of_truth, of_prediction = (
        int((counts * (counts - 1) // 2).sum()) for counts in _groups(truth, predicted, predicted_boundary)
    )
    pixels = int(np.count_nonzero(truth > 0))
    return Pairs(both, of_truth, of_prediction, pixels * (pixels - 1) // 2)


def information_of(
    truth: Segments, predicted: Segments, *, predicted_boundary: Literal["single", "object"] = "single"
) -> Information:
    """Sum what the entropies of the pixels whose true number is above 0 are computed from.

    Args:
        truth: Numbered objects; pixels of 0 do not count.
        predicted: Numbered objects.
        predicted_boundary: How to treat predicted zeros; see `RandMetric`.

    Examples:
        >>> information_of(np.array([1, 1, 2, 2]), np.array([3, 3, 1, 1])).f
        1.0
    """
    both, of_truth, of_prediction = (
        float((counts * np.log(counts)).sum()) for counts in _groups(truth, predicted, predicted_boundary)
    )
    return Information(both, of_truth, of_prediction, float(np.count_nonzero(truth > 0)))


def thinned(predicted: Segments) -> Segments:
    """Give each boundary pixel the number of the nearest object.

    Args:
        predicted: Numbered objects, 0 for boundaries.

    Examples:
        >>> thinned(np.array([[1, 0, 0, 0, 2, 2]])).tolist()
        [[1, 1, 1, 2, 2, 2]]
    """
    from scipy.ndimage import distance_transform_edt

    if not predicted.any():
        return predicted
    rows, columns = np.asarray(distance_transform_edt(predicted == 0, return_distances=False, return_indices=True))
    return predicted[rows, columns]


def _groups(truth: Segments, predicted: Segments, predicted_boundary: str) -> list[NDArray[np.int64]]:
    """Sizes of groups: together in both, in the truth, in the prediction. Single boundary pixels are left out."""
    counted = truth > 0
    true, guess = truth[counted].astype(np.int64), predicted[counted].astype(np.int64)
    kept = guess > 0 if predicted_boundary == "single" else np.full(guess.shape, True)
    together = true * (guess.max(initial=0) + 1) + guess
    return [np.unique(labels, return_counts=True)[1] for labels in (together[kept], true, guess[kept])]
