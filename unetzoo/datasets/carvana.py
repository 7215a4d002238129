"""Carvana cars: 5,088 studio images of 1918×1280, 16 views of each of 318 cars.

Kaggle's Carvana Image Masking Challenge, 2017.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..labels import LabelSpec
from .base import SampleTransform, divided
from .file_dataset import FileDataset
from .files import PathLike
from .layout import FileLayout, FilePattern, MaskValues

NAMES = ("background", "car")
SHOWN, NUMBERS = LabelSpec(NAMES, ids=(0, 255)), LabelSpec(NAMES, ids=(0, 1))


def _layout(name: str, folder: str, other: str, about: str) -> FileLayout:
    return FileLayout(
        name, about,
        (
            FilePattern("image", f"{folder}/{{name}}.jpg"),
            FilePattern("mask", "train_masks/{name}_mask.gif", MaskValues(SHOWN, "shown", NUMBERS)),
        ),
        SHOWN, fields={"name": r"[^/]+_(?:0[1-9]|1[0-6])"}, aside=(rf"(?:{other}|test|test_hq)/.*|[^/]+\.csv",),
        options={"hq": True} if folder == "train_hq" else {},
    )  # fmt: skip


class Carvana(FileDataset):
    """Cars and background.

    Supported layout: `train/{car}_{01..16}.jpg` with `train_masks/{car}_{01..16}_mask.gif`.

    The 16 images of a car are nearly identical, so splits are divided by car: in a seeded shuffle of the car ids, the
    first tenth is test, the next tenth val and the rest train, with at least one car in each. Kaggle's own test images
    have no masks; use `unetzoo predict` for them.

    Masks are read by color: black (0) is background and white (255) is car, regardless of their palette indices in a
    GIF. A gray file that contains only 0 and 1 is read as class numbers. Any other value is an error.

    Args:
        root: The folder that contains these, or an archive (.zip, .tar, .tar.gz, …).
        split: "train", "val", "test" or "all".
        hq: Whether to read the images from `train_hq/`.
        split_seed: Seed of the division into splits.
        fold: "k/n": val is the k-th of n folds of the cars that are not in test.
        transform: `transform(sample, rng) -> sample`, or None.

    Shape:
        `image` uint8 (1280, 1918, 3), `mask` uint8 (1280, 1918): 0 background, 1 car.

    Raises:
        ConfigError: Unknown split.
        DataError: Wrong layout, or fewer than three cars; `PairingError` for unmatched files. On access also
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

    layouts = (
        _layout("carvana", "train", "train_hq", "Carvana: train/CAR_01.jpg and train_masks/CAR_01_mask.gif"),
        _layout("carvana-hq", "train_hq", "train", "Carvana with the images of train_hq/"),
    )
    splits = ("train", "val", "test", "all")

    def __init__(
        self,
        root: PathLike,
        split: Literal["train", "val", "test", "all"] = "train",
        *,
        hq: bool = False,
        split_seed: int = 0,
        fold: str | None = None,
        transform: SampleTransform | None = None,
    ) -> None:
        super().__init__(root, split, transform=transform, hq=hq, split_seed=split_seed, fold=fold)

    @classmethod
    def layouts_for(cls, **options: Any) -> tuple[FileLayout, ...]:
        """Return the layout with `train/` or `train_hq/`, or both if `hq` is not given."""
        return tuple(one for one in cls.layouts if options.get("hq") in (None, bool(one.options)))

    @classmethod
    def divide(
        cls, names: Sequence[str], split: str, root: Path, *, split_seed: int = 0, fold: str | None = None,
        **options: Any,
    ) -> Collection[str]:  # fmt: skip
        """Divide the names by car."""
        if split == "all":
            return names
        cars = {name.rpartition("_")[0] for name in names}
        chosen = divided(cars, split, split_seed, val=0.1, test=0.1, fold=fold, subject=f"cars in {root}")
        return [name for name in names if name.rpartition("_")[0] in chosen]
