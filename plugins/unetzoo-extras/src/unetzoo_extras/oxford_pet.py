"""Oxford-IIIT Pet: 7,349 listed found of cats and dogs of 37 breeds, with trimaps.

Parkhi, Vedaldi, Zisserman and Jawahar 2012, "Cats and dogs", IEEE CVPR.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from unetzoo import LabelSpec
from unetzoo.datasets import FilePairs, by_name, check_split, data_root, list_folder, list_images, paired, wrong_layout
from unetzoo.errors import ConfigError, DataError, did_you_mean

PET, BACKGROUND, BORDER = 1, 2, 3  # what the trimaps hold
LABELS = {
    "ignore": LabelSpec(("background", "pet"), ids=(BACKGROUND, PET), ignore_ids=(BORDER,), ignore_index=255),
    "pet": LabelSpec(("background", "pet"), ids=(BACKGROUND, PET), remap={BORDER: 1}),
    "class": LabelSpec(("background", "pet", "border"), ids=(BACKGROUND, PET, BORDER)),
}
SPLITS = ("train", "val", "trainval", "test")
EVERY = 10  # of trainval, the first of every ten lines is val


class OxfordPet(FilePairs):
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

    def __init__(
        self,
        root: str | Path,
        split: Literal["train", "val", "trainval", "test"] = "train",
        *,
        border: Literal["ignore", "pet", "class"] = "ignore",
        transform: Any = None,
    ) -> None:
        check_split(split, SPLITS, "OxfordPet")
        if border not in LABELS:
            hint = did_you_mean(str(border), LABELS, "border")
            raise ConfigError("unknown border", subject="OxfordPet", expected=" | ".join(LABELS), found=repr(border),
                              hint=hint)  # fmt: skip
        root = data_root(root)
        if not {"images", "annotations"} <= {path.name for path in list_folder(root, self.how_to_get)}:
            raise wrong_layout("Oxford-IIIT Pet", root, "images/ and annotations/", self.how_to_get)
        names = _listed(root / "annotations" / ("test.txt" if split == "test" else "trainval.txt"), self.how_to_get)
        if split in ("train", "val"):
            names = [name for line, name in enumerate(names) if (line % EVERY == 0) == (split == "val")]
        faults: list[str] = []
        found = by_name(list_images(root / "images", self.how_to_get), "", faults)
        trimaps = by_name(list_images(root / "annotations" / "trimaps", self.how_to_get), "", faults)
        faults += [f"images/{name}.jpg is listed and not there" for name in names if name not in found]
        images = {name: found[name] for name in names if name in found}
        masks = {name: trimaps[name] for name in images if name in trimaps}
        files = paired(images, masks, subject=root, faults=faults, hint=self.how_to_get)
        super().__init__(root, files, labels=LABELS[border], split=split, transform=transform)


def _listed(path: Path, how_to_get: str) -> list[str]:
    """The names of a list: the first word of each line; a # begins a remark.

    Raises:
        DataError: It cannot be read, is empty, names an image twice, or holds other lines.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("cannot read the list of a split", subject=path, found=str(error), hint=how_to_get) from error
    rows = [(number, line.split()) for number, line in enumerate(lines, 1) if line.strip() and line[0] != "#"]
    wrong = [f"line {number}: {' '.join(words)[:60]!r}" for number, words in rows if not _is_row(words)]
    names = [words[0] for _, words in rows]
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    wrong += [f"{name} twice" for name in repeated]
    if wrong or not names:
        raise DataError(
            "a broken list of a split", subject=path, expected="lines such as 'Abyssinian_100 1 1 1', each name once",
            found="; ".join(wrong[:5]) or "no names", hint="fetch annotations.tar.gz again",
        )  # fmt: skip
    return names


def _is_row(words: list[str]) -> bool:
    """A name with a number behind it, then the numbers of class, species and breed."""
    stem, _, number = words[0].rpartition("_")
    return bool(stem) and number.isdecimal() and len(words) == 4 and all(word.isdecimal() for word in words[1:])
