"""Oxford-IIIT Pet: 7,349 listed images of cats and dogs of 37 breeds, with trimaps.

Parkhi, Vedaldi, Zisserman and Jawahar 2012, "Cats and dogs", IEEE CVPR.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from unetzoo import LabelSpec
from unetzoo.datasets import FileDataset, FileLayout, FilePattern
from unetzoo.errors import ConfigError, did_you_mean

PET, BACKGROUND, BORDER = 1, 2, 3  # what the trimaps hold
LABELS = {
    "ignore": LabelSpec(("background", "pet"), ids=(BACKGROUND, PET), ignore_ids=(BORDER,), ignore_index=255),
    "pet": LabelSpec(("background", "pet"), ids=(BACKGROUND, PET), remap={BORDER: 1}),
    "class": LabelSpec(("background", "pet", "border"), ids=(BACKGROUND, PET, BORDER)),
}
EVERY = 10  # of trainval, the first of every ten lines is val


class OxfordPet(FileDataset):
    """Pets against their background.

    The lists `trainval.txt` (3,680 names) and `test.txt` (3,669) are the official splits. Trainval is divided further
    as segmentation-models-pytorch does: its first line and every tenth after it are val (368), the others train. The
    lists are sorted by breed, so every breed is in both.

    Trimaps call a rim around each pet, a few pixels wide, "not classified". By default these pixels are ignored.

    Args:
        root: The folder that holds `images/` and `annotations/`, or an archive of it (.zip, .tar, .tar.gz, …).
        split: "train", "val", "trainval" or "test".
        border: What the rim is: "ignore"; "pet", as in the training example of segmentation-models-pytorch; or "class",
            a third class.
        transform: `transform(sample, rng) -> sample`, or None.

    Shape:
        `image` uint8 (H, W, 3) of many sizes, `mask` uint8 (H, W): 0 background, 1 pet, and 255 (ignored) or 2 border.

    Raises:
        ConfigError: Unknown split or border.
        DataError: Another layout, or a broken list; `PairingError` for listed files that are missing. On access also
            `ImageDecodeError`, `ImageTooLargeError`, `LabelRangeError`, `SizeMismatchError`.
    """

    how_to_get: ClassVar[str] = """\
unpack images.tar.gz and annotations.tar.gz of https://www.robots.ox.ac.uk/~vgg/data/pets/ into one folder:
  images/       Abyssinian_1.jpg  …
  annotations/  trainval.txt  test.txt
    trimaps/    Abyssinian_1.png  …"""

    splits: ClassVar = ("train", "val", "trainval", "test")

    def __init__(
        self,
        root: str | Path,
        split: Literal["train", "val", "trainval", "test"] = "train",
        *,
        border: Literal["ignore", "pet", "class"] = "ignore",
        transform: Any = None,
    ) -> None:
        if border not in LABELS:
            hint = did_you_mean(str(border), LABELS, "border")
            raise ConfigError("unknown border", subject="OxfordPet", expected=" | ".join(LABELS), found=repr(border),
                              hint=hint)  # fmt: skip
        super().__init__(root, split, transform=transform, border=border)

    @classmethod
    def layouts_for(cls, **options: Any) -> tuple[FileLayout, ...]:
        """Images and trimaps, with the lists of the official splits."""
        files = FilePattern("image", "images/{name}.jpg"), FilePattern("mask", "annotations/trimaps/{name}.png")
        return (
            FileLayout(
                "oxford-pet", "Oxford-IIIT Pet: images/, annotations/trimaps/ and the lists of the splits", files,
                LABELS[options.get("border", "ignore")], list_line="{name} 1 1 1", sample_names="Abyssinian_{}",
                lists={"annotations/trainval.txt": ("train", "val", "trainval"), "annotations/test.txt": ("test",)},
                aside=(r"annotations/.*", r"images/.*\.mat"),
            ),
        )  # fmt: skip

    @classmethod
    def divide(cls, names: Sequence[str], split: str, root: Path, **options: Any) -> Collection[str]:
        """The first line of trainval and every tenth after it are val."""
        if split not in ("train", "val"):
            return names
        return [name for line, name in enumerate(names) if (line % EVERY == 0) == (split == "val")]
