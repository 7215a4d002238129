"""Samples with their predictions: the first ones of an evaluation, and the best and worst."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..heads import heads_of
from ..inference.decide import Decision
from ..inference.images import class_map, palette_image
from ..labels import LabelSpec
from ..registry import METRICS
from ..wording import format_score
from .images import Pixels, below, color_names, colored, inputs_of, limits_of, overlaid, scaled, shrunk, side_by_side

OVERLAY = "prediction on input"
SHOWN = 4  # number of best samples, and of worst
SIDE = 384  # largest side of an image on the page, in pixels
SHEET = 6  # samples on the sheet of all
HALF = (0.5,)  # the probability above which a pixel is foreground, where no metric says otherwise

Batch = dict[str, Any]


@dataclass
class Sample:
    """One sample and the network's output for it.

    Args:
        name: Its `id`, or its index.
        inputs: Images that the network sees, by caption.
        masks: Class indices (H, W), or 0 and 1 (K, H, W): "truth" and "prediction".
        planes: True and predicted planes (H, W) of heads such as depth; NaN where not valid.
        score: What it is ranked by.
        ground: The part of the input that the masks cover, pixel by pixel.
    """

    name: str
    inputs: dict[str, Pixels]
    masks: dict[str, NDArray[Any]] = field(default_factory=dict)
    planes: dict[str, tuple[NDArray[Any], NDArray[Any]]] = field(default_factory=dict)
    score: float = math.nan
    ground: Pixels | None = None

    @classmethod
    def of(
        cls,
        batch: Batch,
        output: Any,
        index: int,
        place: int,
        heads: set[str] | None = None,
        thresholds: Sequence[float] = HALF,
        step: int = 1,
    ) -> Sample:
        """Take one sample of a batch.

        Args:
            batch: Targets lie on the output's grid.
            output: The network's output.
            index: Index in the batch.
            place: Index in the dataset.
            heads: Heads to keep; all by default.
            thresholds: Those of the mask's metric.
            step: Input pixels per output pixel.
        """
        name = str(batch["id"][index]) if "id" in batch else f"{place:03d}"
        sample = cls(name, inputs_of(batch["image"][index]))
        for head, head_output in heads_of(output).items():
            if head not in batch or (heads is not None and head not in heads):
                continue
            if is_plane(batch, head, head_output):
                sample.planes[head] = planes_of(batch, head_output, head, index)
            else:
                sample.masks = masks_of(batch[head][index], head_output[index], thresholds)
                sample.ground = covered(sample.inputs["input"], sample.masks["truth"].shape[-2:], step)
        return sample

    @property
    def photos(self) -> set[str]:
        """Captions of the panels that are photographs rather than flat colors."""
        return {*self.inputs, OVERLAY}

    def panels(self, labels: LabelSpec) -> dict[str, Pixels]:
        """All images by caption, in the order in which they are shown."""
        panels = self.inputs | {caption: colored(mask, labels) for caption, mask in self.masks.items()}
        if self.ground is not None and "prediction" in panels:
            panels[OVERLAY] = overlaid(self.ground, panels["prediction"])
        for head, (true, predicted) in self.planes.items():
            limits = limits_of(true, predicted)
            panels |= {f"true {head}": scaled(true, limits), f"predicted {head}": scaled(predicted, limits)}
        return panels

    def described(self, caption: str, labels: LabelSpec) -> str:
        """A panel in words, for screen readers: its three largest classes, or its range of values."""
        if caption in self.masks:
            return f": {_largest(self.masks[caption], labels)}"
        for head, planes in self.planes.items():
            for name, plane in zip((f"true {head}", f"predicted {head}"), planes, strict=True):
                if name == caption:
                    return ", from {} to {}".format(*map(format_score, limits_of(plane)))
        return ""

    def small(self, side: int = SIDE) -> Sample:
        """The sample with images of at most `side` pixels."""
        inputs = {caption: shrunk(image, side, smooth=True) for caption, image in self.inputs.items()}
        masks = {caption: thinned(mask, side) for caption, mask in self.masks.items()}
        planes = {head: (thinned(true, side), thinned(guess, side)) for head, (true, guess) in self.planes.items()}
        ground = None if self.ground is None else shrunk(self.ground, side, smooth=True)
        return Sample(self.name, inputs, masks, planes, self.score, ground)


def covered(image: Pixels, size: Sequence[int], step: int) -> Pixels | None:
    """The input pixels (H, W, 3) under an output: the center, every `step`-th pixel; None if the input is smaller."""
    rows, columns = (n * step for n in size)
    top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
    return None if min(top, left) < 0 else image[top : top + rows : step, left : left + columns : step]


def is_plane(batch: Mapping[str, Any], head: str, head_output: Tensor) -> bool:
    """Whether a head predicts a map of values, such as depth, rather than a mask."""
    target = batch.get(head)
    return isinstance(target, Tensor) and target.is_floating_point() and target.numel() == head_output.numel()


def thresholds_of(metric: Any) -> Sequence[float]:
    """The probability thresholds of a metric, for foreground or for each label."""
    return metric.thresholds if hasattr(metric, "confusion") and hasattr(metric, "thresholds") else HALF


def masks_of(target: Tensor, logits: Tensor, thresholds: Sequence[float] = HALF) -> dict[str, NDArray[Any]]:
    """True and predicted classes; a target with several planes has one label per plane."""
    truth = target.cpu().numpy()
    if truth.ndim == 3 and len(truth) == len(logits) > 1:
        several = Decision(tuple(thresholds), mode="multilabel")
        return {"truth": truth, "prediction": several(logits.sigmoid()).cpu().numpy()}
    return {"truth": truth.reshape(truth.shape[-2:]), "prediction": class_map(logits, thresholds)}


def planes_of(batch: Batch, head_output: Tensor, head: str, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The true and predicted map of a head; the true one is NaN where it is not valid."""
    predicted = head_output[index].float().cpu().numpy()
    predicted = predicted.reshape(predicted.shape[-2:])
    true = batch[head][index].float().cpu().numpy().reshape(predicted.shape)
    if "valid" in batch:
        true = np.where(batch["valid"][index].cpu().numpy().reshape(true.shape) > 0, true, np.nan)
    return true, predicted


