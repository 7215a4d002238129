"""Compare an exported file with its network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import CheckpointMismatchError, InputShapeError
from .artifact import Artifact, load_artifact
from .decide import probabilities_of
from .pipeline import FLOATS, Pipeline
from .results import resized
from .tiling import predict

TOLERANCE = 1e-4
LABELS = 0.9999
REDUCED_LABELS = 0.995  # in bfloat16 and INT8
ROUNDED = 0.51  # maximum rounding error in levels; runtimes may round ties differently
BOUND = "the network may be bound to a size: size=(height, width), or --size HxW"
TIES = (
    "the classes of some pixels are tied up to rounding, as in an untrained network: train it, or skip the comparison "
    "with verify=False or --no-verify"
)
SIZES = ((2, 129, 166), (1, 187, 135), (3, 160, 128))  # images, height, width


@dataclass(frozen=True)
class Parity:
    """Differences between an exported file and its network.

    Args:
        error: Largest difference between probabilities or other heads.
        labels: Smallest fraction of equal labels over the sizes.
        sizes: (images, height, width) of each comparison.
    """

    error: float
    labels: float
    sizes: tuple[tuple[int, int, int], ...]


def compare(path: Path, pipeline: Pipeline, size: tuple[int, int] | None, subject: object = None) -> Parity:
    """Run a file and its network on the same images, of several sizes unless the size is fixed.

    The reference is `unetzoo.predict` on each preprocessed image, not the traced module. If images are resized, the
    preprocessing and the rest are compared separately: the resized images may differ by one of 255 levels where
    rounding is tied, and the subsequent steps are compared on the file's own resized image.

    Args:
        path: The file.
        pipeline: The network, preprocessing and decision from which it was exported.
        size: Size of all images; None if it is free.
        subject: Subject of errors, `path` by default.

    Raises:
        CheckpointMismatchError: Outputs differ by more than `TOLERANCE`, or fewer labels than `LABELS` are equal.
    """
    artifact, subject = load_artifact(path), subject or path
    if pipeline.shows_levels:
        artifact.info["outputs"]["levels"] = ""
    sizes = tuple((n, *(size or (height, width))) for n, height, width in SIZES[: 2 if size else None])
    error, labels = 0.0, 1.0
    for number, shape in enumerate(sizes):
        images = example(shape, pipeline, seed=number)
        outputs = _run(artifact, images.numpy(), subject)
        expected = reference(pipeline, images, outputs.pop("levels", None))
        labels = min(labels, float((outputs["labels"] == expected["labels"]).mean()))
        for name in (*outputs,)[1:]:
            difference = np.abs(outputs[name].astype(np.float64) - expected[name]).max()
            error = max(error, float(difference))
    if not error <= TOLERANCE or labels < LABELS:
        found = f"differences up to {error:.2g}, {labels:.4%} of the labels equal"
        raise _mismatch(subject, found, TIES if error <= TOLERANCE else BOUND)
    return Parity(error, labels, sizes)


def compare_labels(path: Path, pipeline: Pipeline, size: tuple[int, int] | None, subject: object) -> float:
    """Return the share of labels of a bfloat16 or INT8 file that equal the network's, on images of several sizes.

    Raises:
        CheckpointMismatchError: It is less than `REDUCED_LABELS`.
    """
    artifact, equal = load_artifact(path), 1.0
    for number, (count, *sides) in enumerate(SIZES[: 2 if size else None]):
        images = example((count, *(size or sides)), pipeline, seed=number)
        same = _run(artifact, images.numpy(), subject)["labels"] == reference(pipeline, images)["labels"]
        equal = min(equal, float(same.mean()))
    if equal < REDUCED_LABELS:
        raise CheckpointMismatchError(
            "the labels of the exported file differ from the network's",
            subject=subject,
            expected=f"{REDUCED_LABELS:.1%} equal labels",
            found=f"{equal:.2%}",
            hint='no file was left; export it in float32: precision="fp32", or --precision fp32',
        )
    return equal


def example(shape: Sequence[int], pipeline: Pipeline, seed: int) -> Tensor:
    """Generate images (N, H, W, C) that resemble photographs: smooth, with some noise."""
    count, height, width = shape
    rng = torch.Generator("cpu").manual_seed(seed)
    coarse = torch.rand(count, pipeline.in_channels, 6, 7, generator=rng, dtype=torch.float32, device="cpu") * 255
    levels = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    levels += torch.randn(levels.shape, generator=rng, dtype=levels.dtype, device=levels.device) * 8
    levels = levels.clamp(0, 255).permute(0, 2, 3, 1).contiguous()
    levels = levels.round() if pipeline.rounds else levels
    return levels / 255 if pipeline.dtype == FLOATS else levels.to(torch.uint8)


def reference(pipeline: Pipeline, images: Tensor, seen: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Compute the outputs of the original network, image by image.

    Args:
        pipeline: The network, preprocessing and decision.
        images: (N, H, W, C).
        seen: The images as resized by another runtime, (N, C, h, w), with levels 0…255.

    Raises:
        CheckpointMismatchError: The other runtime resized the images differently.
    """
    levels = images.permute(0, 3, 1, 2).float()
    levels = levels * 255 if pipeline.dtype == FLOATS else levels
    exact = pipeline.preprocess.unrounded(levels)
    levels = pipeline.preprocess.resized(levels, rounds=pipeline.rounds)
    if seen is not None:
        levels = torch.from_numpy(seen).clone()
        apart = float((levels - exact).abs().max())
        if not apart <= ROUNDED:
            raise _mismatch("the resized image", f"differences up to {apart:.3g} of 255 levels")
    size = images.shape[1], images.shape[2]
    rows: list[dict[str, np.ndarray]] = []
    for image in pipeline.preprocess.scaled(levels):
        output = predict(pipeline.net, image)
        heads = (output,) if isinstance(output, Tensor) else tuple(output)
        mask, *others = (resized(head, size).float() for head in heads)
        found = probabilities_of(pipeline.net, mask, mode=pipeline.decision.mode)
        row = {"labels": pipeline.decision(found), "probabilities": found}
        row |= dict(zip(pipeline.shape.heads[1:], others, strict=True))
        rows.append({name: tensor.numpy() for name, tensor in row.items()})
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _run(artifact: Artifact, images: np.ndarray, subject: object) -> dict[str, np.ndarray]:
    try:
        return artifact(images)
    except InputShapeError as error:
        raise _mismatch(subject, str(error.found)) from error


def _mismatch(subject: object, found: str, reason: str = BOUND) -> CheckpointMismatchError:
    return CheckpointMismatchError(
        "the outputs of the exported file differ from the network's",
        subject=subject,
        expected=f"differences of at most {TOLERANCE:g}, {LABELS:.2%} of the labels equal",
        found=found,
        hint=f"no file was left; {reason}",
    )
