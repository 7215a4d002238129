"""Figures of scores: confusion matrices, scores by class, the curves of a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure  # not pyplot: no display, no global state
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError, InputShapeError, SizeMismatchError
from .scores import Calibration, Curve

WRITTEN = 25  # most classes for which a cell has room for its number
NAMED = 60  # most names that fit along an axis


def confusion_figure(confusion: Tensor, names: Sequence[str]) -> Figure:
    """A confusion matrix, each row as shares of its true pixels; rows of classes without any are empty.

    A multilabel matrix (labels, 2, 2) is drawn with one row per label: of its true pixels the share found, of the
    others the share wrongly assigned to it.

    Args:
        confusion: Counts, rows = truth.
        names: One name per class.

    Shape:
        - confusion: integers (classes, classes) or (labels, 2, 2)

    Raises:
        InputShapeError: No confusion matrix.
        SizeMismatchError: Another number of names.

    Examples:
        >>> import torch
        >>> figure = confusion_figure(torch.tensor([[90, 10], [5, 20]]), ["road", "car"])
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['90', '10', '20', '80']
    """
    counts = confusion.cpu().numpy()
    square = counts.ndim == 2 and counts.shape[0] == counts.shape[1]
    if not square and counts.shape[1:] != (2, 2):
        raise InputShapeError("not a confusion matrix", expected="(C, C) or (K, 2, 2)", found=counts.shape)
    if len(names) != len(counts):
        raise SizeMismatchError("wrong number of names", expected=len(counts), found=len(names))
    pixels = counts.sum(-1, keepdims=True)
    shares = np.divide(counts, pixels, out=np.full(counts.shape, np.nan), where=pixels > 0)
    if square:
        columns, title = list(names), "Predicted, in % of the true pixels of a class"
    else:
        shares = shares[:, ::-1, 1]
        columns, title = ["found", "false alarm"], "In % of the pixels with, and without the label"
    true = pixels.reshape(len(names), -1)[:, -1].tolist()
    rows = [f"{name} ({_short(count)})" for name, count in zip(names, true, strict=True)]
    return _heat(shares, rows, columns, title)


def class_figure(scores: Mapping[str, float], classes: Sequence[str], groups: Sequence[str] = ()) -> Figure:
    """IoU and F1 of classes, and of groups below them, as bars; undefined ones are marked.

    Args:
        scores: What `SegmentationMetric.compute` gave.
        classes: The classes, from top to bottom.
        groups: Merged regions.

    Raises:
        DataError: A name that was not scored.
    """
    names = [*classes, *groups]
    if missing := [name for name in names if f"iou/{name}" not in scores]:
        raise DataError("no such class among the scores", found=missing)
    figure = Figure(figsize=(7.5, 1.4 + 0.34 * len(names)), layout="constrained")
    axes = figure.subplots()
    place = np.arange(len(names))
    for offset, (score, color) in zip((-0.2, 0.2), (("iou", "#1f5fa8"), ("f1", "#8fb8de")), strict=True):
        values = [scores[f"{score}/{name}"] for name in names]
        axes.barh(place + offset, np.nan_to_num(values), height=0.38, color=color, label={"f1": "F1"}.get(score, "IoU"))
        for where, value in zip(place + offset, values, strict=True):
            text = "not defined" if math.isnan(value) else f"{value:.3f}"
            axes.text(np.nan_to_num(value) + 0.01, where, text, va="center", fontsize=7)
    axes.set_yticks(place, names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.04 - 0.4 / (1 + len(names))), ncols=2, frameon=False)
    axes.set_title(f"mIoU {scores['miou']:.4f} over {scores['miou_defined']:.0f} of {len(classes)} classes")
    return figure


def sweep_figure(curve: Curve, calibration: Calibration, scores: Mapping[str, float]) -> Figure:
    """Precision over recall, scores over the threshold, and the calibration, side by side."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    recall, threshold, reliability = figure.subplots(1, 3)
    recall.plot(curve.recall, curve.precision)
    recall.set(xlabel="recall", ylabel="precision", title=f"Average precision {scores['average_precision']:.4f}")
    for name in ("f1", "iou", "precision", "recall"):
        threshold.plot(curve.threshold, getattr(curve, name), label=name)
    threshold.axvline(scores["best_threshold"], color="black", linewidth=0.8)
    title = f"Best F1 {scores['best_f1']:.4f} at {scores['best_threshold']:.3f}"
    threshold.set(xlabel="threshold", title=title)
    threshold.legend()
    reliability.plot([0, 1], [0, 1], color="gray", linewidth=0.8)
    reliability.plot(calibration.predicted, calibration.true, marker="o")
    for p, t, n in zip(calibration.predicted, calibration.true, calibration.pixels, strict=True):
        if n:
            reliability.annotate(_short(int(n)), (p, t), xytext=(4, -9), textcoords="offset points", fontsize=7)
    title = f"Calibration: ECE {scores['ece']:.4f} (with the pixels per bin)"
    reliability.set(xlabel="mean probability", ylabel="share of foreground", title=title)
    for axes in (recall, threshold, reliability):
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
    return figure


def save(figure: Figure, path: Path, dpi: int = 120) -> None:
    """Write a figure.

    Raises:
        DataError: A file that cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=dpi, bbox_inches="tight")  # long names stay in the image
    except OSError as error:
        raise DataError("cannot write the figure", subject=path, found=str(error)) from error


def _heat(shares: NDArray[Any], rows: Sequence[str], columns: Sequence[str], title: str) -> Figure:
    count, width = len(rows), len(columns)
    cell = 0.42 if count <= WRITTEN else max(0.12, 0.42 * WRITTEN / count)
    figure = Figure(figsize=(3.2 + cell * max(width, 6), 1.8 + cell * max(count, 4)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto" if width != count else "equal")
    axes.set_facecolor("#eeeeee")
    every = math.ceil(count / NAMED)
    size = 9 if count <= WRITTEN else 6
    axes.set_xticks(range(0, width, every), columns[::every], rotation=90, fontsize=size)
    axes.set_yticks(range(0, count, every), rows[::every], fontsize=size)
    axes.set_ylabel("truth (pixels)")
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axes, fraction=0.04, format=lambda share, _: f"{share:.0%}")
    if count <= WRITTEN:
        for (row, column), share in np.ndenumerate(shares):
            if share > 0:
                text = "<1" if share < 0.005 else f"{100 * share:.0f}"
                color = "white" if share > 0.55 else "black"
                axes.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
    return figure


def _short(number: int) -> str:
    """A count as a reader takes it in: 950, 12.3k, 4.56M.

    Examples:
        >>> [_short(n) for n in (950, 12_345, 4_560_000, 7_000_000_000)]
        ['950', '12.3k', '4.56M', '7G']
    """
    for unit, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{letter}"
    return str(number)
