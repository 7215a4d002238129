"""Inputs of predictions: channels, image files, label maps."""

from __future__ import annotations

import glob
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..errors import DataError, InputShapeError, UnsupportedImageError
from ..images import Pixels
from ..images.decode import has_image_suffix
from ..labels import LabelSpec

GRAY = (128, 128, 128)

PathLike = str | os.PathLike[str]


def in_channels_of(net: nn.Module) -> int | None:
    """Channels that a network takes: its `in_channels`, or those of SMP's encoder; None if it declares neither."""
    for owner, name in ((net, "in_channels"), (getattr(net, "encoder", None), "_in_channels")):
        channels = getattr(owner, name, None)
        if isinstance(channels, int):
            return channels
    return None


def check_channels(net: nn.Module, image: Tensor) -> None:
    """Compare an image's channels with those that the network declares.

    Raises:
        InputShapeError: They differ.
    """
    expected = in_channels_of(net)
    if expected is None or len(image) == expected:
        return
    if expected in image.shape[1:]:
        hint = "tensors are (C, H, W), arrays (H, W, C): move the axis of the channels"
    else:
        hint = f"convert the image, or build the network with in_channels={len(image)}"
    raise InputShapeError(
        "the network takes other images",
        expected=f"{expected} channel{'s' * (expected != 1)}",
        found=f"{len(image)}, as (C, H, W): {tuple(image.shape)}",
        hint=hint,
    )


@contextmanager
def files_for(channels: int | Pixels | None) -> Iterator[None]:
    """For files of another kind than a network takes, hint at the kind that it takes, not at a declaration.

    Args:
        channels: What is read from each file: a number of channels of 8 bits, or declared channels.

    Raises:
        UnsupportedImageError: The file is of another kind.
    """
    try:
        yield
    except UnsupportedImageError as error:
        kind = {1: "gray", 3: "RGB"}.get(channels) if isinstance(channels, int) else None
        if kind is None:
            raise
        raise error.replace(
            hint=f"convert the image to {kind} with 8 bits per channel, which this network takes"
        ) from error


def find_images(inputs: PathLike | Sequence[PathLike]) -> list[Path]:
    """The files that a file, a folder, a glob or several of these stand for, in natural order, each once.

    In a folder, files with an image's suffix that are not hidden; for a glob (also with `**`), all files. Broken links,
    and among several inputs those that do not exist, are kept: they fail when they are read, without stopping the
    others.

    Raises:
        DataError: A folder without images; as the only input, a glob without matches or a missing file.
    """
    if not isinstance(inputs, str | os.PathLike):
        found: dict[str, Path] = {}
        for path in (path for entry in inputs for path in _listed(entry)):
            found.setdefault(os.path.abspath(path), path)
        return list(found.values())
    path = Path(inputs)
    if path.is_dir():
        listed = [p for p in path.iterdir() if has_image_suffix(p)]
    elif path.is_file():
        listed = [path]
    else:
        listed = [Path(name) for name in glob.glob(os.fspath(path), recursive=True)]
    images = sorted((p for p in listed if p.is_file() or _is_loose(p)), key=_natural)
    if not images:
        raise DataError(
            "no images", subject=inputs, expected="an image, a folder of images or a glob", hint="check the path"
        )
    return images


def _listed(entry: PathLike) -> list[Path]:
    names_nothing = not os.path.exists(entry) and not glob.glob(os.fspath(entry), recursive=True)
    return [Path(entry)] if names_nothing else find_images(entry)


def _is_loose(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _natural(path: Path) -> list[tuple[bool, int, str]]:
    """Sorts 2 before 10."""
    parts = re.split(r"(\d+)", str(path))
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def class_map(logits: Tensor, thresholds: Sequence[float] = (0.5,)) -> np.ndarray:
    """Predicted classes uint8 (H, W) of logits (C, H, W), as the segmentation metric counts them.

    Args:
        logits: Of one head.
        thresholds: The metric's: the probability above which one channel, or the second of two, is foreground.

    Examples:
        >>> class_map(torch.tensor([[[-1.0, 2.0]]])).tolist(), class_map(torch.tensor([[[2.0]]]), (0.9,)).tolist()
        ([[0, 1]], [[0]])
    """
    if len(logits) <= 2 and (len(logits) == 1 or thresholds[0] != 0.5):
        difference = logits[0] if len(logits) == 1 else logits[1] - logits[0]
        chosen = difference > math.log(thresholds[0] / (1 - thresholds[0]))
    else:
        chosen = logits.argmax(0)
    return chosen.to(torch.uint8).cpu().numpy()


def palette_image(classes: np.ndarray, labels: LabelSpec) -> Image.Image:
    """Classes uint8 (H, W) as a palette image: a pixel's value is its class, and any viewer shows the colors.

    Values that are no class are gray.
    """
    image = Image.fromarray(classes)
    colors = [*labels.palette, *[GRAY] * (int(classes.max(initial=0)) + 1 - labels.classes)]
    image.putpalette([value for color in colors for value in color])
    return image
