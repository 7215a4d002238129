"""Show a sample of an evaluation and the network's output for it as images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..heads import heads_of
from ..inference.decide import Decision
from ..inference.images import class_map
from ..labels import LabelSpec
from ..wording import format_score
from .images import Pixels, color_names, colored, inputs_of, limits_of, overlaid, scaled, shrunk

OVERLAY = "prediction on input"
SIDE = 384  # largest side of an image on the page, in pixels
HALF = (0.5,)  # default probability above which a pixel is foreground

Batch = dict[str, Any]


@dataclass
class Sample:
    """One sample and the network's output for it.

    Args:
        name: The `id` of the sample, or its index.
        inputs: Input images of the network, by caption.
        masks: "truth" and "prediction", as class indices (H, W), or as 0 and 1 (K, H, W).
        planes: True and predicted planes (H, W) of heads such as depth; NaN where not valid.
        score: The score by which samples are ranked.
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
            batch: The batch, with targets on the output's grid.
            output: The network's output.
            index: Index in the batch.
            place: Index in the dataset.
            heads: Heads to keep. Default: all.
            thresholds: Thresholds of the metric of the mask.
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
        """Return all images by caption, in display order."""
        panels = self.inputs | {caption: colored(mask, labels) for caption, mask in self.masks.items()}
        if self.ground is not None and "prediction" in panels:
            panels[OVERLAY] = overlaid(self.ground, panels["prediction"])
        for head, (true, predicted) in self.planes.items():
            limits = limits_of(true, predicted)
            panels |= {f"true {head}": scaled(true, limits), f"predicted {head}": scaled(predicted, limits)}
        return panels

    def described(self, caption: str, labels: LabelSpec) -> str:
        """Describe a panel for screen readers: its three largest classes, or its range of values."""
        if caption in self.masks:
            return f": {_largest(self.masks[caption], labels)}"
        for head, planes in self.planes.items():
            for name, plane in zip((f"true {head}", f"predicted {head}"), planes, strict=True):
                if name == caption:
                    return ", from {} to {}".format(*map(format_score, limits_of(plane)))
        return ""

    def small(self, side: int = SIDE) -> Sample:
        """Return a copy of the sample with images of at most `side` pixels per side."""
        inputs = {caption: shrunk(image, side, smooth=True) for caption, image in self.inputs.items()}
        masks = {caption: thinned(mask, side) for caption, mask in self.masks.items()}
        planes = {head: (thinned(true, side), thinned(guess, side)) for head, (true, guess) in self.planes.items()}
        ground = None if self.ground is None else shrunk(self.ground, side, smooth=True)
        return Sample(self.name, inputs, masks, planes, self.score, ground)


def covered(image: Pixels, size: Sequence[int], step: int) -> Pixels | None:
    """Return the input pixels (H, W, 3) that an output covers: every `step`-th pixel of the center, or None."""
    rows, columns = (n * step for n in size)
    top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
    return None if min(top, left) < 0 else image[top : top + rows : step, left : left + columns : step]


def is_plane(batch: Mapping[str, Any], head: str, head_output: Tensor) -> bool:
    """Whether a head predicts a map of values, such as depth, rather than a mask."""
    target = batch.get(head)
    return isinstance(target, Tensor) and target.is_floating_point() and target.numel() == head_output.numel()


def thresholds_of(metric: Any) -> Sequence[float]:
    """Return the probability thresholds of a metric, for the foreground or for each label."""
    return metric.thresholds if hasattr(metric, "confusion") and hasattr(metric, "thresholds") else HALF


def masks_of(target: Tensor, logits: Tensor, thresholds: Sequence[float] = HALF) -> dict[str, NDArray[Any]]:
    """Return true and predicted classes. A target with several planes has one label per plane."""
    truth = target.cpu().numpy()
    if truth.ndim == 3 and len(truth) == len(logits) > 1:
        several = Decision(tuple(thresholds), mode="multilabel")
        return {"truth": truth, "prediction": several(logits.sigmoid()).cpu().numpy()}
    return {"truth": truth.reshape(truth.shape[-2:]), "prediction": class_map(logits, thresholds)}


def planes_of(batch: Batch, head_output: Tensor, head: str, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the true and predicted map of a head; the true map is NaN where it is not valid."""
    predicted = head_output[index].float().cpu().numpy()
    predicted = predicted.reshape(predicted.shape[-2:])
    true = batch[head][index].float().cpu().numpy().reshape(predicted.shape)
    if "valid" in batch:
        true = np.where(batch["valid"][index].cpu().numpy().reshape(true.shape) > 0, true, np.nan)
    return true, predicted


def thinned(plane: NDArray[Any], side: int) -> NDArray[Any]:
    """Subsample a map (…, H, W) to at most `side` pixels per side, without interpolation."""
    rows, columns = (
        np.linspace(0, n - 1, max(round(n * min(side / max(plane.shape[-2:]), 1)), 1)).round().astype(int)
        for n in plane.shape[-2:]
    )
    return plane[..., rows[:, None], columns]


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
