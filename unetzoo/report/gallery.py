"""Collect samples of an evaluation to show: the first ones, and the best and worst of each head."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..heads import heads_of
from ..inference.images import palette_image
from ..io import replacing
from ..labels import LabelSpec
from ..registry import METRICS
from .image_scores import ImageScores, counts_of
from .images import Pixels, below, side_by_side
from .samples import Batch, Sample, is_plane, planes_of, thresholds_of

SHOWN = 4  # number of best samples, and of worst samples
SHEET = 6  # samples on the overview sheet


class First:
    """Keeps the first samples of an evaluation.

    Args:
        most: Maximum number of samples to keep.
        metric: The metric of the mask.
        step: Input pixels per output pixel.
    """

    def __init__(self, most: int, metric: Any = None, step: int = 1) -> None:
        self.most, self.thresholds, self.step = most, thresholds_of(metric), step
        self.samples: list[Sample] = []

    def add(self, output: Any, batch: Batch) -> None:
        """Add a batch."""
        for index in range(min(len(batch["image"]), self.most - len(self.samples))):
            place = len(self.samples)
            self.samples.append(Sample.of(batch, output, index, place, None, self.thresholds, self.step))

    def images(self, labels: LabelSpec | None) -> dict[str, Pixels]:
        """Return one image per sample, by name, with its panels in a row."""
        labels = labels or LabelSpec.indexed(256)
        return {sample.name: np.asarray(side_by_side(sample.panels(labels))) for sample in self.samples}

    def write(self, folder: Path, labels: LabelSpec) -> None:
        """Write `<id>.png`, the predicted class indices `<id>-labels.png`, and a sheet of the first samples."""
        folder.mkdir(parents=True, exist_ok=True)
        rows: list[Image.Image] = []
        names: set[str] = set()
        for sample in self.samples:
            rows.append(side_by_side(sample.panels(labels)))
            name = _file_name(sample.name, names)
            _save(rows[-1], folder / f"{name}.png")
            predicted = sample.masks.get("prediction")
            if predicted is not None and predicted.ndim == 2 and labels.classes > 1:
                _save(palette_image(predicted, labels), folder / f"{name}-labels.png")
        if rows:
            _save(below(rows[:SHEET]), folder.with_suffix(".png"))


class LabelMaps:
    """Writes the predicted mask of every sample: `<id>.png`, or `<id>_<label>.png` if pixels may have several labels.

    Args:
        folder: Where they are written.
        labels: Names and colors of the classes.
    """

    def __init__(self, folder: Path, labels: LabelSpec) -> None:
        self.folder, self.labels, self.seen = folder, labels, 0
        self.names: set[str] = set()

    def add(self, output: Any, batch: Batch, metric: Any = None) -> list[dict[str, NDArray[Any]]]:
        """Write the masks of a batch, at the thresholds of the metric; return true and predicted masks."""
        masks = []
        self.folder.mkdir(parents=True, exist_ok=True)
        for index in range(len(batch["image"])):
            sample = Sample.of(batch, output, index, self.seen, {"mask"}, thresholds_of(metric))
            self.seen += 1
            name, predicted = _file_name(sample.name, self.names), sample.masks.get("prediction")
            masks.append(sample.masks)
            if predicted is not None and predicted.ndim == 2:
                _save(palette_image(predicted, self.labels), self.folder / f"{name}.png")
            elif predicted is not None:
                for label, plane in zip(self.labels.names, predicted, strict=True):
                    _save(Image.fromarray(plane.astype(np.uint8) * 255), self.folder / f"{name}_{label}.png")
        return masks


class Ranked:
    """Keeps the best and worst samples of an evaluation for one head.

    Masks are ranked by the mean IoU over the classes that occur in the ground truth or the prediction of the image,
    maps of values by the root mean squared error. Samples without a score (nothing labeled) are left out.

    Args:
        head: The head.
        metric: For a mask, a metric with a confusion matrix; it is copied.
        most: Number of best and of worst samples to keep.
        step: Input pixels per output pixel.
    """

    def __init__(self, head: str, metric: Any = None, most: int = SHOWN, step: int = 1) -> None:
        self.head, self.most, self.step = head, most, step
        self.metric = copy.deepcopy(metric)
        self.is_mask = metric is not None
        self.kept: list[Sample] = []
        self.counts: list[tuple[str, NDArray[np.int64]]] = []  # of every image of a mask
        self.seen = 0

    def add(self, output: Any, batch: Batch) -> None:
        """Add a batch."""
        head_output = heads_of(output)[self.head]
        for index in range(len(batch["image"])):
            score = self._score(head_output, batch, index)
            if self.is_mask:
                name = str(batch["id"][index]) if "id" in batch else f"{self.seen:03d}"
                self.counts.append((name, counts_of(self.metric.confusion.cpu().numpy())))
            self.seen += 1
            if math.isnan(score) or not self._is_wanted(score):
                continue
            thresholds = thresholds_of(self.metric)
            sample = Sample.of(batch, output, index, self.seen - 1, {self.head}, thresholds, self.step).small()
            sample.score = score
            self.keep([sample])

    @property
    def best(self) -> list[Sample]:
        """The best samples, best first. No sample is in both `best` and `worst`."""
        return self.kept[: -(-len(self.kept) // 2)]

    @property
    def worst(self) -> list[Sample]:
        """The worst samples, worst first."""
        return self.kept[len(self.best) :][::-1]

    def keep(self, samples: list[Sample]) -> None:
        """Add samples that already have a score."""
        self.kept = sorted([*self.kept, *samples], key=lambda sample: (self._rank(sample.score), sample.name))
        if len(self.kept) > 2 * self.most:
            self.kept = self.kept[: self.most] + self.kept[-self.most :]

    def _is_wanted(self, score: float) -> bool:
        return len(self.kept) < 2 * self.most or not (
            self._rank(self.kept[self.most - 1].score) <= self._rank(score) <= self._rank(self.kept[-self.most].score)
        )

    def _rank(self, score: float) -> float:
        return -score if self.is_mask else score

    def _score(self, head_output: Tensor, batch: Batch, index: int) -> float:
        if not self.is_mask:
            true, predicted = planes_of(batch, head_output, self.head, index)
            errors = (predicted - true)[np.isfinite(true)]
            return float(np.sqrt(np.mean(np.square(errors, dtype=np.float64)))) if errors.size else math.nan
        self.metric.reset()
        self.metric.update(head_output[index : index + 1], batch[self.head][index : index + 1])
        return mean_iou(self.metric.confusion.cpu().numpy())


class Gallery:
    """Collects samples of an evaluation: the first ones, and the best and worst of each head.

    Args:
        labels: Names and colors of the classes.
        metrics: Metrics of the run by head.
        most: Number of first samples to keep.
        step: Input pixels per output pixel.
    """

    def __init__(self, labels: LabelSpec, metrics: Mapping[str, Any], most: int = 12, step: int = 1) -> None:
        self.labels, self.metrics, self.step = labels, metrics, step
        self.first = First(most, metrics.get("mask"), step)
        self.ranked: dict[str, Ranked] = {}

    def add(self, output: Any, batch: Batch) -> None:
        """Add a batch; see `Trainer.evaluate`."""
        self.first.add(output, batch)
        for head, head_output in heads_of(output).items():
            if head in batch and head not in self.ranked:
                metric = None if is_plane(batch, head, head_output) else self._counter(head)
                self.ranked[head] = Ranked(head, metric, step=self.step)
        for ranked in self.ranked.values():
            ranked.add(output, batch)

    def gather(self) -> None:
        """Merge the samples of all processes. All processes must call it together."""
        own = {head: (ranked.is_mask, ranked.kept, ranked.counts) for head, ranked in self.ranked.items()}
        self.ranked = {}
        for share in gather_object([own]):
            for head, (is_mask, kept, counts) in share.items():
                ranked = self.ranked.setdefault(head, Ranked(head, self._counter(head) if is_mask else None))
                ranked.keep(kept)
                ranked.counts += counts

    def image_scores(self, groups: Mapping[str, str]) -> ImageScores | None:
        """Return the counts of all images, in the order of their names; None without a mask.

        Args:
            groups: Group of each image by its name; empty if there are none.
        """
        if "mask" not in self.ranked or not self.ranked["mask"].counts:
            return None
        names, counts = zip(*sorted(self.ranked["mask"].counts, key=lambda entry: entry[0]), strict=True)
        by_name = [groups.get(name, name) for name in names] if groups else []
        metric = self.ranked["mask"].metric
        return ImageScores(names, metric.names, np.stack(counts), by_name, getattr(metric, "empty", math.nan))

    def _counter(self, head: str) -> Any:
        metric = self.metrics.get(head)
        return metric if hasattr(metric, "confusion") else METRICS.build("segmentation", labels=self.labels)


def mean_iou(confusion: NDArray[Any]) -> float:
    """Return the mean IoU over the classes that occur in ground truth or prediction; NaN if none do.

    Shape:
        - confusion: counts (classes, classes), rows = truth; or (labels, 2, 2)

    Examples:
        >>> mean_iou(np.array([[1, 1, 0], [0, 2, 0], [0, 0, 0]]))
        0.5833333333333333
    """
    if confusion.ndim == 3:
        right, missed, invented = confusion[:, 1, 1], confusion[:, 1, 0], confusion[:, 0, 1]
        union = right + missed + invented
    else:
        right = confusion.diagonal()
        union = confusion.sum(0) + confusion.sum(1) - right
    occurs = union > 0
    return float((right[occurs] / union[occurs]).mean()) if occurs.any() else math.nan


def _file_name(name: str, taken: set[str]) -> str:
    """Return an unused file name."""
    plain = re.sub(r"[^\w.-]+", "_", name).strip(".")[-80:] or "sample"
    unique, number = plain, 2
    while unique.lower() in taken or f"{unique}-labels".lower() in taken:
        unique, number = f"{plain}-{number}", number + 1
    taken |= {unique.lower(), f"{unique}-labels".lower()}
    return unique


def _save(image: Image.Image, path: Path) -> None:
    with replacing(path) as partial:
        image.save(partial)
