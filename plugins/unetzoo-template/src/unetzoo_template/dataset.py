"""A dataset that declares its layout, from which loading, `unetzoo doctor` and `unetzoo twin` follow."""

from pathlib import Path
from typing import Any, ClassVar

from unetzoo import LabelSpec
from unetzoo.datasets import FileDataset, FileLayout, FilePattern

LABELS = LabelSpec(("background", "disc", "square"))


class Shapes(FileDataset):
    """Discs and squares: `train/images/NAME.jpg` with `train/masks/NAME.png`, and the same for val.

    Args:
        root: The folder that holds `train/` and `val/`, or an archive of it.
        split: "train" or "val".
        transform: `transform(sample, rng) -> sample`.
    """

    how_to_get: ClassVar[str] = "write them with `unetzoo twin unetzoo-template-data OUT`"
    layouts: ClassVar = (
        FileLayout(
            "unetzoo-template-data",
            "train/images/, train/masks/, val/images/ and val/masks/, by stem",
            (FilePattern("image", "{split}/images/{name}.jpg"), FilePattern("mask", "{split}/masks/{name}.png")),
            LABELS,
            fields={"split": "train|val"},
            certainty=0.5,  # others call their folders so, too: the names of the files settle it
            telltale=r"sample_\d+",
        ),
    )
    splits: ClassVar = ("train", "val")

    def __init__(self, root: str | Path, split: str = "train", transform: Any = None) -> None:
        super().__init__(root, split, transform=transform)
