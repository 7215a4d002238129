"""DRIVE: the vessels of 40 retinas, 565×584 pixels, with the field of view of each.

Staal, Abràmoff, Niemeijer, Viergever and van Ginneken 2004, "Ridge-based vessel segmentation in color images of the
retina", IEEE Transactions on Medical Imaging 23(4):501-509.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from unetzoo import LabelSpec
from unetzoo.datasets import (
    FilePairs,
    by_name,
    check_split,
    data_root,
    list_folder,
    list_images,
    map_labels,
    paired,
    read_image,
    wrong_layout,
)
from unetzoo.errors import ConfigError, DataError, SizeMismatchError

SPLITS = ("train", "val", "trainval", "test")
VALIDATION = 4
IGNORED = 255
LABELS = LabelSpec(("background", "vessel"), ids=(0, 255), ignore_index=IGNORED)
SHOWN = LabelSpec(("outside", "inside"), ids=(0, 255))
MANUAL = {1: "1st_manual", 2: "2nd_manual"}


class DRIVE(FilePairs):
    """Vessels against the rest of the retina.

    Images 21 to 40 are the official training set ("trainval" here), 01 to 20 the test set. Of the training set the
    last four, 37 to 40, are val. What lies outside the field of view is ignored, as in the published scores.

    Newer copies of the data withhold the manual segmentations of the test set: hand its images to `unetzoo predict`.

    Args:
        root: The folder that holds `training/` and `test/`, or an archive of it (.zip, .tar, .tar.gz, …).
        split: "train", "val", "trainval" or "test".
        observer: Whose segmentation: 1, the reference; or 2, of the test set alone.
        field_of_view: Ignore the pixels outside it; else they are background.
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

    def __init__(
        self,
        root: str | Path,
        split: Literal["train", "val", "trainval", "test"] = "train",
        *,
        observer: Literal[1, 2] = 1,
        field_of_view: bool = True,
        transform: Any = None,
    ) -> None:
        check_split(split, SPLITS, "DRIVE")
        if observer not in MANUAL or (observer == 2 and split != "test"):
            raise ConfigError(
                "unknown observer", subject="DRIVE", expected='1, or 2 with split="test"', found=repr(observer)
            )
        root = data_root(root)
        part, manual = "test" if split == "test" else "training", MANUAL[observer]
        if part not in {path.name for path in list_folder(root, self.how_to_get)}:
            raise wrong_layout("DRIVE", root, f"{part}/", self.how_to_get)
        needed = {"images", manual, "mask"}
        if not needed <= {path.name for path in list_folder(root / part, self.how_to_get)}:
            raise wrong_layout("DRIVE", root / part, ", ".join(f"{n}/" for n in sorted(needed)), self.how_to_get)
        faults: list[str] = []
        images, masks, views = (
            by_name(list_images(root / part / folder, self.how_to_get), ending, faults)
            for folder, ending in (("images", f"_{part}"), (manual, f"_manual{observer}"), ("mask", f"_{part}_mask"))
        )
        faults += [f"{path} has no field of view" for name, path in images.items() if name not in views]
        files = paired(images, masks, subject=root / part, faults=faults, hint=self.how_to_get)
        if split in ("train", "val"):
            files = _divided(files, split, root / part)
        super().__init__(root, files, labels=LABELS, split=split, transform=transform)
        self.views = views if field_of_view else {}

    def sources(self) -> list[Path]:
        """All images, segmentations and fields of view."""
        return [*super().sources(), *(self.views[name] for name, *_ in self.files if name in self.views)]

    def read_labels(self, path: Path) -> np.ndarray:
        """Decode a segmentation by what it shows: black or white, whatever numbers a GIF's palette gives to them."""
        return map_labels(read_image(path, channels=1)[..., 0], LABELS, path)

    def load(self, index: int) -> dict[str, Any]:
        """One image, its vessels, and 255 outside its field of view."""
        sample = super().load(index)
        if path := self.views.get(sample["id"]):
            inside = map_labels(read_image(path, channels=1)[..., 0], SHOWN, path)
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


def _divided(files: list[Any], split: str, subject: Path) -> list[Any]:
    if len(files) <= VALIDATION:
        raise DataError(
            "too few images to divide", subject=subject, expected=f"more than {VALIDATION}", found=len(files),
            hint='use split="trainval", or fetch the data again',
        )  # fmt: skip
    return files[-VALIDATION:] if split == "val" else files[:-VALIDATION]