def thinned(plane: NDArray[Any], side: int) -> NDArray[Any]:
    """A map (…, H, W) of at most `side` pixels per side, subsampled without interpolation."""
    rows, columns = (
        np.linspace(0, n - 1, max(round(n * min(side / max(plane.shape[-2:]), 1)), 1)).round().astype(int)
        for n in plane.shape[-2:]
    )
    return plane[..., rows[:, None], columns]


class First:
    """Keeps the first samples of an evaluation.

    Args:
        most: How many to keep.
        metric: The mask's metric.
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
        """One image per sample, by name: its panels in a row."""
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
            rows[-1].save(folder / f"{name}.png")
            predicted = sample.masks.get("prediction")
            if predicted is not None and predicted.ndim == 2 and labels.classes > 1:
                palette_image(predicted, labels).save(folder / f"{name}-labels.png")
        if rows:
            below(rows[:SHEET]).save(folder.with_suffix(".png"))


class Ranked:
    """Keeps the best and worst samples of an evaluation by one head.

    Masks are ranked by the mean IoU over the classes that occur in the ground truth or the prediction of the image,
    maps of values by the root mean squared error. Samples without a score (nothing labeled) are left out.

    Args:
        head: The head.
        metric: For a mask, the metric that counts its confusion; it is copied.
        most: How many of the best and of the worst to keep.
        step: Input pixels per output pixel.
    """

    def __init__(self, head: str, metric: Any = None, most: int = SHOWN, step: int = 1) -> None:
        self.head, self.most, self.step = head, most, step
        self.metric = copy.deepcopy(metric)
        self.is_mask = metric is not None
        self.kept: list[Sample] = []
        self.seen = 0

    def add(self, output: Any, batch: Batch) -> None:
        """Add a batch."""
        head_output = heads_of(output)[self.head]
        for index in range(len(batch["image"])):
            score = self._score(head_output, batch, index)
            self.seen += 1
            if math.isnan(score) or not self._is_wanted(score):
                continue
            thresholds = thresholds_of(self.metric)
            sample = Sample.of(batch, output, index, self.seen - 1, {self.head}, thresholds, self.step).small()
            sample.score = score
            self.keep([sample])

    @property
    def best(self) -> list[Sample]:
        """The best samples, best first; no sample is among both the best and the worst."""
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
    """Collects samples of an evaluation: the first ones, and the best and worst by each head.

    Args:
        labels: Names and colors of the classes.
        metrics: Metrics of the run by head.
        most: How many of the first samples to keep.
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
        """Merge the samples of all processes; all of them must call it."""
        own = {head: (ranked.is_mask, ranked.kept) for head, ranked in self.ranked.items()}
        self.ranked = {}
        for share in gather_object([own]):
            for head, (is_mask, kept) in share.items():
                ranked = self.ranked.setdefault(head, Ranked(head, self._counter(head) if is_mask else None))
                ranked.keep(kept)

    def _counter(self, head: str) -> Any:
        metric = self.metrics.get(head)
        return metric if hasattr(metric, "confusion") else METRICS.build("segmentation", labels=self.labels)


def _largest(mask: NDArray[Any], labels: LabelSpec) -> str:
    names = list(color_names(labels))
    if mask.ndim == 3:
        found = dict(zip(labels.names, (mask == 1).sum((1, 2)).tolist(), strict=True))
    else:
        values, counts = np.unique(mask, return_counts=True)
        known = zip(values.tolist(), counts.tolist(), strict=True)
        found = {names[value]: count for value, count in known if 0 <= value < len(names)}
    largest = sorted(found.items(), key=lambda entry: -entry[1])[:3]
    pixels = max(mask.shape[-1] * mask.shape[-2], 1)
    return ", ".join(f"{name} {count / pixels:.0%}" for name, count in largest) or "nothing"


def mean_iou(confusion: NDArray[Any]) -> float:
    """The mean IoU over the classes that occur in ground truth or prediction; NaN if none does.

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
    """A file name that is not taken yet."""
    plain = re.sub(r"[^\w.-]+", "_", name).strip(".")[-80:] or "sample"
    unique, number = plain, 2
    while unique.lower() in taken or f"{unique}-labels".lower() in taken:
        unique, number = f"{plain}-{number}", number + 1
    taken |= {unique.lower(), f"{unique}-labels".lower()}
    return unique
