"""CelebAMask-HQ: 30,000 faces, each with up to 18 mask files, one per part.

Lee et al. 2020, "MaskGAN: towards diverse and interactive facial image manipulation", CVPR, arXiv 1907.11922.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image

from ..errors import ConfigError, DataError, ImageDecodeError, SizeMismatchError
from ..labels import LabelSpec
from .base import Sample, SampleTransform, check_split, divided
from .file_dataset import FileDataset
from .files import PathLike, map_labels, read_image
from .layout import FileLayout, FilePattern, MaskValues
from .listing import list_folder, summary
from .tree import Item

# in the order of the paper's code: the class of a part is its position, from 1; later parts overwrite earlier ones
PARTS = (
    "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth", "u_lip", "l_lip", "hair",
    "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip
EYES_LIPS = ("u_lip", "l_lip", "l_eye", "r_eye")
LABELS = {
    "parts": LabelSpec(("background", *PARTS), swap_pairs=((4, 5), (6, 7), (8, 9)), side="subject"),
    "eyes-lips": LabelSpec(("background", "eyes-lips")),
}
VALUES = {"parts": {part: i for i, part in enumerate(PARTS, 1)}, "eyes-lips": dict.fromkeys(EYES_LIPS, 1)}
PRESENCE = LabelSpec(("absent", "present"), ids=(0, 255))
IMAGES, PART_FILES, MAPPING = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno", "CelebA-HQ-to-CelebA-mapping.txt"
FIRST_VAL, FIRST_TEST = 162_771, 182_638  # first CelebA numbers of its val and test splits


def _layout(name: str, about: str, task: str) -> FileLayout:
    return FileLayout(
        name, about,
        (
            FilePattern("image", f"{IMAGES}/{{name}}.jpg"),
            FilePattern("mask", f"{PART_FILES}/{{folder}}/{{name:05d}}_{{part}}.png", MaskValues(PRESENCE, "shown"),
                        suffixes=(".png",)),
        ),
        LABELS[task], joined=VALUES[task], aside=(r"[^/]+\.txt",),
        fields={"name": r"0|[1-9]\d*", "folder": r"\d+", "part": "|".join(PARTS)},
    )  # fmt: skip


class CelebAMask(FileDataset):
    """Faces and their parts, with part files matched by *name*, since two orders of the ids are in circulation.

    Supported layout: `CelebA-HQ-img/{id}.jpg` with `CelebAMask-HQ-mask-anno/{id//2000}/{id:05d}_{part}.png`. A part
    without a file is absent. Part files contain only 0 and 255 (as gray, palette or RGB); any other value is an error.

    - Task `"parts"`: 19 classes, 0 for background and 1…18 in the order of the paper's code; later parts overwrite
      earlier ones. Left and right (`l_eye`, `r_eye`, …) are the *subject's*.
    - Task `"eyes-lips"`: `u_lip`, `l_lip`, `l_eye` and `r_eye` merged into class 1. Hair and glasses do not cover them.

    Splits are those of CelebA, read from `CelebA-HQ-to-CelebA-mapping.txt` in the root (24,183 / 2,993 / 2,824).
    Without that file, they are 81 / 9 / 10 % of a seeded shuffle of the ids.

    Images (1024²) are resized to their masks (512²) by bilinear interpolation with antialiasing.

    Args:
        root: The folder that contains these, or an archive (.zip, .tar, .tar.gz, …).
        split: "train", "val", "test" or "all".
        task: "parts" or "eyes-lips".
        bad_parts: How to handle a part file that is unreadable or has values other than 0 and 255 (some copies of the
            release contain a few): "raise" an error that names the file, or "skip" it as if the part were absent.
            Part files of one face that differ in size are always an error.
        split_seed: Seed of the split if the mapping file is missing.
        transform: `transform(sample, rng) -> sample`, or None.

    Shape:
        `image` uint8 (512, 512, 3), `mask` uint8 (512, 512).

    Raises:
        ConfigError: Unknown split or task.
        DataError: Wrong layout, or an invalid mapping file; `PairingError` for part files with unknown names or in
            the wrong folder, and for unmatched files. On access also `ImageDecodeError`, `ImageTooLargeError`,
            `LabelRangeError`, `SizeMismatchError`.

    Examples:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / IMAGES).mkdir(), (root / PART_FILES / "1").mkdir(parents=True)
        (None, None)
        >>> Image.new("RGB", (16, 16)).save(root / IMAGES / "2007.jpg")
        >>> Image.new("L", (8, 8), 255).save(root / PART_FILES / "1" / "02007_l_eye.png")
        >>> sample = CelebAMask(root, "all")[0]
        >>> sample["id"], sample["image"].shape, int(sample["mask"][0, 0])
        ('2007', (8, 8, 3), 4)
    """

    how_to_get: ClassVar[str] = (
        "download CelebAMask-HQ.zip, linked from https://github.com/switchablenorms/CelebAMask-HQ; root is its folder "
        f"with {IMAGES}/ and {PART_FILES}/"
    )

    splits = ("train", "val", "test", "all")

    def __init__(
        self,
        root: PathLike,
        split: Literal["train", "val", "test", "all"] = "train",
        task: Literal["parts", "eyes-lips"] = "parts",
        *,
        bad_parts: Literal["raise", "skip"] = "raise",
        split_seed: int = 0,
        transform: SampleTransform | None = None,
    ) -> None:
        check_split(split, self.splits, "CelebAMask")
        for name, value, known in (("task", task, tuple(LABELS)), ("bad_parts", bad_parts, ("raise", "skip"))):
            if value not in known:
                raise ConfigError(f"unknown {name}", subject="CelebAMask", expected=" | ".join(known),
                                  found=repr(value), hint=f"set {name} to one of these")  # fmt: skip
        super().__init__(root, split, transform=transform, task=task, split_seed=split_seed)
        self.task, self.bad_parts = task, bad_parts
        self.files = [sample.image.name for sample in self.files]  # pickling 30,000 samples of 18 paths is slow

    @classmethod
    def layouts_for(cls, **options: Any) -> tuple[FileLayout, ...]:
        """Return the layouts of a task, with and without the mapping file."""
        task = str(options.get("task", "parts"))
        return (
            _layout("celebamask", "CelebAMask-HQ with the mapping file of CelebA's official split", task),
            _layout("celebamask-unmapped", "CelebAMask-HQ without a mapping file: a seeded split", task),
        )

    @classmethod
    def divide(
        cls, names: Sequence[str], split: str, root: Path, *, split_seed: int = 0, **options: Any
    ) -> Collection[str]:
        """Return the official split from the mapping file, or else a seeded split."""
        if split == "all":
            return names
        if (root / MAPPING).exists():
            return _official_split(root / MAPPING, set(names), split)
        return divided(names, split, split_seed, val=0.09, test=0.1, subject=root / IMAGES)

    def _faults_of(self, items: Sequence[Item]) -> list[str]:
        """List part files in a folder that does not match their id."""
        faults = []
        for item in items:
            for path in item.files.get("mask", ()):
                place = _part_file(int(item.name), self.layout.part_in(path))
                if not path.endswith(f"/{place}"):
                    faults.append(f"{self.root / path} should be {place}")
        return faults

    def sources(self) -> list[Path]:
        """Return the images of the split and all their part files."""
        numbers = {int(Path(file).stem) for file in self.files}
        folders = [self.root / PART_FILES / str(number) for number in sorted({n // 2000 for n in numbers})]
        # list folders, since checking 18 × 30,000 paths one by one is slow
        parts = [path for folder in folders for path in list_folder(folder) if _number(path) in numbers]
        return [*(self.root / IMAGES / file for file in self.files), *parts]

    def load(self, index: int) -> Sample:
        """Load one face."""
        path = self.root / IMAGES / self.files[index]
        mask = self._paint(int(path.stem))
        image, (height, width) = read_image(path), mask.shape
        if image.shape[0] * width != image.shape[1] * height:
            raise SizeMismatchError(
                "image and part files differ in shape", subject=path, expected=f"the proportions of {width}×{height}",
                found=f"{image.shape[1]}×{image.shape[0]}", hint="the image was cropped or belongs to another id",
            )  # fmt: skip
        if image.shape[:2] != mask.shape:
            image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        return {"image": image, "mask": mask, "id": path.stem}

    def _paint(self, number: int) -> np.ndarray:
        """Merge the part files of a face into a mask; parts outside the task are read only if its size is unknown."""
        values = VALUES[self.task]
        mask: np.ndarray | None = None
        for part in sorted(PARTS, key=lambda part: part not in values):
            if part not in values and mask is not None:
                break
            path = self.root / PART_FILES / _part_file(number, part)
            if os.path.exists(path):
                try:
                    present = _read_part(path)
                except DataError:
                    if self.bad_parts == "raise":
                        raise
                    continue
                if mask is None:
                    mask = np.zeros(present.shape, np.uint8)
                if present.shape != mask.shape:
                    raise SizeMismatchError(
                        "part files of one face differ in size", subject=path,
                        hint="download the files of this face again",
                        expected=f"{mask.shape[1]}×{mask.shape[0]}, as the others",
                        found=f"{present.shape[1]}×{present.shape[0]}",
                    )  # fmt: skip
                mask[present] = values.get(part, 0)
        if mask is None:
            raise ImageDecodeError("no readable part file", subject=self.root / PART_FILES / _part_file(number, "*"),
                                   hint="download the files again")  # fmt: skip
        return mask


def _number(path: Path) -> int | None:
    match = re.fullmatch(r"(\d+)_\w+\.png", path.name)
    return int(match[1]) if match else None


def _part_file(number: int, part: str) -> str:
    return f"{number // 2000}/{number:05d}_{part}.png"


def _read_part(path: Path) -> np.ndarray:
    """Read where a part is present, bool (H, W)."""
    try:
        return map_labels(read_image(path, channels=1)[..., 0], PRESENCE, path).astype(bool)
    except DataError as error:
        hint = 'download it again, or treat it as absent with bad_parts="skip"'
        raise error.replace(subject=path, hint=hint) from error


def _official_split(path: Path, names: set[str], split: str) -> set[str]:
    """Read the ids of a split from the mapping file: a header, then rows of id, number in CelebA and file name."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            "cannot read the mapping file", subject=path, found=str(error), hint="download it again"
        ) from error
    origin: dict[str, int] = {}
    faults: list[str] = []
    for number, line in enumerate(lines, 1):
        match line.split():
            case [idx, original, *_] if idx.isdecimal() and original.isdecimal():
                origin[str(int(idx))] = int(original)
            case [idx, *_] if number > 1 or idx.isdecimal():  # the first line is the header
                faults.append(f"line {number}: {line[:40]!r} is not: id, number in CelebA, file name")
    faults += [f"{IMAGES}/{name}.jpg is not in it" for name in sorted(names - set(origin), key=int)]
    if faults:
        raise DataError("the mapping file does not fit the images", subject=path, found=summary(faults),
                        hint="download it again, or remove it to use a seeded split")  # fmt: skip
    ranges = {"train": range(FIRST_VAL), "val": range(FIRST_VAL, FIRST_TEST), "test": range(FIRST_TEST, 10**9)}
    return {name for name in names if origin[name] in ranges[split]}
