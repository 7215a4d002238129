"""The base class of datasets whose masks are painted from annotation files."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from unetzoo import LabelSpec
from unetzoo.datasets import (
    FileLayout,
    Sample,
    SegmentationDataset,
    check_split,
    data_root,
    refuse_division,
    seeded_split,
)
from unetzoo.errors import ConfigError, DataError, PairingError, did_you_mean
from unetzoo.images import Pixels, Stored, decode_image, read_stored

from .places import SPLITS, Places, ids_of
from .reading import Annotations, Entry, Faults, Region, inside
from .shapes import Canvas, check_fits


class Annotated(SegmentationDataset):
    r"""Base class of datasets of images and annotation files; a subclass reads one format.

    - **Splits.** If `annotations` or `images` contains `{split}`, or the annotation files themselves assign images to
      splits, these are the splits; the word in a path may also be `valid` or `validation`, `training`, `testing`.
      Otherwise the images are divided into `"train"` and `"val"`: val is about `val_fraction` of them, chosen with
      `split_seed`, or one of n folds. All images of a `group` are on the same side. `None` is all images.
    - **Classes.** The background and all categories in the order of the file, whatever their numbers. `names` selects
      and reorders them; objects of other categories are left out, as if they were not annotated.
    - **Order.** Objects are painted in the order of the file (`order="file"`), later ones over earlier ones, or the
      largest first (`order="area"`). Ignored regions are painted below all objects.
    - **Background.** Pixels that no object covers are of the class `background`. A category of that name is this class.
      With `background=""` there is no such class, and these pixels are ignored.
    - **Images.** Files that are not listed are not read. Listed images that do not exist are an error. Images without
      objects are background, or left out with `empty=False`.
    - **Sizes.** An image must have the size that the file declares, after EXIF has turned it upright.

    Args:
        root: The folder of the data, or an archive (.zip, .tar, .tar.gz, …).
        split: "train", "val", "test", or None for all images.
        annotations: The annotation file, relative to `root`, in which `{split}` stands for the split; by default the
            only one there, or the one of each split.
        images: The folder of the images, relative to `root`, in which `{split}` stands for the split; by default the
            folder that contains the listed images.
        names: Class names in order, the background included; by default all categories.
        background: Name of the class of all other pixels; "" ignores them.
        ignore: Categories whose regions are ignored.
        order: "file" or "area".
        empty: Whether to keep images without objects.
        instances: Whether samples have `instances`: 0, or the number of the object of each pixel, counted from 1 in the
            order of the file.
        channels: 3 for RGB images, 1 for gray ones, another number for the channels as stored; by default that of
            `bands`, or 3. See `unetzoo.images.Pixels`.
        bands: The channels that are read, in this order, counted from 1, e.g. [3, 2, 1, 7].
        range: The values that become 0 and 1, required for images of more than 8 bits: [low, high], one such pair per
            channel, "dtype", "percentile" or "image".
        val_fraction: Share of "val" if nothing else defines the splits.
        split_seed: Seed of this division.
        group: Regular expression of the group of an image in its id, e.g. `r"^(\d+)_"` for the patient number in
            "17_left": its first capturing group, or else the whole match.
        fold: "k/n": "val" is the k-th of n folds, k = 1…n, instead of `val_fraction`.
        transform: `transform(sample, rng) -> sample`, or None.

    Shape:
        `image` uint8 (H, W, channels), or float32 with a range; `mask` (H, W), in which ignored pixels are 255, or
        65535 if there are more than 255 classes; `instances` int64 (H, W).

    Raises:
        ConfigError: Unknown split, class or option.
        DataError: No or damaged annotation files; `PairingError` for missing images. All faults are in one error. On
            access also `ImageDecodeError`, `ImageTooLargeError` and `SizeMismatchError`.
    """

    layouts: ClassVar[tuple[FileLayout, ...]]

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str | None = None,
        annotations: str | None = None,
        images: str | None = None,
        *,
        names: Sequence[str] | None = None,
        background: str = "background",
        ignore: Sequence[str] = (),
        order: Literal["file", "area"] = "file",
        empty: bool = True,
        instances: bool = False,
        channels: int | None = None,
        bands: Sequence[int] | None = None,
        range: Any = None,
        val_fraction: float = 0.2,
        split_seed: int = 0,
        group: str | None = None,
        fold: str | None = None,
        transform: Any = None,
    ) -> None:
        kind = type(self).__name__
        if split is not None:
            check_split(split, SPLITS, kind)
        _check_options(kind, names, ignore, order, val_fraction)
        self.root = data_root(root)
        if not self.root.is_dir():
            hint = (
                f'root is its folder; set annotations="{self.root.name}"' if self.root.is_file() else "check the path"
            )
            raise DataError("not a folder" if self.root.exists() else "no such folder", subject=self.root, hint=hint)
        self.order, self.background, self.instances = order, background, instances
        self.pixels = Pixels(channels, bands, range)
        places = Places(self.root)
        found = self.read(places, split, annotations, images)
        subject = found.files[0] if len(found.files) == 1 else self.root
        if found.faults.count:
            raise DataError("faulty annotations", subject=subject, found=found.faults.summary(),
                            hint="correct or remove these annotations, or export them again")  # fmt: skip
        labels = self._labels(found.categories, names, frozenset(ignore), subject)
        super().__init__(labels=labels, split=split, transform=transform)
        entries = [entry for entry in found.entries if empty or any(map(self._is_object, entry.regions))]
        if not entries:
            none = f"{len(found.entries)} images without objects" if found.entries else "none"
            raise DataError("no images in the annotations", subject=subject, found=none, hint=self.how_to_get)
        self._find_images(places, entries, None if images is None else places.of_split(images, split), subject)
        ids = ids_of([entry.name for entry in entries])
        division = {"val_fraction": val_fraction, "seed": split_seed, "group": group, "fold": fold}
        chosen = set(self._part(dict(zip(ids, entries, strict=True)), found.divided, subject, division))
        self.files = found.files
        self.entries = [entry for name, entry in zip(ids, entries, strict=True) if name in chosen]
        self.ids = [name for name in ids if name in chosen]

    @classmethod
    def layouts_for(cls, **options: Any) -> tuple[FileLayout, ...]:
        """The layout, for `unetzoo doctor`."""
        return cls.layouts

    @abstractmethod
    def read(self, places: Places, split: str | None, annotations: str | None, images: str | None) -> Annotations:
        """Read the annotation files of a split.

        Args:
            places: The files below the root.
            split: The split, or None.
            annotations: The argument of the dataset.
            images: The argument of the dataset.
        """

    def __len__(self) -> int:
        return len(self.entries)

    def sources(self) -> list[Path]:
        """The annotation files and all images."""
        return [*self.files, *(self.root / entry.name for entry in self.entries)]

    def load(self, index: int) -> Sample:
        """Decode an image and paint its mask."""
        entry = self.entries[index]
        path = self.root / entry.name
        image, missing = decode_image(path, self.pixels)
        height, width = image.shape[:2]
        check_fits(entry.size, height, width, path)
        canvas = Canvas(height, width, len(entry.regions))
        values = [self._values.get(self.background, self._ignored), *map(self._value_of, entry.regions)]
        for number in self._painting_order(entry, values, height, width):
            for shape in entry.regions[number - 1].shapes:
                try:
                    shape.paint(canvas, number)
                except DataError as error:
                    raise type(error)(
                        error.what, subject=f"{path}, object {number}", expected=error.expected, found=error.found,
                        hint="annotate this image, or restore the one that was annotated",
                    ) from error  # fmt: skip
        kind = np.uint8 if self._ignored == 255 else np.int32
        table = np.array([self._ignored if value is None else value for value in values], kind)
        mask = np.ascontiguousarray(table[canvas.columns].T)
        if missing is not None:
            mask[missing] = self._ignored
        sample: Sample = {"image": image, "mask": mask, "id": self.ids[index]}
        if self.instances:
            objects = np.array([0 if value == self._ignored else n for n, value in enumerate(values)], np.int64)
            sample["instances"] = np.ascontiguousarray(objects[canvas.columns].T)
        return sample

    def read_stored(self, index: int) -> Stored:
        """The values of an image as they are stored, for `unetzoo stats`."""
        return read_stored(self.root / self.entries[index].name, self.pixels)

    def _labels(
        self, categories: Sequence[str], names: Sequence[str] | None, ignore: frozenset[str], subject: Path
    ) -> LabelSpec:
        """The label set, and the value of each category in masks."""
        known = dict.fromkeys([self.background, *categories] if self.background else categories)
        if unknown := [name for name in (*(names or ()), *sorted(ignore)) if name not in known]:
            raise ConfigError("unknown class", subject=subject, expected=", ".join(list(known)[:20]), found=unknown[0],
                              hint=did_you_mean(str(unknown[0]), known, "class"))  # fmt: skip
        chosen = [name for name in known if name not in ignore] if names is None else list(names)
        if names is not None and self.background and self.background not in chosen:
            raise ConfigError("names without the background", subject=type(self).__name__, found=", ".join(chosen),
                              hint=f'begin names with "{self.background}", or set background="" to ignore all pixels'
                              " without an object")  # fmt: skip
        if both := sorted(ignore.intersection(chosen)):
            raise ConfigError("a class that is ignored", subject="names", found=both[0], hint="list it in one of them")
        self._ignored = 255 if len(chosen) <= 255 else 65535
        self._values = {name: value for value, name in enumerate(chosen)} | dict.fromkeys(ignore, self._ignored)
        return LabelSpec(tuple(chosen), ignore_index=self._ignored)

    def _value_of(self, region: Region) -> int | None:
        """The value of a region in masks; None if it is not painted."""
        value = self._ignored if region.category is None else self._values.get(region.category)
        return self._ignored if region.ignored and value is not None else value

    def _is_object(self, region: Region) -> bool:
        return self._value_of(region) not in (None, self._ignored, self._values.get(self.background))

    def _painting_order(self, entry: Entry, values: Sequence[int | None], height: int, width: int) -> list[int]:
        """The numbers of the regions to paint, the lowest first."""

        def place(number: int) -> tuple[bool, float, float]:
            region = entry.regions[number - 1]
            areas = (shape.area(height, width) for shape in region.shapes) if self.order == "area" else ()
            return values[number] != self._ignored, -sum(areas), region.depth

        return sorted((n for n in range(1, len(values)) if values[n] is not None), key=place)

    def _find_images(self, places: Places, entries: Sequence[Entry], folder: str | None, subject: Path) -> None:
        """Complete the paths of images.

        Raises:
            PairingError: Missing images, and images that are listed twice; all in one error.
        """
        loose = [(entry.name, *entry.other_names) for entry in entries if not entry.placed]
        if folder is None:
            folder = places.folder_of(loose, os.path.relpath(subject.parent, self.root).lstrip("."))
        faults, taken = Faults(), set()
        for entry in entries:
            listed = entry.name
            try:
                paths = [inside("" if entry.placed else folder, name) for name in (listed, *entry.other_names)]
            except ValueError as error:
                faults.add(str(error))
                continue
            found = next(filter(None, map(places.image, paths)), None)
            if found is None:
                faults.add(f"{paths[0]} does not exist")
            elif found in taken:
                faults.add(f"{found} is listed twice")
            else:
                entry.name = found
                taken.add(found)
        if faults.count:
            raise PairingError(
                "images and annotations do not match", subject=subject, found=faults.summary(),
                hint="add the images or remove them from the annotations; if they are elsewhere, set images=FOLDER",
            )  # fmt: skip

    def _part(
        self, entries: dict[str, Entry], divided: bool, subject: Path, division: dict[str, Any]
    ) -> Collection[str]:
        """The ids of the split."""
        names = list(entries)
        listed = any(entry.split for entry in entries.values())
        if divided or listed:
            refuse_division(division, subject, "a file or folder for each split" if divided else "splits in the file")
        if self.split is None or divided:
            return names
        if listed:
            part = [name for name, entry in entries.items() if entry.split == self.split]
            if not part:
                there = sorted({str(entry.split) for entry in entries.values()})
                raise ConfigError(f"no images of split {self.split!r}", subject=subject, found=", ".join(there),
                                  hint="choose another split")  # fmt: skip
            return part
        if self.split not in ("train", "val"):
            raise ConfigError(f"no split {self.split!r}", subject=subject, expected="a file or folder of this split",
                              found="none", hint='without these there are "train" and "val"')  # fmt: skip
        return seeded_split(names, self.split, subject=subject, **division)


def _check_options(kind: str, names: Any, ignore: Any, order: str, val_fraction: float) -> None:
    for what, value in (("names", names), ("ignore", ignore)):
        if isinstance(value, str):
            raise ConfigError(
                f"{what} are not a list", subject=kind, expected='["background", "cell"]', found=repr(value),
                hint=f"""on the command line quote the whole argument: --set 'data.{what}=["background", "cell"]'""",
            )  # fmt: skip
    if order not in ("file", "area"):
        raise ConfigError("unknown order", subject=kind, expected="file | area", found=repr(order),
                          hint=did_you_mean(str(order), ("file", "area"), "order"))  # fmt: skip
    if not 0 < val_fraction < 1:
        raise ConfigError("wrong val_fraction", expected="between 0 and 1", found=val_fraction, hint="try 0.2")
