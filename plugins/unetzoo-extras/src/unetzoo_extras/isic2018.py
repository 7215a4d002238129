"""ISIC 2018, task 1: 3,694 dermoscopic inputs with the boundary of the skin lesion.

Codella et al. 2019, "Skin lesion analysis toward melanoma detection 2018", arXiv:1902.03368; Tschandl et al. 2018, "The
HAM10000 dataset", Scientific Data 5:180161.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from unetzoo import LabelSpec
from unetzoo.datasets import FilePairs, by_name, check_split, data_root, list_folder, list_images, paired, wrong_layout

PARTS = {"train": "Training", "val": "Validation", "test": "Test"}


class ISIC2018(FilePairs):
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

    def __init__(
        self, root: str | Path, split: Literal["train", "val", "test"] = "train", *, transform: Any = None
    ) -> None:
        check_split(split, tuple(PARTS), "ISIC2018")
        root = data_root(root)
        inputs, truth = f"ISIC2018_Task1-2_{PARTS[split]}_Input", f"ISIC2018_Task1_{PARTS[split]}_GroundTruth"
        if not {inputs, truth} <= {path.name for path in list_folder(root, self.how_to_get)}:
            raise wrong_layout("ISIC 2018", root, f"{inputs}/ and {truth}/", self.how_to_get)
        faults: list[str] = []
        images = by_name(list_images(root / inputs, self.how_to_get), "", faults)
        masks = by_name(list_images(root / truth, self.how_to_get), "_segmentation", faults)
        files = paired(images, masks, subject=root, faults=faults, hint=self.how_to_get)
        labels = LabelSpec(("skin", "lesion"), ids=(0, 255))
        super().__init__(root, files, labels=labels, split=split, transform=transform)
