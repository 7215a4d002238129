"""Your own images: a folder of images and a folder of masks."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..images import Pixels
from .archive import data_root
from .base import SampleTransform, refuse_division, seeded_split
from .color_masks import COLOR_FILES
from .declared import check_reading, declared_masks
from .file_dataset import FileDataset
from .files import PathLike
from .layout import FileLayout, FilePattern
from .listing import list_folder
from .tree import Item


class Folder(FileDataset):
    r"""Images and masks that share a stem, in two folders.

    The files of a split are:

    1. `split=None`: all pairs in `root/images` and `root/masks`.
    2. If there are folders with the name of the split: `root/<split>/images` and `root/<split>/masks`, or
       `root/images/<split>` and `root/masks/<split>`.
    3. Without folders of splits, `root/images` is divided into `"train"` and `"val"`: val is about `val_fraction` of
       the images, chosen with `split_seed`, or one of n folds. All images of a `group` are on the same side. Use the
       same values for both.

    Mask values are declared, never guessed: 0, 1, 2, … unless `ids` or `colors` is given.

    Args:
        root: The folder with the other folders, or an archive (.zip, .tar, .tar.gz, …).
        split: None, or the name of a split.
        images: Name of the folder of images.
        masks: Name of the folder of masks.
        names: Class names; alternatively `classes`.
        classes: Number of classes without names.
        ids: The value of each class in mask files, e.g. (0, 255).
        ignore_ids: File values of unlabeled pixels.
        ignore_index: The value of these pixels in loaded masks, e.g. 255.
        swap_pairs: Pairs of classes that are exchanged when an image is mirrored.
        side: Whether left and right are the viewer's or the subject's.
        colors: For masks of colors, instead of names and ids: class name → color, e.g. {"road": (128, 64, 128)}, or a
            file in `root` that lists them (CVAT's `labelmap.txt`, or a CSV file with name, r, g, b).
        ignore_colors: Colors of unlabeled pixels.
        unknown_color: Whether undeclared colors are an "error", or "ignore": unlabeled.
        instances: Whether each mask is a label image with one number per object: 8, 16 or 32 bits, also `.npy`. Objects
            are class 1, and samples have `instances`. `names` is optional.
        channels: 3 for RGB images, 1 for gray ones, another number for the channels as stored; by default that of
            `bands` or `channel_files`, or 3. See `unetzoo.images.Pixels`.
        bands: The channels that are read, in this order, counted from 1, e.g. [3, 2, 1, 7].
        range: The values that become 0 and 1, required for images of more than 8 bits: [low, high], one such pair per
            channel, "dtype", "percentile" or "image".
        channel_files: If each channel is in a file of its own: the endings of the stems, e.g. ["_red", "_nir"], or a
            format such as "_{:04d}", counted from 0.
        axis: If the files are volumes (NIfTI, or TIFF files whose pages are slices): the axis along which they are cut
            into samples, "x", "y" or "z", the only one for TIFF files. Volumes are divided whole.
        mask_suffix: Suffix of the stems of masks, e.g. "_mask".
        val_fraction: Share of "val" without folders of splits.
        split_seed: Seed of this division.
        group: Regular expression of the group of an image in its stem, e.g. `r"^(\d+)_"` for the patient number in
            "17_left": its first capturing group, or else the whole match.
        fold: "k/n": "val" is the k-th of n folds, k = 1…n, instead of `val_fraction`.
        transform: `transform(sample, rng) -> sample`, or None.

    Raises:
        ConfigError: Inconsistent arguments.
        DataError: Missing or empty folders; `PairingError` for images and masks that do not match. On access also
            `ImageDecodeError`, `ImageTooLargeError`, `LabelRangeError`, `SizeMismatchError`.

    Examples:
        >>> import tempfile; from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for kind in ("images", "masks"):
        ...     (root / kind).mkdir()
        ...     for stem in "abcde":
        ...         Image.new("RGB" if kind == "images" else "L", (8, 6), 255).save(root / kind / f"{stem}.png")
        >>> data = Folder(root, split="val", names=("background", "cell"), ids=(0, 255))
        >>> len(data), data[0]["image"].shape, int(data[0]["mask"].max())
        (1, (6, 8, 3), 1)
    """

    splits = ()  # the names of the folders
    how_to_get: ClassVar[str] = "put images into root/images and masks of the same stems into root/masks"

    def __init__(
        self,
        root: PathLike,
        split: str | None = None,
        images: str = "images",
        masks: str = "masks",
        *,
        names: Sequence[str] | None = None,
        classes: int | None = None,
        ids: Sequence[int] | None = None,
        ignore_ids: Sequence[int] = (),
        ignore_index: int | None = None,
        swap_pairs: Sequence[tuple[int, int]] = (),
        side: Literal["viewer", "subject"] | None = None,
        colors: Mapping[str, Sequence[int]] | PathLike | None = None,
        ignore_colors: Sequence[Sequence[int]] = (),
        unknown_color: Literal["error", "ignore"] = "error",
        instances: bool = False,
        channels: int | None = None,
        bands: Sequence[int] | None = None,
        range: Any = None,
        channel_files: Sequence[str] = (),
        axis: str | None = None,
        mask_suffix: str = "",
        val_fraction: float = 0.2,
        split_seed: int = 0,
        group: str | None = None,
        fold: str | None = None,
        transform: SampleTransform | None = None,
    ) -> None:
        check_reading(val_fraction)
        pixels = Pixels(channels, bands, range, channel_files, axis)
        root = data_root(root)
        values = declared_masks(
            "Folder", root, names=names, classes=classes, ids=ids, ignore_ids=ignore_ids, ignore_index=ignore_index,
            swap_pairs=swap_pairs, side=side, colors=colors, ignore_colors=ignore_colors, unknown_color=unknown_color,
            instances=instances,
        )  # fmt: skip
        super().__init__(
            root, split, values=values, transform=transform, images=images, masks=masks, mask_suffix=mask_suffix,
            pixels=pixels, channels=pixels.channels, channel_files=pixels.files, val_fraction=val_fraction,
            split_seed=split_seed, group=group, fold=fold,
        )  # fmt: skip

    @classmethod
    def layouts_for(cls, **options: Any) -> tuple[FileLayout, ...]:
        """Folders of splits with the two folders, the two folders with folders of splits, or only the two folders."""
        images, masks = (str(options.get(kind, kind)) for kind in ("images", "masks"))
        ending = str(options.get("mask_suffix", ""))
        given = {"images": images, "masks": masks, "mask_suffix": ending}
        usual = {"images": "images", "masks": "masks", "mask_suffix": ""}
        if options.get("channel_files"):
            given |= {"channels": options.get("channels"), "channel_files": options["channel_files"]}
        first, *rest = Pixels(options.get("channels"), files=options.get("channel_files", ())).files or ("",)
        others = (f".*(?:{'|'.join(map(re.escape, rest))})\\.[^./]+",) if rest else ()

        def layout(name: str, about: str, path: str) -> FileLayout:
            names = (images, f"{{name}}{first}.jpg"), (masks, f"{{name}}{ending}.png")
            image, mask = (path.format(*words) for words in names)
            return FileLayout(
                name, about.format(images, masks), (FilePattern("image", image), FilePattern("mask", mask)),
                options={key: value for key, value in given.items() if value not in (None, usual.get(key))},
                aside=(*map(re.escape, COLOR_FILES), *others), strict=not first, gray=options.get("channels") == 1,
                sample_names="photo_{}", certainty=0.6 if given == usual else 0.5,
            )  # fmt: skip

        return (
            layout("", "SPLIT/{}/ and SPLIT/{}/ by stem", "{{split}}/{}/{}"),
            layout("", "{}/SPLIT/ and {}/SPLIT/ by stem", "{}/{{split}}/{}"),
            layout("folder", "{}/ and {}/ by stem", "{}/{}"),
        )

    @classmethod
    def divide(
        cls, names: Sequence[str], split: str, root: Path, *, val_fraction: float = 0.2, split_seed: int = 0,
        group: str | None = None, fold: str | None = None, **options: Any,
    ) -> Collection[str]:  # fmt: skip
        """A seeded share of the pairs, or a fold, is val."""
        return seeded_split(names, split, val_fraction, split_seed, group=group, fold=fold, subject=root)

    def _choose(self, layouts: Sequence[FileLayout], split: str | None) -> FileLayout:
        list_folder(self.root, self.how_to_get)
        *with_splits, flat = layouts
        for layout in with_splits if split is not None else ():
            if (self.root / layout.folders(split)[0]).is_dir():
                return layout
        images = self.root / flat.folders(None)[0]
        if images.is_dir() and (split is None or (split in ("train", "val") and not _has_folders(images))):
            return flat
        raise self._wrong_layout(self.root, ", or ".join(layout.expected(split) for layout in layouts))

    def _part(self, items: Sequence[Item], split: str | None, options: dict[str, Any]) -> Collection[str]:
        if "{split}" in self.layout.files[0].path:
            refuse_division(options, self.root, "folders of splits")
        elif split is not None:
            return super()._part(items, split, options)
        return [item.name for item in items]


def _has_folders(folder: Path) -> bool:
    return any(path.is_dir() for path in list_folder(folder))
