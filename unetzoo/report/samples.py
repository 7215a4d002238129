"""Samples beside their predictions: the first ones of an evaluation, and the best and the worst."""

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
SHOWN = 4  # best and worst samples each
SIDE = 384  # largest side of an image on the page
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
        """A sample of a batch.

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
        for head, answer in heads_of(output).items():
            if head not in batch or (heads is not None and head not in heads):
                continue
            if is_plane(batch, head, answer):
                sample.planes[head] = planes_of(batch, answer, head, index)
            else:
                sample.masks = masks_of(batch[head][index], answer[index], thresholds)
                sample.ground = covered(sample.inputs["input"], sample.masks["truth"].shape[-2:], step)
        return sample

    @property
    def photos(self) -> set[str]:
        """Captions of the panels that are photographs, not flat colors."""
        return {*self.inputs, OVERLAY}

    def panels(self, labels: LabelSpec) -> dict[str, Pixels]:
        """All its images, by caption, in the order in which they are shown."""
        panels = self.inputs | {caption: colored(mask, labels) for caption, mask in self.masks.items()}
        if self.ground is not None and "prediction" in panels:
            panels[OVERLAY] = overlaid(self.ground, panels["prediction"])
        for head, (true, predicted) in self.planes.items():
            limits = limits_of(true, predicted)
            panels |= {f"true {head}": scaled(true, limits), f"predicted {head}": scaled(predicted, limits)}
        return panels

    def described(self, caption: str, labels: LabelSpec) -> str:
        """What a panel shows, for those who cannot see it: its three largest classes, or its range of values."""
        if caption in self.masks:
            return f": {_largest(self.masks[caption], labels)}"
        for head, planes in self.planes.items():
            for name, plane in zip((f"true {head}", f"predicted {head}"), planes, strict=True):
                if name == caption:
                    return ", from {} to {}".format(*map(format_score, limits_of(plane)))
        return ""

    def small(self, side: int = SIDE) -> Sample:
        """The same in smaller images."""
        inputs = {caption: shrunk(image, side, smooth=True) for caption, image in self.inputs.items()}
        masks = {caption: thinned(mask, side) for caption, mask in self.masks.items()}
        planes = {head: (thinned(true, side), thinned(guess, side)) for head, (true, guess) in self.planes.items()}
        ground = None if self.ground is None else shrunk(self.ground, side, smooth=True)
        return Sample(self.name, inputs, masks, planes, self.score, ground)


def covered(image: Pixels, size: Sequence[int], step: int) -> Pixels | None:
    """The pixels of an input (H, W, 3) under an output: the center of it, every `step`-th; None where it is smaller."""
    rows, columns = (n * step for n in size)
    top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
    return None if min(top, left) < 0 else image[top : top + rows : step, left : left + columns : step]


def is_plane(batch: Mapping[str, Any], head: str, answer: Tensor) -> bool:
    """Whether a head answers a plane of numbers, as depth is, and no mask."""
    target = batch.get(head)
    return isinstance(target, Tensor) and target.is_floating_point() and target.numel() == answer.numel()


def thresholds_of(metric: Any) -> Sequence[float]:
    """The probabilities from which a metric counts a pixel as foreground, or as bearing a label."""
    return metric.thresholds if hasattr(metric, "confusion") and hasattr(metric, "thresholds") else HALF


def masks_of(target: Tensor, logits: Tensor, thresholds: Sequence[float] = HALF) -> dict[str, NDArray[Any]]:
    """True and predicted classes; a target of several planes has a label a plane."""
    truth = target.cpu().numpy()
    if truth.ndim == 3 and len(truth) == len(logits) > 1:
        several = Decision(tuple(thresholds), mode="multilabel")
        return {"truth": truth, "prediction": several(logits.sigmoid()).cpu().numpy()}
    return {"truth": truth.reshape(truth.shape[-2:]), "prediction": class_map(logits, thresholds)}


def planes_of(batch: Batch, answer: Tensor, head: str, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The true and the predicted plane of a head; the true one is NaN where it is not valid."""
    predicted = answer[index].float().cpu().numpy()
    predicted = predicted.reshape(predicted.shape[-2:])
    true = batch[head][index].float().cpu().numpy().reshape(predicted.shape)
    if "valid" in batch:
        true = np.where(batch["valid"][index].cpu().numpy().reshape(true.shape) > 0, true, np.nan)
    return true, predicted


def thinned(plane: NDArray[Any], side: int) -> NDArray[Any]:
    """A plane (…, H, W) of at most so many pixels a side, every n-th or so of its own values."""
    rows, columns = (
        np.linspace(0, n - 1, max(round(n * min(side / max(plane.shape[-2:]), 1)), 1)).round().astype(int)
        for n in plane.shape[-2:]
    )
    return plane[..., rows[:, None], columns]


