"""Scores of objects: average precision, panoptic quality, aggregated Jaccard index, counts, splits and merges."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError, InputShapeError, SizeMismatchError
from ..instances import Numbers, ObjectRule, separate
from ..labels import LabelSpec
from . import inputs
from .scores import ratio
from .state import SummedState

IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))


class Overlaps(NamedTuple):
    """The pairs of a true and a predicted object that share pixels.

    Args:
        true: Index of the true object of each pair.
        predicted: Index of the predicted object.
        shared: Number of shared pixels.
        true_areas: Area of each true object.
        predicted_areas: Area of each predicted object.
    """

    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    shared: NDArray[np.int64]
    true_areas: NDArray[np.int64]
    predicted_areas: NDArray[np.int64]

    @property
    def unions(self) -> NDArray[np.int64]:
        """Number of pixels of either object of each pair."""
        return self.true_areas[self.true] + self.predicted_areas[self.predicted] - self.shared


class InstancesMetric(SummedState):
    """Scores of objects, matched by their intersection over union (IoU).

    Predicted objects are those of [`separate`][unetzoo.instances.separate]: with two classes the connected pieces of
    class 1; with three classes, the third is the border between touching objects. True objects have the numbers in
    `instances`, in several pieces as well; without it they are separated as the predicted ones are.

    `compute` returns, over all objects:

    - `ap50`, `ap55`, … `ap95`: TP / (TP + FP + FN) for matches with IoU ≥ 0.5, 0.55, …, and `ap`, their mean
    - `image/ap50`, …, `image/ap`: the same for each image, averaged over the images with a true or predicted object
    - `precision`, `recall`, `f1`: of objects, at IoU ≥ 0.5
    - `pq`, `sq`, `rq`: panoptic quality, mean IoU of the matches with IoU > 0.5, and their F1
    - `aji`: aggregated Jaccard index of the objects of all images; `image/aji`: averaged over images
    - `count_error`, `count_bias`: mean |predicted − true| and mean (predicted − true) objects per image
    - `splits`: true objects that contain most pixels of each of several predicted ones; `merges`: predicted objects
      that contain most pixels of each of several true ones
    - `objects`, `predicted`, `images`: numbers of true objects, predicted objects, and images

    Scores without a denominator are NaN. Objects are compared on the host, so `update` waits for the device.

    Args:
        num_classes: 1 or 2: background and objects; 3: also borders between objects.
        ignore_index: Label of the pixels that do not count; that of `labels` by default.
        labels: Names of the classes, in this order.
        threshold: Probability above which a pixel belongs to an object.
        seed: Probability of the inside above which a pixel belongs to a seed.
        min_size: Smaller predicted objects are dropped, in pixels.

    Raises:
        ConfigError: Another number of classes; unusable thresholds.

    Examples:
        >>> truth = torch.tensor([[[1, 1, 0, 2, 2]]])
        >>> metric = InstancesMetric(num_classes=2)
        >>> metric.update(torch.tensor([[[1, 1, 0, 0, 0]]]), (truth > 0).long(), instances=truth)
        >>> scores = metric.compute()
        >>> scores["ap50"], scores["recall"], scores["count_bias"]
        (0.5, 0.5, -1.0)

    Source:
        Caicedo et al., "Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl", 2019; Schmidt et
        al., "Cell Detection with Star-Convex Polygons", 2018; Kirillov et al., "Panoptic Segmentation", 2019; Kumar et
        al., "A Dataset and a Technique for Generalized Nuclear Segmentation", 2017.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        ignore_index: int | None = None,
        labels: LabelSpec | None = None,
        threshold: float = 0.5,
        seed: float = 0.5,
        min_size: int = 0,
    ) -> None:
        self.names = inputs.class_names(num_classes, labels)
        if len(self.names) > 3:
            raise ConfigError("instances are scored for one kind of object", found=f"{len(self.names)} classes",
                              expected="background, object and, if there is one, border")  # fmt: skip
        if not isinstance(min_size, int) or min_size < 0:
            raise ConfigError("unusable min_size", expected="a number of pixels ≥ 0", found=repr(min_size))
        self.ignore_index = inputs.ignored_label(ignore_index, labels)
        self.threshold = inputs.check_probability(threshold, "threshold")
        self.seed, self.min_size = inputs.check_probability(seed, "seed"), min_size
        counts = ("objects", "predicted", "images", "scored", "splits", "merges", "above", "shared", "union", "excess")
        sums = ("iou", "image_aji")
        super().__init__(
            {
                "matches": torch.zeros(len(IOUS), dtype=torch.int64),
                "image_ap": torch.zeros(len(IOUS), dtype=torch.float64),
                "deviation": torch.zeros(1, dtype=torch.int64),
                **{name: torch.zeros(1, dtype=torch.int64) for name in counts},
                **{name: torch.zeros(1, dtype=torch.float64) for name in sums},
            }
        )

    @property
    def object_rule(self) -> ObjectRule:
        """How this metric finds objects, for predictions with the trained network."""
        return ObjectRule(self.threshold, self.seed, self.min_size, border=len(self.names) == 3)

    def rules(self) -> dict[str, Any]:
        """Return names, ignored label and settings."""
        return {name: getattr(self, name) for name in ("names", "ignore_index", "threshold", "seed", "min_size")}

    @torch.no_grad()
    def update(
        self, output: Tensor, target: Tensor, *, weight: Tensor | None = None, instances: Tensor | None = None
    ) -> None:
        """Count a batch.

        Args:
            output: Logits, or a map of predicted labels.
            target: The true labels; only needed for the ignored ones if `instances` is given.
            weight: Mask of the pixels that count: bool, or 0 and 1. All count by default.
            instances: The number of the true object of each pixel, 0 for the background.

        Shape:
            - output: floats (N, C, H, W), or integers (N, H, W)
            - target, instances: integers (N, H, W)
            - weight: (N, H, W) or (N, 1, H, W)

        Raises:
            InputShapeError: An output of the wrong shape.
            SizeMismatchError: Output, target, instances and weight of different sizes.
            DataError: A target without integer labels; weights other than 0 and 1.
            LabelRangeError: Labels outside the classes.
            NonFiniteError: NaN in the logits.
        """
        labels, logits = inputs.predicted_labels(output, len(self.names))
        truth = inputs.true_labels(target, labels, output)
        counted = torch.ones_like(truth, dtype=torch.bool) if self.ignore_index is None else truth != self.ignore_index
        weighed = inputs.counted_pixels(weight, truth)
        counted = counted if weighed is None else counted & weighed
        if instances is not None and instances.shape != truth.shape:
            raise SizeMismatchError("instances that do not fit the output", expected=tuple(truth.shape),
                                    found=tuple(instances.shape))  # fmt: skip
        wrong, unknown = (
            int((counted & ((values < 0) | (values >= len(self.names)))).sum()) for values in (truth, labels)
        )
        if wrong:
            raise inputs.range_error("truth", {"other values": wrong}, len(self.names))
        if unknown and logits:
            raise inputs.nan_error(unknown)
        if unknown:
            raise inputs.range_error("prediction", {"other values": unknown}, len(self.names))
        predicted = self._probabilities(output) if logits else self._certain(labels)
        true = self._certain(truth) if instances is None else instances.cpu().numpy()
        for index, kept in enumerate(counted.cpu().numpy()):
            found = self._separated(predicted[index], kept)
            given = self._separated(true[index], kept) if instances is None else np.where(kept, true[index], 0)
            self.count(given, found)

    def _probabilities(self, output: Tensor) -> NDArray[np.float32]:
        """Probabilities of all classes but the background, (N, C − 1, H, W)."""
        output = output.float()
        return (output.sigmoid() if output.shape[1] == 1 else output.softmax(1)[:, 1:]).cpu().numpy()

    def _certain(self, labels: Tensor) -> NDArray[np.float32]:
        classes = range(1, len(self.names))
        return torch.stack([labels == index for index in classes], 1).float().cpu().numpy()

    def _separated(self, probabilities: NDArray[np.float32], kept: NDArray[np.bool_]) -> Numbers:
        inside, *border = probabilities * kept
        return separate(inside, *border, threshold=self.threshold, seed=self.seed, min_size=self.min_size)

    def count(self, true: Numbers, predicted: Numbers) -> None:
        """Count one image of numbered objects.

        Args:
            true: The number of the true object of each pixel, 0 for the background.
            predicted: The same for the predicted objects.

        Shape:
            - true, predicted: integers ≥ 0 of the same shape

        Raises:
            InputShapeError: Arrays of different shapes.
        """
        pairs = overlaps(true, predicted)
        objects, found = len(pairs.true_areas), len(pairs.predicted_areas)
        iou = pairs.shared / pairs.unions
        matches = np.array([_matches(pairs, iou >= least) for least in IOUS])
        either = objects + found - matches
        above = iou > 0.5
        shared, union = _aggregated(pairs, iou)
        scored = objects + found > 0
        # Objects that lie mostly within another one.
        splits = np.bincount(pairs.true[2 * pairs.shared > pairs.predicted_areas[pairs.predicted]])
        merges = np.bincount(pairs.predicted[2 * pairs.shared > pairs.true_areas[pairs.true]])
        self._add(
            matches=matches, image_ap=matches / np.maximum(either, 1), objects=objects, predicted=found, images=1,
            scored=scored, splits=(splits > 1).sum(), merges=(merges > 1).sum(), above=above.sum(),
            iou=iou[above].sum(), shared=shared, union=union, image_aji=shared / max(union, 1), excess=found - objects,
            deviation=abs(found - objects),
        )  # fmt: skip

    def _add(self, **parts: Any) -> None:
        self.add(**{name: torch.as_tensor(np.atleast_1d(part)) for name, part in parts.items()})

    def compute(self) -> dict[str, float]:
        """Compute all scores of the images counted so far."""
        sums = {name: values.tolist() for name, values in self._sums.items()}
        matches, image_ap = sums.pop("matches"), sums.pop("image_ap")
        total = {name: values[0] for name, values in sums.items()}
        objects, predicted, images, scored = (total[name] for name in ("objects", "predicted", "images", "scored"))
        names = [f"ap{round(100 * least)}" for least in IOUS]
        pooled = [ratio(tp, objects + predicted - tp, math.nan) for tp in matches]
        by_image = [ratio(value, scored, math.nan) for value in image_ap]
        sq, rq = ratio(total["iou"], total["above"], math.nan), ratio(2 * total["above"], objects + predicted, math.nan)
        return {
            "ap": sum(pooled) / len(pooled),
            **dict(zip(names, pooled, strict=True)),
            "image/ap": sum(by_image) / len(by_image),
            **{f"image/{name}": value for name, value in zip(names, by_image, strict=True)},
            "precision": ratio(matches[0], predicted, math.nan),
            "recall": ratio(matches[0], objects, math.nan),
            "f1": ratio(2 * matches[0], objects + predicted, math.nan),
            "pq": ratio(2 * total["iou"], objects + predicted, math.nan),
            "sq": sq,
            "rq": rq,
            "aji": ratio(total["shared"], total["union"], math.nan),
            "image/aji": ratio(total["image_aji"], scored, math.nan),
            "count_error": ratio(total["deviation"], images, math.nan),
            "count_bias": ratio(total["excess"], images, math.nan),
            **{name: float(total[name]) for name in ("splits", "merges", "objects", "predicted", "images")},
        }


