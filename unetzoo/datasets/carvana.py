"""Carvana cars: 5,088 studio images of 1918×1280, 318 cars from 16 sides each.

Kaggle's Carvana Image Masking Challenge, 2017.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from ..labels import LabelSpec
from .archive import data_root
from .base import SampleTransform, check_split
from .files import PathLike, map_labels, read_image
from .layout import FilePairs, by_name, divided, paired, wrong_layout
from .listing import list_folder, list_images

SPLITS = ("train", "val", "test", "all")
NAMES = ("background", "car")
SHOWN, NUMBERS = LabelSpec(NAMES, ids=(0, 255)), LabelSpec(NAMES, ids=(0, 1))


class Carvana(FilePairs):
    """Cars against their background.

    Layout read: `train/{car}_{01..16}.jpg` with `train_masks/{car}_{01..16}_mask.gif`.

    The 16 images of a car are nearly one image, so whole cars are divided: of a seeded shuffle of the car ids, the
    first tenth is test, the next tenth val, the rest train, and one car at least in each. Kaggle's own test images
    have no masks: hand those to `unetzoo predict`.

    A mask means what it shows: black (0) is background, white (255) car, whatever numbers a GIF's palette gives to
    them. A gray file that holds the numbers 0 and 1 alone is taken as numbers. Any other value is an error.

    Args:
        root: The folder that holds these, or an archive of it (.zip, .tar, .tar.gz, …).
        split: "train", "val", "test" or "all".
        hq: Take the images from `train_hq/`.
        split_seed: Seed of the division into splits.
        transform: `transform(sample, rng) -> sample`, or None.

    Shape:
        `image` uint8 (1280, 1918, 3), `mask` uint8 (1280, 1918): 0 background, 1 car.

    Raises:
        ConfigError: Unknown split.
        DataError: Another layout, or fewer than three cars; `PairingError` for files that do not pair. On access also
            `ImageDecodeError`, `ImageTooLargeError`, `LabelRangeError`, `SizeMismatchError`.

    Examples:
        >>> import tempfile; from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for folder, mode, end in (("train", "RGB", ".jpg"), ("train_masks", "L", "_mask.gif")):
        ...     (root / folder).mkdir()
        ...     for name in ("a_01", "a_02", "b_01", "c_01"):
        ...         Image.new(mode, (8, 6)).save(root / folder / (name + end))
        >>> [Carvana(root, part)[0]["id"] for part in ("train", "val", "test")]
        ['b_01', 'a_01', 'c_01']
    """

    how_to_get: ClassVar[str] = (
        "unpack train.zip (or train_hq.zip) and train_masks.zip of "
        "https://www.kaggle.com/c/carvana-image-masking-challenge into one folder"
    )

    def __init__(
        self,
        root: PathLike,
        split: Literal["train", "val", "test", "all"] = "train",
        *,
        hq: bool = False,
        split_seed: int = 0,
        transform: SampleTransform | None = None,
    ) -> None:
        check_split(split, SPLITS, "Carvana")
        root, folder = data_root(root), "train_hq" if hq else "train"
        found = {path.name for path in list_folder(root, self.how_to_get)}
        if not {folder, "train_masks"} <= found:
            raise wrong_layout("Carvana", root, f"{folder}/ and train_masks/", self.how_to_get)
        faults: list[str] = []
        images = by_name(list_images(root / folder, self.how_to_get), "", faults)
        masks = by_name(list_images(root / "train_masks", self.how_to_get), "_mask", faults)
        cars = {name: match[1] for name in images if (match := re.fullmatch(r"(.+)_(0[1-9]|1[0-6])", name))}
        faults += [f"{path} is not named CAR_01 to CAR_16" for name, path in images.items() if name not in cars]
        files = paired(images, masks, subject=root, faults=faults)
        if split != "all":
            chosen = divided(set(cars.values()), split, split_seed, val=0.1, test=0.1, subject=f"cars in {root}")
            files = [file for file in files if cars[file[0]] in chosen]
        super().__init__(root, files, labels=SHOWN, split=split, transform=transform)

    def read_labels(self, path: Path) -> np.ndarray:
        """Decode a mask by what it shows, or by its numbers where these are 0 and 1."""
        gray = read_image(path, channels=1)[..., 0]
        return map_labels(gray, NUMBERS if gray.max() <= 1 else SHOWN, path)
