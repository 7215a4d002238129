"""Your own images: a folder of images and a folder of masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from ..errors import DataError
from .archive import data_root
from .base import Sample, SampleTransform, SegmentationDataset, seeded_split
from .declared import check_reading, declared_labels
from .files import PathLike, check_same_size, read_image, read_mask
from .layout import wrong_layout
from .listing import list_folder, pair_by_stem, shown


class Folder(SegmentationDataset):
    """Images and masks that share a stem, in two folders.

    Which files a split has is decided so:

    1. `split=None`: every pair of `root/images` and `root/masks`.
    2. Folders of the split's name win: `root/<split>/images` with `root/<split>/masks`, or `root/images/<split>` with
       `root/masks/<split>`.
    3. Without any folders of splits, `"train"` and `"val"` share `root/images`: val takes `val_fraction` of a shuffle
       of the sorted names that depends on `split_seed` alone. Give both the same two values.

    What the mask files hold is declared, never guessed: classes 0, 1, 2, … unless `ids` says otherwise.

    Args:
        root: The folder that holds the others, or an archive of it (.zip, .tar, .tar.gz, …).
        split: None, or the name of a part.
        images: Name of the folder of images.
        masks: Name of the folder of masks.
        names: Names of the classes; or give `classes`.
        classes: Number of classes, for classes without names.
        ids: The value that mask files hold for each class, e.g. (0, 255).
        ignore_ids: File values that mean "not labeled".
        ignore_index: What these become in a loaded mask, e.g. 255.
        swap_pairs: Classes that change places when an image is mirrored.
        side: Whose left and right the pairs mean: the viewer's or the subject's.
        channels: 3 for RGB images, 1 for gray ones.
        mask_suffix: What a mask's stem has beyond its image's, e.g. "_mask".
        val_fraction: Share of "val" where no folder says.
        split_seed: Seed of that division.
        transform: `transform(sample, rng) -> sample`, or None.

    Raises:
        ConfigError: Arguments that contradict each other.
        DataError: Missing or empty folders; `PairingError` for files that do not pair. On access also
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
        channels: Literal[1, 3] = 3,
        mask_suffix: str = "",
        val_fraction: float = 0.2,
        split_seed: int = 0,
        transform: SampleTransform | None = None,
    ) -> None:
        check_reading("Folder", channels, val_fraction)
        labels = declared_labels(
            "Folder", names=names, classes=classes, ids=ids, ignore_ids=ignore_ids, ignore_index=ignore_index,
            swap_pairs=swap_pairs, side=side,
        )  # fmt: skip
        super().__init__(labels=labels, split=split, transform=transform)
        self.root = data_root(root)
        self.channels = channels
        image_folder, mask_folder, divide = self._folders(images, masks)
        pairs = pair_by_stem(image_folder, mask_folder, mask_suffix=mask_suffix, how_to_get=self.how_to_get)
        if divide:
            if len(pairs) < 2:
                raise DataError("too few images to divide", subject=image_folder, expected="2", found=len(pairs),
                                hint="use split=None, or add images")  # fmt: skip
            chosen = set(seeded_split([stem for stem, _, _ in pairs], str(split), val_fraction, split_seed))
            pairs = [pair for pair in pairs if pair[0] in chosen]
        self.files = pairs

    def _folders(self, images: str, masks: str) -> tuple[Path, Path, bool]:
        """Where images and masks lie, and whether they are yet to be divided into train and val."""
        found = list_folder(self.root, self.how_to_get)
        if self.split is None:
            if not (self.root / images).is_dir():
                raise wrong_layout("folder", self.root, f"{images}/ and {masks}/", self.how_to_get)
            return self.root / images, self.root / masks, False
        for folder, mask_folder in (
            (self.root / self.split / images, self.root / self.split / masks),
            (self.root / images / self.split, self.root / masks / self.split),
        ):
            if folder.is_dir():
                return folder, mask_folder, False
        plain = self.root / images
        nested = plain.is_dir() and any(path.is_dir() for path in list_folder(plain))
        if self.split in ("train", "val") and plain.is_dir() and not nested:
            return plain, self.root / masks, True
        from ..doctor.recognize import looks_like  # it knows all layouts, and so all datasets

        raise DataError(
            f"no split {self.split!r}",
            subject=self.root,
            expected=f"{self.split}/{images} or {images}/{self.split}"
            + (f", or {images} with files alone" if self.split in ("train", "val") else ""),
            found=shown(sorted(path.name + "/" * path.is_dir() for path in found)) + looks_like(self.root, "folder"),
            hint=self.how_to_get,
        )

    def __len__(self) -> int:
        return len(self.files)

    def sources(self) -> list[Path]:
        """All images and masks."""
        return [path for _, *pair in self.files for path in pair]

    def load(self, index: int) -> Sample:
        """Decode one pair."""
        stem, image_path, mask_path = self.files[index]
        image = read_image(image_path, self.channels)
        mask = read_mask(mask_path, self.labels)
        check_same_size(image, mask, image_path, mask_path)
        return {"image": image, "mask": mask, "id": stem}
