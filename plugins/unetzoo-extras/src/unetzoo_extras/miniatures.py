"""The three layouts in miniature, with drawn images of a few pixels: what checks and tests read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from .isic2018 import PARTS

SIZE = 48, 40


def oxford_pet(root: Path, count: int = 20) -> Path:
    """`count` pets for trainval and four for test."""
    names = [f"{breed}_{number}" for number in range(1, count // 2 + 3) for breed in ("Abyssinian", "pug")]
    for number, name in enumerate(sorted(names)):
        disc, rim = _disc(number, 11), _disc(number, 14)
        _save(root / "images" / f"{name}.jpg", _image(number, disc))
        _save(root / "annotations" / "trimaps" / f"{name}.png", np.where(disc, 1, np.where(rim, 3, 2)))
    for split, part in (("trainval", names[:count]), ("test", names[count:])):
        rows = "".join(f"{name} {1 + name.startswith('pug')} 1 1\n" for name in sorted(part))
        (root / "annotations" / f"{split}.txt").write_text(rows, encoding="utf-8")
    return root


def drive(root: Path) -> Path:
    """Six images for training, three for test."""
    for part, numbers in (("training", range(35, 41)), ("test", range(1, 4))):
        for number in numbers:
            vessel, name = _vessel(number), f"{number:02d}"
            _save(root / part / "images" / f"{name}_{part}.tif", _image(number, vessel))
            _save(root / part / "mask" / f"{name}_{part}_mask.gif", 255 * _disc(0, 19))
            for observer, folder in ((1, "1st_manual"), (2, "2nd_manual"))[: 1 + (part == "test")]:
                _save(root / part / folder / f"{name}_manual{observer}.gif", 255 * vessel)
    return root


def isic2018(root: Path, count: int = 4) -> Path:
    """`count` images for training, two for validation and test each."""
    first = 0
    for split, part in PARTS.items():
        for number in range(first, first := first + (count if split == "train" else 2)):
            lesion, name = _disc(number, 12), f"ISIC_{number:07d}"
            _save(root / f"ISIC2018_Task1-2_{part}_Input" / f"{name}.jpg", _image(number, lesion))
            _save(root / f"ISIC2018_Task1_{part}_GroundTruth" / f"{name}_segmentation.png", 255 * lesion)
    return root


def _disc(number: int, radius: int) -> np.ndarray:
    down, right = np.ogrid[: SIZE[0], : SIZE[1]]
    return (down - 22 - number % 5) ** 2 + (right - 18 - number % 4) ** 2 <= radius**2


def _vessel(number: int) -> np.ndarray:
    down, right = np.ogrid[: SIZE[0], : SIZE[1]]
    return abs(down - right - number % 7) <= 1


def _image(number: int, thing: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(number).normal(0, 8, (*SIZE, 3))
    return np.clip(np.array([150, 110, 90]) - 70 * thing[..., None] + noise, 0, 255)


def _save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)
