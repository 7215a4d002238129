"""DRIVE: the vessels of 40 retinas, 565×584 pixels, with the field of view of each.

Staal, Abràmoff, Niemeijer, Viergever and van Ginneken 2004, "Ridge-based vessel segmentation in color images of the
retina", IEEE Transactions on Medical Imaging 23(4):501-509.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from unetzoo import LabelSpec
from unetzoo.datasets import FileDataset, FileLayout, FilePattern, MaskValues, seeded_split
from unetzoo.errors import ConfigError, DataError, SizeMismatchError

VALIDATION = 4
IGNORED = 255
LABELS = LabelSpec(("background", "vessel"), ids=(0, 255), ignore_index=IGNORED)
SHOWN = MaskValues(LabelSpec(("outside", "inside"), ids=(0, 255)), "shown")
MANUAL = {1: "1st_manual", 2: "2nd_manual"}


class DRIVE(FileDataset):
    """Vessels against the rest of the retina.

    Images 21 to 40 are the official training set ("trainval" here), 01 to 20 the test set. Of the training set the
    last four, 37 to 40, are val. Pixels outside the field of view are ignored, as in published scores.

    Newer copies of the data withhold the manual segmentations of the test set: hand its images to `unetzoo predict`.

    Args:
        root: The folder that holds `training/` and `test/`, or an archive of it (.zip, .tar, .tar.gz, …).
        split: "train", "val", "trainval" or "test".
        observer: The observer: 1, the reference; or 2, only for the test set.
        field_of_view: Ignore the pixels outside it; else they are background.
        fold: "k/n": val is the k-th of n folds of the training set, instead of the last four images.
        transform: `transform(sample, rng) -> sample`, or None.

    Shape:
        `image` uint8 (584, 565, 3), `mask` uint8 (584, 565): 0 background, 1 vessel, 255 outside.

    Raises:
        ConfigError: Unknown split or observer.
        DataError: Another layout, or too few images to divide; `PairingError` for files that do not belong together.
            On access also `ImageDecodeError`, `ImageTooLargeError`, `LabelRangeError`, `SizeMismatchError`.
    """

    how_to_get: ClassVar[str] = """\
fetch the data at https://drive.grand-challenge.org/ and unpack them into one folder:
  training/     images/21_training.tif  …   1st_manual/21_manual1.gif  …   mask/21_training_mask.gif  …
  test/         images/01_test.tif  …       1st_manual/01_manual1.gif  …   mask/01_test_mask.gif  …
                2nd_manual/01_manual2.gif  …   (newer copies withhold both manuals)"""

    splits: ClassVar = ("train", "val", "trainval", "test")

    def __init__(
        self,
        root: str | Path,
        split: Literal["train", "val", "trainval", "test"] = "train",
        *,
        observer: Literal[1, 2] = 1,
        field_of_view: bool = True,
        fold: str | None = None,
        transform: Any = None,
    ) -> None:
        if observer not in MANUAL or (observer == 2 and split in ("train", "val", "trainval")):
            raise ConfigError(
                "unknown observer", subject="DRIVE", expected='1, or 2 with split="test"', found=repr(observer)
            )
        super().__init__(root, split, transform=transform, observer=observer, field_of_view=field_of_view, fold=fold)

    @classmethod
    def layouts_for(cls, **options: Any) -> tuple[FileLayout, ...]:
        """The segmentations of an observer, with the field of view where it counts."""
        manual, view = MANUAL[options.get("observer", 1)], options.get("field_of_view", True)
        number = manual[0]
        files = (
            FilePattern("image", "{split}/images/{name}_{split}.tif"),
            # black or white as shown, whatever numbers a GIF's palette gives to them
            FilePattern("mask", f"{{split}}/{manual}/{{name}}_manual{number}.gif", MaskValues(LABELS, "shown")),
            FilePattern("field of view", "{split}/mask/{name}_{split}_mask.gif"),
        )
        return (
            FileLayout(
                "drive", "DRIVE: training/ and test/ with images/, 1st_manual/ and mask/", files if view else files[:2],
                LABELS, needs=("image", "mask", "field of view") if view else ("image", "mask"), sample_names="{:02d}",
                parts={"training": ("train", "val", "trainval"), "test": ("test",)},
                aside=(r"test/[12][a-z]+_manual/.*",),
            ),
        )  # fmt: skip

    @classmethod
    def divide(
        cls, names: Sequence[str], split: str, root: Path, *, fold: str | None = None, **options: Any
    ) -> Collection[str]:
        """The last four of the training set are val, unless a fold is."""
        if split not in ("train", "val"):
            return names
        if fold is not None:
            return seeded_split(names, split, 0.2, 0, fold=fold, subject=root)
        if len(names) <= VALIDATION:
            raise DataError(
                "too few images to divide", subject=root, expected=f"more than {VALIDATION}", found=len(names),
                hint='use split="trainval", or fetch the data again',
            )  # fmt: skip
        return names[-VALIDATION:] if split == "val" else names[:-VALIDATION]

    def load(self, index: int) -> dict[str, Any]:
        """One image, its vessels, and 255 outside its field of view."""
        sample = super().load(index)
        if path := self.files[index].files.get("field of view"):
            inside = SHOWN.read(path)
            if inside.shape != sample["mask"].shape:
                raise SizeMismatchError(
                    "field of view and image differ in size", subject=path,
                    expected=f"{sample['mask'].shape[1]}×{sample['mask'].shape[0]}",
                    found=f"{inside.shape[1]}×{inside.shape[0]}", hint="fetch the data again",
                )  # fmt: skip
            sample["mask"] = np.where(inside == 1, sample["mask"], np.uint8(IGNORED))
        return sample

    def baseline(self, sample: dict[str, Any]) -> np.ndarray:
        """What a network must beat: background everywhere, which is right for seven pixels of eight."""
        return np.zeros_like(sample["mask"])