class First:
    """Keeps the first samples of an evaluation.

    Args:
        most: How many.
        metric: The mask's metric.
        step: Input pixels per output pixel.
    """

    def __init__(self, most: int, metric: Any = None, step: int = 1) -> None:
        self.most, self.thresholds, self.step = most, thresholds_of(metric), step
        self.samples: list[Sample] = []

    def add(self, output: Any, batch: Batch) -> None:
        """Look at one more batch."""
        for index in range(min(len(batch["image"]), self.most - len(self.samples))):
            place = len(self.samples)
            self.samples.append(Sample.of(batch, output, index, place, None, self.thresholds, self.step))

    def images(self, labels: LabelSpec | None) -> dict[str, Pixels]:
        """An image a sample, by name: all of its panels in a row."""
        labels = labels or LabelSpec.indexed(256)
        return {sample.name: np.asarray(side_by_side(sample.panels(labels))) for sample in self.samples}

    def write(self, folder: Path, labels: LabelSpec) -> None:
        """Write `<id>.png`, with the predicted class indices `<id>-labels.png`, and a sheet of the first few."""
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
    """Keeps the best and the worst samples of an evaluation by one head.

    Masks are ranked by the mean IoU over the classes that occur in an image's truth or prediction, planes by the
    root of the mean squared error. Samples without a score (nothing labeled) are left out.

    Args:
        head: Which.
        metric: For a mask, the metric that counts its confusion; it is copied.
        most: How many at either end.
        step: Input pixels per output pixel.
    """

    def __init__(self, head: str, metric: Any = None, most: int = SHOWN, step: int = 1) -> None:
        self.head, self.most, self.step = head, most, step
        self.metric = copy.deepcopy(metric)
        self.is_mask = metric is not None
        self.kept: list[Sample] = []
        self.seen = 0

    def add(self, output: Any, batch: Batch) -> None:
        """Look at one more batch."""
        answer = heads_of(output)[self.head]
        for index in range(len(batch["image"])):
            score = self._score(answer, batch, index)
            self.seen += 1
            if math.isnan(score) or not self._is_wanted(score):
                continue
            thresholds = thresholds_of(self.metric)
            sample = Sample.of(batch, output, index, self.seen - 1, {self.head}, thresholds, self.step).small()
            sample.score = score
            self.keep([sample])

    @property
    def best(self) -> list[Sample]:
        """The best first; where there are few, none of them is among the worst too."""
        return self.kept[: -(-len(self.kept) // 2)]

    @property
    def worst(self) -> list[Sample]:
        """The worst first."""
        return self.kept[len(self.best) :][::-1]

    def keep(self, samples: list[Sample]) -> None:
        """Take in samples that have their scores."""
        self.kept = sorted([*self.kept, *samples], key=lambda sample: (self._rank(sample.score), sample.name))
        if len(self.kept) > 2 * self.most:
            self.kept = self.kept[: self.most] + self.kept[-self.most :]

    def _is_wanted(self, score: float) -> bool:
        return len(self.kept) < 2 * self.most or not (
            self._rank(self.kept[self.most - 1].score) <= self._rank(score) <= self._rank(self.kept[-self.most].score)
        )

    def _rank(self, score: float) -> float:
        return -score if self.is_mask else score

    def _score(self, answer: Tensor, batch: Batch, index: int) -> float:
        if not self.is_mask:
            true, predicted = planes_of(batch, answer, self.head, index)
            errors = (predicted - true)[np.isfinite(true)]
            return float(np.sqrt(np.mean(np.square(errors, dtype=np.float64)))) if errors.size else math.nan
        self.metric.reset()
        self.metric.update(answer[index : index + 1], batch[self.head][index : index + 1])
        return mean_iou(self.metric.confusion.cpu().numpy())


class Gallery:
    """What an evaluation shows: its first samples, and the best and the worst by each head.

    Args:
        labels: Names and colors.
        metrics: The run's metrics by head.
        most: How many of the first samples.
        step: Input pixels per output pixel.
    """

    def __init__(self, labels: LabelSpec, metrics: Mapping[str, Any], most: int = 12, step: int = 1) -> None:
        self.labels, self.metrics, self.step = labels, metrics, step
        self.first = First(most, metrics.get("mask"), step)
        self.ranked: dict[str, Ranked] = {}

    def add(self, output: Any, batch: Batch) -> None:
        """Look at one more batch; see `Trainer.evaluate`."""
        self.first.add(output, batch)
        for head, answer in heads_of(output).items():
            if head in batch and head not in self.ranked:
                metric = None if is_plane(batch, head, answer) else self._counter(head)
                self.ranked[head] = Ranked(head, metric, step=self.step)
        for ranked in self.ranked.values():
            ranked.add(output, batch)

    def gather(self) -> None:
        """Put together what all processes found. All of them call it."""
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
    """The mean IoU over the classes that occur in truth or prediction; NaN where none does.

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
    """A name for a file that none has yet."""
    plain = re.sub(r"[^\w.-]+", "_", name).strip(".")[-80:] or "sample"
    unique, number = plain, 2
    while unique.lower() in taken or f"{unique}-labels".lower() in taken:
        unique, number = f"{plain}-{number}", number + 1
    taken |= {unique.lower(), f"{unique}-labels".lower()}
    return unique
