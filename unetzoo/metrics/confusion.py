"""Segmentation scores, all computed from one integer confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import ConfigError, InputShapeError
from ..labels import LabelSpec
from . import imagewise, inputs
from .counting import PixelBins
from .inputs import Mode
from .scores import FORMULAS, Table, mean, one_vs_rest, ratio
from .state import SummedState


class SegmentationMetric(SummedState):
    """Confusion matrix of a segmentation and the scores computed from it.

    With tp, fp, fn, tn of one class against all others, over all counted pixels: IoU = tp/(tp+fp+fn),
    F1 = Dice = 2tp/(2tp+fp+fn), precision = tp/(tp+fp), sensitivity = tp/(tp+fn), specificity = tn/(tn+fp),
    accuracy = (tp+tn)/all. `compute` returns a flat dict:

    - `miou`, `mdice`: means of IoU and F1 over classes; `miou_defined`: the number of classes in these means, those
      that occur in truth or prediction; `fwiou`: mean IoU, each class weighted by its share of the true pixels
    - `pixel_accuracy`: share of correct pixels (of all pixels and labels if multilabel)
    - `iou/<class>`, `f1/…`, `precision/…`, `sensitivity/…`, `specificity/…`, `accuracy/…`
    - the same for each `<group>`: its classes merged, so that confusing them with each other is no error
    - `micro/<score>`: from tp, fp, fn, tn summed over classes; `macro/…`: the mean over classes; `weighted/…`: the mean
      weighted by true pixels; `defined/…`: the number of classes in the mean
    - `image/…` with `per_image`; `one_vs_rest/…` with `one_vs_rest`

    `update` never waits for the device. Invalid values are counted on the device and reported by `compute`.

    Args:
        num_classes: Number of classes; 1 means binary: one logit per pixel, two classes.
        ignore_index: Label of the pixels that do not count; that of `labels` by default.
        labels: Names and groups of the classes; two names for binary. By default classes are named by their index,
            and binary ones `background` and `foreground`.
        empty: Value of a score whose denominator is 0, such as IoU and F1 of a class that is in neither truth nor
            prediction: "nan" (not counted in the means), 0 or 1.
        threshold: The probability above which a pixel is foreground (binary) or has a label (multilabel; one for
            all labels, or one per label).
        mode: "multilabel" if a pixel may have several labels: (N, K, H, W), one 2×2 matrix per label. The other
            modes follow from the number of classes.
        per_image: Also score each image separately: `image/iou/<class>` and `image/f1/<class>`, means over the images
            where they are defined (`image/defined/<class>`); `image/miou` and `image/mdice`, means over images of
            each image's mean over classes; `image/count`.
        one_vs_rest: Also return `one_vs_rest/<score>`: classes as separate binary decisions, positive where softmax
            exceeds this probability (at least 0.5, so that a pixel has at most one class), summed over classes.
            At 0.5 these are the scores reported by a well-known comparison of U-Nets on Cityscapes. Accuracy
            starts high: with 19 classes, predicting nothing at all is correct in 18 of 19 cells.

    Raises:
        ConfigError: Neither num_classes nor labels, or both and they are inconsistent; settings that do not fit the
            mode.

    Examples:
        >>> metric = SegmentationMetric(num_classes=3, ignore_index=255)
        >>> metric.update(torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0, 1, 1, 255]]]))
        >>> metric.confusion
        tensor([[1, 0, 0],
                [1, 1, 0],
                [0, 0, 0]])
        >>> scores = metric.compute()
        >>> scores["miou"], scores["miou_defined"], scores["iou/2"]
        (0.5, 2.0, nan)

    Source:
        IoU as in Everingham et al., "The PASCAL Visual Object Classes Challenge", 2015, section 4.3; merged regions
        as in the Helen benchmark (Smith et al., "Exemplar-Based Face Parsing", 2013); fwIoU as in Long et
        al., "Fully Convolutional Networks for Semantic Segmentation", 2015, section 5.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        ignore_index: int | None = None,
        labels: LabelSpec | None = None,
        empty: Literal["nan", 0, 1] = "nan",
        threshold: float | Sequence[float] = 0.5,
        mode: Mode | None = None,
        per_image: bool = False,
        one_vs_rest: float | None = None,
    ) -> None:
        self.names = inputs.class_names(num_classes, labels, mode)
        self.groups = inputs.group_members(labels)
        self.num_classes = len(self.names)
        self.mode: Mode = inputs.checked_mode(mode, self.num_classes)
        self._multilabel = self.mode == "multilabel"
        self.ignore_index = inputs.ignored_label(ignore_index, labels)
        self.empty = inputs.empty_value(empty)
        self.thresholds = inputs.thresholds_of(threshold, self.mode, self.num_classes)
        if one_vs_rest is not None and (self._multilabel or not 0.5 <= one_vs_rest < 1.0):
            raise ConfigError(
                "unusable one_vs_rest", expected="a probability in [0.5, 1), not multilabel", found=one_vs_rest
            )
        self.per_image, self.one_vs_rest = bool(per_image), one_vs_rest
        self._bins = PixelBins(2 if self._multilabel else self.num_classes, self.ignore_index)
        self._tables = self.num_classes + len(self.groups) if self._multilabel else 1
        state = {"counts": torch.zeros(self._tables, self._bins.total, dtype=torch.int64)}
        if per_image:
            state |= imagewise.zeros(self.num_classes)
        if one_vs_rest is not None:
            state["sure"] = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)
        super().__init__(state)

    @property
    def confusion(self) -> Tensor:
        """Pixels by class, int64 (classes, classes), rows = truth; (labels, 2, 2) if multilabel."""
        matrix = self._bins.matrix(self._sums["counts"])
        return matrix[: self.num_classes] if self._multilabel else matrix[0]

    @torch.no_grad()
    def update(self, output: Tensor, target: Tensor, *, weight: Tensor | None = None) -> None:
        """Count a batch.

        Args:
            output: Logits, or predicted labels.
            target: The true labels.
            weight: Mask of the pixels that count: bool, or 0 and 1. All count by default.

        Shape:
            - output: logits (N, C, H, W), C = num_classes, or 1 for binary; or integers (N, H, W). Multilabel: logits,
              or integers 0 and 1, (N, K, H, W)
            - target: integers (N, H, W) or (N, 1, H, W); multilabel (N, K, H, W)
            - weight: (N, H, W) or (N, 1, H, W)

        Raises:
            InputShapeError: An output of the wrong shape.
            SizeMismatchError: Output, target and weight of different sizes.
            DataError: A target without integer labels; weights other than 0 and 1.
        """
        if weight is None and self._needs_only_argmax(output):
            counts = self._bins.count_logits(inputs.true_labels(target, output[:, 0], output), output)
            if counts is not None:
                return self.add(counts=counts)
        predicted, truth, logits = self._maps(output, target)
        counted = inputs.counted_pixels(weight, truth)
        counted = None if counted is None else self._grouped(counted.expand_as(truth))
        predicted, truth = self._grouped(predicted), self._grouped(truth)
        counts = self._bins.count(truth, predicted, counted, logits=logits).unflatten(0, (-1, self._tables))
        parts = {"counts": counts.sum(0)}
        if self.per_image:
            parts |= imagewise.sums(*self._by_class(self._bins.matrix(counts)), empty=self.empty)
        if self.one_vs_rest is not None:
            if logits:
                unsure = ~inputs.exceeds(output, self.one_vs_rest).view_as(predicted)
                predicted = predicted.masked_fill(unsure, self.num_classes)
            sure = self._bins.count(truth, predicted, counted, logits=logits)
            parts["sure"] = self._bins.matrix(sure).sum(0)
        self.add(**parts)

    def compute(self) -> dict[str, float]:
        """Compute all scores of the pixels counted so far.

        Raises:
            LabelRangeError: Labels outside the classes.
            NonFiniteError: NaN in the logits.
        """
        self.check()
        matrix = self._bins.matrix(self._sums["counts"].cpu())
        tables = [Table(*counts) for counts in zip(*(c[0].tolist() for c in self._by_class(matrix)), strict=True)]
        by_class = [table.scores(self.empty) for table in tables]
        support, micro = [table.tp + table.fn for table in tables], Table.sum(tables)
        averages = {
            name: {score: average([row[score] for row in by_class]) for score in FORMULAS}
            for name, average in (("macro", mean), ("weighted", lambda values: mean(values, support)))
        }
        right, total = (micro.tp + micro.tn, sum(micro)) if self._multilabel else (micro.tp, micro.tp + micro.fn)
        scores = {
            "miou": averages["macro"]["iou"],
            "mdice": averages["macro"]["f1"],
            "fwiou": averages["weighted"]["iou"],
            "pixel_accuracy": ratio(right, total, self.empty),
            "miou_defined": float(sum(table.defined("iou") for table in tables)),
        }
        parts = dict(zip(self.names, by_class, strict=True))
        parts |= {name: table.scores(self.empty) for name, table in self._merged(matrix).items()}
        for name, row in parts.items():
            scores |= {f"{score}/{name}": value for score, value in row.items()}
        averages["micro"] = micro.scores(self.empty)
        averages["defined"] = {score: float(sum(table.defined(score) for table in tables)) for score in FORMULAS}
        if self.one_vs_rest is not None:
            averages["one_vs_rest"] = self._sure_scores(tables)
        for name, row in averages.items():
            scores |= {f"{name}/{score}": value for score, value in row.items()}
        return scores | (imagewise.means(self._sums, self.names) if self.per_image else {})

    def check(self) -> None:
        """Raise an error if invalid labels or logits were counted.

        Raises:
            LabelRangeError: Labels outside the classes.
            NonFiniteError: NaN in the logits.
        """
        self._bins.check(self._sums["counts"].sum(0).tolist())

    def rules(self) -> dict[str, Any]:
        """Return names, groups, mode, ignored label, thresholds and options, ready for JSON."""
        return {
            "names": list(self.names),
            "groups": {name: list(members) for name, members in self.groups.items()},
            "mode": self.mode,
            "ignore_index": self.ignore_index,
            "threshold": list(self.thresholds),
            "per_image": self.per_image and str(self.empty),  # the sums depend on the policy
            "one_vs_rest": self.one_vs_rest,
        }

    def counts(self) -> dict[str, Tensor]:
        """Return all counts that can be scored: `confusion`, one matrix per table, `ignored`, and further sums."""
        state = self.state()
        counts = state.pop("counts")
        return {"confusion": self._bins.matrix(counts), "ignored": counts[:, self._bins.cells], **state}

    def add_counts(self, counts: Mapping[str, Tensor]) -> None:
        """Add the `counts` of another metric with the same rules."""
        state = torch.zeros_like(self._zeros["counts"])
        state[:, : self._bins.cells] = counts["confusion"].flatten(1)
        state[:, self._bins.cells] = counts["ignored"]
        rest = {name: part for name, part in counts.items() if name not in ("confusion", "ignored")}
        self.add(counts=state, **rest)

    def save(self, path: str | Path) -> None:
        """Write names, rules and counts as JSON, to be merged with others or scored again later; see `load`.

        Raises:
            LabelRangeError: Labels outside the classes.
            NonFiniteError: NaN in the logits.
            DataError: A file that cannot be written.
        """
        from .saved import save

        save(self, path)

    @staticmethod
    def load(path: str | Path, empty: Literal["nan", 0, 1] | None = None) -> SegmentationMetric:
        """Load a metric that `save` wrote.

        Args:
            path: The file.
            empty: Policy for scores without a denominator; the saved one by default.

        Raises:
            DataError: A file that cannot be read, or was not written by `save`.
            ConfigError: A different policy for means over images, which already depend on the saved one.
        """
        from .saved import load

        return load(SegmentationMetric, path, empty)

    def report(self, folder: str | Path) -> dict[str, float]:
        """Write scores.json, confusion.json, confusion.png and classes.png, and return the scores.

        Raises:
            LabelRangeError: Labels outside the classes.
            NonFiniteError: NaN in the logits.
            DataError: A folder that cannot be written to.
        """
        from . import figures
        from .report import write_scores

        scores, folder = write_scores(self.compute(), folder), Path(folder)
        self.save(folder / "confusion.json")
        figures.save(figures.confusion_figure(self.confusion, self.names), folder / "confusion.png")
        groups = [name for name in self.groups if name not in self.names]
        figures.save(figures.class_figure(scores, self.names, groups), folder / "classes.png")
        return scores

    def _needs_only_argmax(self, output: Tensor) -> bool:
        """Whether only the most likely class of the logits is counted, which a single kernel can do."""
        plain = not (self._multilabel or self.per_image or self.one_vs_rest is not None)
        by_class = output.ndim == 4 and output.shape[1] == self.num_classes and output.is_floating_point()
        return plain and by_class and self.thresholds == (0.5,)

    def _maps(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor, bool]:
        """Return predicted and true labels, (N, H, W) or (N, tables, H, W), and whether the output was logits."""
        if not self._multilabel:
            predicted, logits = inputs.predicted_labels(output, self.num_classes, self.thresholds[0])
            return predicted, inputs.true_labels(target, predicted, output), logits
        if output.ndim != 4 or output.shape[1] != self.num_classes or output.is_complex():
            found = f"{tuple(output.shape)} of {output.dtype}"
            raise InputShapeError(
                "unusable output", expected=f"logits or labels (N, {self.num_classes}, H, W)", found=found
            )
        predicted, logits = output, output.is_floating_point()
        if logits:
            planes = zip(output.unbind(1), self.thresholds, strict=True)
            predicted = torch.stack([inputs.above(plane, threshold) for plane, threshold in planes], 1)
        truth = inputs.true_labels(target, predicted, output)
        predicted, truth = ([maps, *self._unions(maps)] for maps in (predicted, truth))
        return torch.cat(predicted, 1), torch.cat(truth, 1), logits

    def _grouped(self, maps: Tensor) -> Tensor:
        """Reshape maps so that the first dimension is the table: each label of each image, each image, or the batch."""
        if self._multilabel:
            return maps.flatten(0, 1)
        return maps if self.per_image else maps[None]

    def _unions(self, maps: Tensor) -> list[Tensor]:
        """Return a map for each group: 1 where any member is; ignored, or NaN, where any member is."""
        unions = []
        for members in self.groups.values():
            union = (parts := maps[:, list(members)]).amax(1, keepdim=True)
            if self.ignore_index is not None:
                union = union.masked_fill((parts == self.ignore_index).any(1, keepdim=True), self.ignore_index)
            unions.append(union)
        return unions

    def _by_class(self, matrix: Tensor) -> tuple[Tensor, ...]:
        """Return tp, fp, fn, tn (N, classes) of matrices (N, tables, side, side)."""
        matrix = matrix.unflatten(0, (-1, self._tables)) if matrix.ndim == 3 else matrix
        if self._multilabel:
            return tuple(counts[..., 1] for counts in one_vs_rest(matrix[:, : self.num_classes]))
        return one_vs_rest(matrix[:, 0])

    def _merged(self, matrix: Tensor) -> dict[str, Table]:
        if self._multilabel:
            unions = [Table.of(union, [1]) for union in matrix[self.num_classes :].tolist()]
            return dict(zip(self.groups, unions, strict=True))
        rows = matrix[0].tolist()
        return {name: Table.of(rows, members) for name, members in self.groups.items()}

    def _sure_scores(self, tables: Sequence[Table]) -> dict[str, float]:
        sure = self._sums["sure"].cpu()
        found = zip(tables, sure.diagonal().tolist(), sure.sum(0).tolist(), strict=True)
        counts = [
            Table(tp, guess - tp, table.tp + table.fn - tp, table.tn + table.fp - guess + tp)
            for table, tp, guess in found
        ]
        return Table.sum(counts).scores(self.empty)
