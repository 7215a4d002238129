"""ISIC 2018, task 1: 3,694 dermoscopic inputs with the boundary of the skin lesion.

Codella et al. 2019, "Skin lesion analysis toward melanoma detection 2018", arXiv:1902.03368; Tschandl et al. 2018, "The
HAM10000 dataset", Scientific Data 5:180161.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from unetzoo import LabelSpec
from unetzoo.datasets import FileDataset, FileLayout, FilePattern

LABELS = LabelSpec(("skin", "lesion"), ids=(0, 255))


class ISIC2018(FileDataset):
    """Lesions against the skin around them.

    The splits are the challenge's: 2,594 / 100 / 1,000 inputs, a folder each. Images differ in size, up to 30
    million pixels: let the transform make them smaller, and `[data] cache = true` keep what it made.

    Args:
        root: The folder that holds the challenge's folders, or an archive of it (.zip, .tar, .tar.gz, …).
        split: "train", "val" or "test".
        transform: `transform(sample, rng) -> sample`, or None.

    Shape:
        `image` uint8 (H, W, 3) of many sizes, `mask` uint8 (H, W): 0 skin, 1 lesion.

    Raises:
        ConfigError: Unknown split.
        DataError: Another layout; `PairingError` for files that do not pair. On access also `ImageDecodeError`,
            `ImageTooLargeError`, `LabelRangeError`, `SizeMismatchError`.
    """

    how_to_get: ClassVar[str] = """\
unpack the archives of task 1 at https://challenge.isic-archive.com/data/#2018 into one folder:
  ISIC2018_Task1-2_Training_Input/        ISIC_0000000.jpg  …
  ISIC2018_Task1_Training_GroundTruth/    ISIC_0000000_segmentation.png  …
  ISIC2018_Task1-2_Validation_Input/  ISIC2018_Task1_Validation_GroundTruth/
  ISIC2018_Task1-2_Test_Input/        ISIC2018_Task1_Test_GroundTruth/"""

    layouts: ClassVar = (
        FileLayout(
            "isic2018", "ISIC 2018, task 1: a folder of inputs and one of ground truth for each split",
            (
                FilePattern("image", "ISIC2018_Task1-2_{split}_Input/{name}.jpg"),
                FilePattern("mask", "ISIC2018_Task1_{split}_GroundTruth/{name}_segmentation.png"),
            ),
            LABELS, parts={"Training": ("train",), "Validation": ("val",), "Test": ("test",)},
            sample_names="ISIC_{:07d}",
        ),
    )  # fmt: skip

    def __init__(
        self, root: str | Path, split: Literal["train", "val", "test"] = "train", *, transform: Any = None
    ) -> None:
        super().__init__(root, split, transform=transform)