def overlaps(true: Numbers, predicted: Numbers) -> Overlaps:
    """Find the pairs of objects that share pixels, without a table of all pairs.

    Args:
        true: Numbers of objects, 0 for the background; gaps are allowed.
        predicted: The same for the prediction.

    Raises:
        InputShapeError: Arrays of different shapes.

    Examples:
        >>> pairs = overlaps(np.array([0, 7, 7, 9]), np.array([1, 1, 1, 0]))
        >>> pairs.shared.tolist(), pairs.true_areas.tolist(), pairs.predicted_areas.tolist()
        ([2], [2, 1], [3])
    """
    if true.shape != predicted.shape:
        raise InputShapeError("label images of different sizes", expected=true.shape, found=predicted.shape)
    (_, places, areas), (found, found_places, found_areas) = (
        np.unique(np.append(image.ravel(), 0), return_inverse=True, return_counts=True) for image in (true, predicted)
    )
    keys, shared = np.unique(places[:-1] * len(found) + found_places[:-1], return_counts=True)
    one, two = keys // len(found) - 1, keys % len(found) - 1  # 0 is the first of both, so the background becomes −1
    kept = (one >= 0) & (two >= 0)
    return Overlaps(one[kept], two[kept], shared[kept], areas[1:], found_areas[1:])


def _matches(pairs: Overlaps, close: NDArray[np.bool_]) -> int:
    """The largest number of one-to-one matches among pairs with IoU ≥ 0.5.

    Objects are in one such pair, or in two with exactly half of the larger one each, of which one counts.
    """
    ones, twos = len(np.unique(pairs.true[close])), len(np.unique(pairs.predicted[close]))
    return ones + twos - int(close.sum())


def _aggregated(pairs: Overlaps, iou: NDArray[np.float64]) -> tuple[int, int]:
    """Numerator and denominator of the aggregated Jaccard index; the best prediction may serve several objects."""
    order = np.lexsort((-iou, pairs.true))
    true, first = np.unique(pairs.true[order], return_index=True)
    best = order[first]
    unused = np.ones(len(pairs.predicted_areas), bool)
    unused[pairs.predicted[best]] = False
    missed = np.ones(len(pairs.true_areas), bool)
    missed[true] = False
    union = pairs.unions[best].sum() + pairs.true_areas[missed].sum() + pairs.predicted_areas[unused].sum()
    return int(pairs.shared[best].sum()), int(union)
