"""What the datasets of official layouts share: files by the name they carry, pairs, divisions, samples of two files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import DataError, PairingError
from ..labels import LabelSpec
from .base import Sample, SampleTransform, SegmentationDataset
from .files import PathLike, check_same_size, read_image, read_mask
from .listing import list_folder, shown, summary

Pair = tuple[str, Path, Path]


class FilePairs(SegmentationDataset):
    """Base of datasets whose samples are an image file and a label file each.

    Args:
        root: The data's folder.
        files: (id, image, labels) of each sample.
        labels: What the classes are called.
        split: Which part of the data this is.
        transform: `transform(sample, rng) -> sample`, or None.
    """

    def __init__(
        self,
        root: PathLike,
        files: Sequence[Pair],
        *,
        labels: LabelSpec,
        split: str | None = None,
        transform: SampleTransform | None = None,
    ) -> None:
        super().__init__(labels=labels, split=split, transform=transform)
        self.root, self.files = Path(root), list(files)

    def __len__(self) -> int:
        return len(self.files)

    def sources(self) -> list[Path]:
        """All images and label files."""
        return [path for _, *pair in self.files for path in pair]

    def read_labels(self, path: Path) -> np.ndarray:
        """Decode a label file to class indices."""
        return read_mask(path, self.labels)

    def load(self, index: int) -> Sample:
        """Decode one pair."""
        name, image_path, mask_path = self.files[index]
        image, mask = read_image(image_path), self.read_labels(mask_path)
        check_same_size(image, mask, image_path, mask_path)
        return {"image": image, "mask": mask, "id": name}


def by_name(paths: Iterable[Path], suffix: str, faults: list[str]) -> dict[str, Path]:
    """Files by their stem without `suffix`; names borne twice join `faults`.

    Examples:
        >>> {name: path.name for name, path in by_name([Path("a_image.jpg"), Path("b.jpg")], "_image", []).items()}
        {'a': 'a_image.jpg', 'b': 'b.jpg'}
    """
    named: dict[str, Path] = {}
    for path in paths:
        name = path.stem.removesuffix(suffix)
        if name in named:
            faults.append(f"{named[name]} and {path.name} share a name")
        named.setdefault(name, path)
    return named


def paired(
    images: Mapping[str, Path],
    masks: Mapping[str, Path],
    *,
    subject: object,
    faults: Sequence[str] = (),
    hint: str = "",
) -> list[Pair]:
    """(name, image, labels) for every image, in the images' order.

    Args:
        images: Images by name.
        masks: Label files by name.
        subject: Where they lie, for the error.
        faults: What was wrong already.
        hint: What the user can do.

    Raises:
        PairingError: Images without labels, labels without images, and `faults`: all together.
    """
    faults = [
        *faults,
        *(f"{path} has no labels" for name, path in images.items() if name not in masks),
        *(f"{path} has no image" for name, path in masks.items() if name not in images),
    ]
    if faults:
        raise PairingError(
            "images and labels do not pair",
            subject=subject,
            expected="one label file for each image",
            found=summary(faults),
            hint=hint or "add or remove the named files",
        )
    return [(name, path, masks[name]) for name, path in images.items()]


def wrong_layout(data: str, root: Path, expected: str, how_to_get: str) -> DataError:
    """The error for a folder in which other things lie than should; a missing folder raises its own."""
    from ..doctor.recognize import looks_like  # it knows all layouts, and so all datasets

    there = shown(sorted(path.name + "/" * path.is_dir() for path in list_folder(root, how_to_get)))
    found = there + looks_like(root, data)
    return DataError(f"not the layout of {data}", subject=root, expected=expected, found=found, hint=how_to_get)


def divided(names: Iterable[str], split: str, seed: int, *, val: float, test: float, subject: object) -> set[str]:
    """The names of `"train"`, `"val"` or `"test"`, by a seeded shuffle of the sorted names; no part is empty.

    Args:
        names: All names.
        split: The part.
        seed: Seed of the shuffle.
        val: Share of val.
        test: Share of test.
        subject: Where they lie, for the error.

    Raises:
        DataError: Fewer than three names.

    Examples:
        >>> parts = [divided("abcdefghij", part, 0, val=0.1, test=0.2, subject="") for part in ("train", "val", "test")]
        >>> [len(part) for part in parts], len(set.union(*parts))
        ([7, 1, 2], 10)
    """
    ordered = sorted(names)
    if len(ordered) < 3:
        raise DataError("too few to divide", subject=subject, expected="3 or more", found=", ".join(ordered) or "none",
                        hint='use split="all", or add data')  # fmt: skip
    order = np.random.default_rng(np.random.SeedSequence([seed])).permutation(len(ordered))
    tests = max(1, round(len(ordered) * test))
    vals = tests + max(1, round(len(ordered) * val))
    part = {"test": order[:tests], "val": order[tests:vals], "train": order[vals:]}[split]
    return {ordered[i] for i in part}
