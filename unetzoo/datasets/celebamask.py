"""CelebAMask-HQ: 30,000 faces with a mask file for each of up to 18 parts.

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
from .base import Sample, SampleTransform, check_split
from .file_dataset import FileDataset, divided
from .files import PathLike, map_labels, read_image
from .layout import FileLayout, FilePattern, MaskValues
from .listing import list_folder, summary
from .tree import Item

# in the order of the paper's code: a part's class is its position, from 1, and a later part paints over an earlier one
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
FIRST_VAL, FIRST_TEST = 162_771, 182_638  # numbers in CelebA at which its val and its test begin


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
    """Faces with their parts, put together from the part files by *name*: two orders of the ids circulate.

    Layout read: `CelebA-HQ-img/{id}.jpg` with `CelebAMask-HQ-mask-anno/{id//2000}/{id:05d}_{part}.png`. A part without
    a file is absent. A part file holds 0 and 255 (as gray, palette or RGB); any other value is an error.

    - Task `"parts"`: 19 classes, 0 background and 1…18 in the order of the paper's code, later parts painted over
      earlier ones. Left and right (`l_eye`, `r_eye`, …) are the *subject's*.
    - Task `"eyes-lips"`: `u_lip`, `l_lip`, `l_eye` and `r_eye` merged into class 1. Hair and glasses do not cover them.

    The split is CelebA's own, by `CelebA-HQ-to-CelebA-mapping.txt` in the root (24,183 / 2,993 / 2,824). Without
    that file it is 81 / 9 / 10 % of a seeded shuffle of the ids.

    Images (1024²) are brought to the size of their masks (512²) by bilinear interpolation, averaging.

    Args:
        root: The folder that holds these, or an archive (.zip, .tar, .tar.gz, …).
        split: "train", "val", "test" or "all".
        task: "parts" or "eyes-lips".
        bad_parts: What becomes of a part file that cannot be read or holds other values than 0 and 255 (copies of the
            release with a few such files are about): "raise" an error that names it, or "skip" it as if the part were
            absent. Part files of several sizes for one face are always an error.
        split_seed: Seed of the division where the mapping file is missing.
        transform: `transform(sample, rng) -> sample`, or None.

    Shape:
        `image` uint8 (512, 512, 3), `mask` uint8 (512, 512).

    Raises:
        ConfigError: Unknown split or task.
        DataError: Wrong layout, or an invalid mapping file; `PairingError` for part files of unknown names or places,
            and files that do not pair. On access also `ImageDecodeError`, `ImageTooLargeError`, `LabelRangeError`,
            `SizeMismatchError`.

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
        "fetch CelebAMask-HQ.zip, named at https://github.com/switchablenorms/CelebAMask-HQ, and give its folder with "
        f"{IMAGES}/ and {PART_FILES}/"
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
                                  found=repr(value), hint=f"give one of these as {name}")  # fmt: skip
        super().__init__(root, split, transform=transform, task=task, split_seed=split_seed)
        self.task, self.bad_parts = task, bad_parts
        self.files = [sample.image.name for sample in self.files]  # 30,000 samples of 18 paths are much to pickle

    @classmethod
    def layouts_for(cls, **options: Any) -> tuple[FileLayout, ...]:
        """With and without the mapping file, for a task."""
        task = str(options.get("task", "parts"))
        return (
            _layout("celebamask", "CelebAMask-HQ with the mapping file of CelebA's official split", task),
            _layout("celebamask-unmapped", "CelebAMask-HQ without a mapping file: a seeded split", task),
        )

    @classmethod
    def divide(
        cls, names: Sequence[str], split: str, root: Path, *, split_seed: int = 0, **options: Any
    ) -> Collection[str]:
        """The official split by the mapping file, or a seeded one."""
        if split == "all":
            return names
        if (root / MAPPING).exists():
            return _official(root / MAPPING, set(names), split)
        return divided(names, split, split_seed, val=0.09, test=0.1, subject=root / IMAGES)

    def _faults_of(self, items: Sequence[Item]) -> list[str]:
        """Part files that lie in another folder than their id says."""
        faults = []
        for item in items:
            for path in item.files.get("mask", ()):
                place = _part_file(int(item.name), self.layout.part_in(path))
                if not path.endswith(f"/{place}"):
                    faults.append(f"{self.root / path} should be {place}")
        return faults

    def sources(self) -> list[Path]:
        """The split's images and all part files that they have."""
        numbers = {int(Path(file).stem) for file in self.files}
        folders = [self.root / PART_FILES / str(number) for number in sorted({n // 2000 for n in numbers})]
        # by name alone: to ask the disk about each of 18 × 30,000 places takes long
        parts = [path for folder in folders for path in list_folder(folder) if _number(path) in numbers]
        return [*(self.root / IMAGES / file for file in self.files), *parts]

    def load(self, index: int) -> Sample:
        """Put one face together."""
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
        """The label map of a face; parts that the task does not want serve for its size, if no other is there."""
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
                        "part files of one face differ in size", subject=path, hint="fetch the face's files again",
                        expected=f"{mask.shape[1]}×{mask.shape[0]} as its others",
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
    """Where a part is, bool (H, W)."""
    try:
        return map_labels(read_image(path, channels=1)[..., 0], PRESENCE, path).astype(bool)
    except DataError as error:
        hint = 'fetch it again, or count it as absent with bad_parts="skip"'
        raise type(error)(error.what, subject=path, expected=error.expected, found=error.found, hint=hint) from error


def _official(path: Path, names: set[str], split: str) -> set[str]:
    """The ids of a split by the mapping file: rows of id, number in CelebA and file name, below a header."""
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
                        hint="fetch it again; or remove it for a seeded split")  # fmt: skip
    ranges = {"train": range(FIRST_VAL), "val": range(FIRST_VAL, FIRST_TEST), "test": range(FIRST_TEST, 10**9)}
    return {name for name in names if origin[name] in ranges[split]}
