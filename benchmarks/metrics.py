"""Updates of a segmentation metric from label maps and from logits."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unetzoo import METRICS

from .floors import of_bytes
from .harness import Race

CUDA = torch.cuda.is_available()
CLASSES, SIZE = 19, (8, 1024, 2048) if CUDA else (2, 512, 1024)
DEVICE = "cuda" if CUDA else "cpu"


def races() -> Iterator[Race]:
    size = "×".join(map(str, SIZE))
    for what, mistakes in PREDICTIONS.items():
        predicted, truth = labels(mistakes)
        yield Race(
            f"from label maps, {size}, {CLASSES} classes, {what}",
            from_labels(predicted, truth), check(predicted, truth), notes=NOTES,
            work=(predicted.numel() / 1e6, "Mpx"), memory=True,
            limit=of_bytes(predicted.nbytes + truth.nbytes),
        )  # fmt: skip
    predicted, truth = labels(border)
    logits = torch.randn(SIZE[0], CLASSES, *SIZE[1:], device=DEVICE)
    logits.scatter_add_(1, predicted[:, None], torch.full_like(logits[:, :1], 4.0))
    for what, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        given = logits.to(dtype)
        yield Race(
            f"from logits, {SIZE[0]}×{CLASSES}×{SIZE[1]}×{SIZE[2]}, {what}",
            from_logits(given, truth), check(argmax_of(given), truth), notes=NOTES,
            work=(predicted.numel() / 1e6, "Mpx"), memory=True,
            limit=of_bytes(given.nbytes + truth.nbytes),
        )  # fmt: skip


Labels = np.ndarray[Any, np.dtype[np.int64]]


def border(truth: Labels, rng: np.random.Generator) -> Labels:
    """Regions with errors along their borders, like predictions of a network."""
    return np.roll(truth, (3, 3), (1, 2))


def scattered(truth: Labels, rng: np.random.Generator) -> Labels:
    """Every tenth pixel is wrong, at random."""
    return np.where(rng.random(SIZE) < 0.9, truth, rng.integers(0, CLASSES, SIZE))


def noise(truth: Labels, rng: np.random.Generator) -> Labels:
    """Noise without regions."""
    return rng.integers(0, CLASSES, SIZE)


PREDICTIONS = {"wrong along borders": border, "wrong at scattered pixels": scattered, "noise": noise}
NOTES = {
    "unetzoo": "labels outside the classes are counted by value",
    "torch.bincount": "bincount(truth·C + prediction): no check of any label",
    "torchmetrics": "as shipped",
    "torchmetrics, unchecked": "validate_args=False",
    "SMP": "get_stats and iou_score, as its examples do",
    "kornia": "mean_iou",
}


def labels(mistakes: Callable[[Labels, np.random.Generator], Labels]) -> tuple[Tensor, Tensor]:
    """Ground truth with square regions, and a prediction."""
    rng = np.random.default_rng(0)
    batch, height, width = SIZE
    truth = rng.integers(0, CLASSES, (batch, height // 32, width // 32)).repeat(32, 1).repeat(32, 2)
    return torch.from_numpy(mistakes(truth, rng)).to(DEVICE), torch.from_numpy(truth).to(DEVICE)


def from_labels(predicted: Tensor, truth: Tensor) -> dict[str, Callable[[], Any]]:
    ours = METRICS.build("segmentation", num_classes=CLASSES)

    def update() -> Tensor:
        ours.reset()
        ours.update(predicted, truth)
        return ours.confusion

    def bincount() -> Tensor:
        return torch.bincount((truth * CLASSES + predicted).flatten(), minlength=CLASSES**2).view(CLASSES, CLASSES)

    return {"unetzoo": update, "torch.bincount": bincount, **peers(lambda: predicted, truth)}


def from_logits(logits: Tensor, truth: Tensor) -> dict[str, Callable[[], Any]]:
    ours = METRICS.build("segmentation", num_classes=CLASSES)

    def update() -> Tensor:
        ours.reset()
        ours.update(logits, truth)
        return ours.confusion

    def bincount() -> Tensor:
        bins = (truth * CLASSES + logits.argmax(1)).flatten()
        return torch.bincount(bins, minlength=CLASSES**2).view(CLASSES, CLASSES)

    return {"unetzoo": update, "torch.argmax, torch.bincount": bincount, **peers(lambda: logits.argmax(1), truth)}


def peers(predicted: Callable[[], Tensor], truth: Tensor) -> dict[str, Callable[[], Any]]:
    """The same update by the other libraries that are installed."""
    found: dict[str, Callable[[], Any]] = {}
    if importlib.util.find_spec("torchmetrics"):
        from torchmetrics.classification import MulticlassConfusionMatrix

        for name, validate in (("torchmetrics", True), ("torchmetrics, unchecked", False)):
            metric = MulticlassConfusionMatrix(CLASSES, validate_args=validate).to(truth.device)

            def update(metric: Any = metric) -> Tensor:
                metric.reset()
                metric.update(predicted(), truth)
                return metric.confmat

            found[name] = update
    if importlib.util.find_spec("segmentation_models_pytorch"):
        from segmentation_models_pytorch.metrics import get_stats, iou_score

        def smp() -> Tensor:
            output: Any = predicted()
            target: Any = truth
            counts = get_stats(output, target, mode="multiclass", num_classes=CLASSES)
            iou_score(*counts, reduction="macro")
            return torch.stack([part.sum(0) for part in counts])

        found["SMP"] = smp
    if importlib.util.find_spec("kornia"):
        from kornia.metrics import mean_iou

        found["kornia"] = lambda: mean_iou(predicted(), truth, CLASSES)
    return found


def argmax_of(logits: Tensor) -> Tensor:
    """The first channel with the largest value, by NumPy."""
    return torch.from_numpy(logits.float().cpu().numpy().argmax(1)).to(logits.device)


def check(predicted: Tensor, truth: Tensor) -> Callable[[dict[str, Any]], None]:
    """Compare every result with a plain count per image."""
    pairs = (truth * CLASSES + predicted).flatten(1)
    images = torch.stack([torch.bincount(image, minlength=CLASSES**2) for image in pairs])
    matrices = images.view(-1, CLASSES, CLASSES).cpu().double()

    def equal(outputs: dict[str, Any]) -> None:
        for name, output in outputs.items():
            output, matrix = output.cpu().double(), matrices if name == "kornia" else matrices.sum(0)
            tp = matrix.diagonal(dim1=-2, dim2=-1)
            fp, fn = matrix.sum(-2) - tp, matrix.sum(-1) - tp
            if name == "kornia":  # in fp32, of each image
                assert torch.allclose(output, tp / (tp + fp + fn), atol=1e-5), name
            elif name == "SMP":
                assert torch.equal(output, torch.stack([tp, fp, fn, matrix.sum() - tp - fp - fn])), name
            else:
                assert torch.equal(output, matrix), name

    return equal
