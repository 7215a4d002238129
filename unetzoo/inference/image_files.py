"""Image files as a network takes them: one file, an image and its background, or one file per channel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError, SizeMismatchError
from ..images import Pixels, read_image
from ..images.decode import split_name
from ..images.georeference import Georeference
from ..images.reading import missing_in
from ..wording import pluralize
from .images import PathLike, files_for, in_channels_of
from .results import SegmentationResult
from .volumes import is_volume


class ImageFiles:
    """Reads the image files of a network.

    Args:
        net: The network.
        pixels: The declared channels and range of values, or None.
    """

    def __init__(self, net: Any, pixels: Pixels | None) -> None:
        self.in_channels, self.pixels = in_channels_of(net), pixels

    def read(self, path: PathLike, background: PathLike | None) -> np.ndarray:
        """Read an image, stacked with its background if given, as (H, W, C).

        Raises:
            DataError: A file cannot be read, or the two differ in size.
            ConfigError: The file is a volume, or the network takes other images.
        """
        if is_volume(Path(path), self.pixels):
            raise ConfigError("a volume, not an image", subject=path, expected="an image, or a decoded slice",
                              hint="predict_files joins its slices; or decode one by decode_image")  # fmt: skip
        channels = self.channels(background is not None)
        with files_for(channels):
            image = read_image(path, channels)
            if background is None:
                return image
            scene = read_image(background, channels)
        if scene.shape != image.shape:
            raise SizeMismatchError(
                "image and background differ in size",
                subject=background,
                expected=f"{image.shape[1]}×{image.shape[0]} as {path}",
                found=f"{scene.shape[1]}×{scene.shape[0]}",
                hint="give the background that belongs to the image",
            )
        return np.concatenate([image, scene], axis=2)

    def located(self, result: SegmentationResult, path: PathLike) -> SegmentationResult:
        """Add what the file of the image says about its position on Earth and about missing data."""
        channels = result.image.shape[2]
        own = self.pixels if self.pixels and self.pixels.channels == channels else None
        missing = missing_in(path, own or (3 if channels in (3, 6) else 1))
        return replace(result, missing=missing, georeference=Georeference.of(path))

    def stem(self, path: Path) -> str:
        """Return the stem of an image's results: that of its file, without the ending of the first channel."""
        stem = split_name(path)[0]
        return stem.removesuffix(self.pixels.files[0]) if self.pixels and self.pixels.files else stem

    def first_channels(self, images: list[Path], inputs: object) -> list[Path]:
        """Return the files of the first channels, if each channel is in a file of its own.

        Raises:
            DataError: There are none.
        """
        if not self.pixels or not self.pixels.files:
            return images
        first, *others = self.pixels.files
        stems = [(path, split_name(path)[0]) for path in images]
        chosen = [path for path, stem in stems if stem.endswith(first) or not stem.endswith(tuple(others))]
        if not chosen:
            raise DataError("no images", subject=inputs, expected=f"files whose stem ends in {first!r}",
                            found=", ".join(path.name for path in images[:8]), hint="check the names")  # fmt: skip
        return chosen

    def channels(self, pair: bool) -> int | Pixels:
        """Return what to read from each file: the declared channels, or 1 or 3.

        Raises:
            ConfigError: The network takes other images.
        """
        if self.pixels is not None and not pair and self.in_channels in (None, self.pixels.channels):
            return self.pixels
        taken = self.in_channels or (6 if pair else 3)
        if taken in ((2, 6) if pair else (1, 3)):
            return taken // 2 if pair else taken
        if taken in (2, 6):
            hint = "give `background`: this network takes an image and its background"
        elif pair and taken in (1, 3):
            hint = "omit `background`: this network takes only the image"
        elif pair:
            hint = "stack the channels yourself and pass the array to unetzoo.predict"
        else:
            hint = f"declare the channels of the files: pixels=Pixels({taken}, range=…)"
        raise ConfigError(
            "the network takes other images",
            expected=pluralize(taken, "channel"),
            found="an image and its background" if pair else "one image, gray or RGB",
            hint=hint,
        )
