"""Other people's dataset objects: anything of images and masks by index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from ..errors import ConfigError, DataError, ImageDecodeError, did_you_mean
from ..images.decode import as_channels
from ..images.pixels import Pixels
from ..images.reading import decode_array
from ..labels import LabelSpec
from ..wording import describe
from .base import Sample, SampleTransform, SegmentationDataset
from .files import RAW_MODES, check_same_size, map_labels

_NUMBERS = "one class number per pixel, (H, W) of integers"


def from_pairs(
    pairs: Any,
    labels: LabelSpec | Sequence[str] | None = None,
    *,
    classes: int | None = None,
    ignore_index: int | None = None,
    image: str = "image",
    mask: str = "mask",
    channels: int | None = None,
    bands: Sequence[int] | None = None,
    range: Any = None,
    transform: SampleTransform | None = None,
) -> Pairs:
    """Adapt a dataset of images and masks: of torchvision, Hugging Face `datasets`, PyTorch, or a list.

    Args:
        pairs: Anything with a length and items by index. An item is `(image, mask)`, or a mapping with these columns,
            such as a row of a Hugging Face table. Images are PIL images, arrays (H, W) or (H, W, C), or tensors (C, H,
            W). Masks are PIL images, arrays or tensors of one class number per pixel.
        labels: The label set, or the names of the classes; alternatively `classes`. Mask values are 0, 1, 2, … unless
            the label set declares others.
        classes: Number of classes without names.
        ignore_index: The value of unlabeled pixels in masks, e.g. 255, if `labels` is not a label set.
        image: Column of the image in mappings.
        mask: Column of the mask in mappings.
        channels: Number of channels, 3 by default; see `Pixels`.
        bands: The channels that are used, counted from 1; see `Pixels`.
        range: The values that become 0 and 1, needed for images that are not uint8; see `Pixels`. Float tensors without
            a range are not changed, whatever their values and channels: they are what the network is trained on.
        transform: `transform(sample, rng) -> sample`, for example a `Transform`. It is needed for training, except on
            float tensors without a range.

    Raises:
        ConfigError: Inconsistent arguments; an object without length or items.
        DataError: No pairs, or a first item that is not a pair; on access, an item that cannot be loaded or is not a
            pair of an image and a mask. `SizeMismatchError` and `LabelRangeError` as for files.

    Examples:
        >>> pictures = [(np.zeros((4, 6, 3), np.uint8), np.eye(4, 6, dtype=np.uint8)) for _ in range(2)]
        >>> data = from_pairs(pictures, ["background", "line"])
        >>> len(data), data[1]["id"], data[1]["mask"].shape
        (2, '1', (4, 6))
    """
    if isinstance(labels, int | str):
        hint = f"pass classes={labels}" if isinstance(labels, int) else f"pass labels=[{labels!r}, …]"
        raise ConfigError("not the names of classes", subject="from_pairs", expected="a label set or a list of names",
                          found=repr(labels), hint=hint)  # fmt: skip
    if isinstance(labels, LabelSpec):
        if classes not in (None, labels.classes) or ignore_index not in (None, labels.ignore_index):
            raise ConfigError("labels are declared twice", subject="from_pairs", expected="labels only",
                              found="classes or ignore_index that differ from them", hint="leave them out")  # fmt: skip
    elif labels is None and classes is None:
        raise ConfigError("classes are not declared", subject="from_pairs",
                          hint='pass labels=["background", …] or classes=2')  # fmt: skip
    else:
        names = tuple(map(str, np.arange(classes or 0))) if labels is None else labels
        if classes not in (None, len(names)):
            raise ConfigError("labels and classes differ", subject="from_pairs", expected=f"{classes} names",
                              found=len(names), hint="pass only one of them")  # fmt: skip
        labels = LabelSpec(names, ignore_ids=() if ignore_index is None else (ignore_index,), ignore_index=ignore_index)  # type: ignore[arg-type]
    if isinstance(pairs, Mapping):
        raise ConfigError("a dict of datasets" if pairs else "an empty dict", subject="from_pairs",
                          expected="one split", found=", ".join(map(str, pairs)) or "{}",
                          hint=f"pass one of them, e.g. data[{next(iter(pairs), 'train')!r}]")  # fmt: skip
    if not (hasattr(pairs, "__len__") and hasattr(pairs, "__getitem__")) or isinstance(pairs, str | bytes):
        raise ConfigError("not a dataset with a length and items by index", subject="from_pairs",
                          expected="__len__ and __getitem__", found=type(pairs).__name__,
                          hint="load it completely (streaming=False), or pass list(…)")  # fmt: skip
    return Pairs(pairs, labels, (image, mask), Pixels(channels, bands, range), transform)  # pyright: ignore


class Pairs(SegmentationDataset):
    """A dataset adapted by `from_pairs`, which documents the arguments."""

    def __init__(
        self, pairs: Any, labels: LabelSpec, columns: tuple[str, str], pixels: Pixels, transform: SampleTransform | None
    ) -> None:
        super().__init__(labels=labels, transform=transform)
        self.pairs, self.columns, self.pixels = pairs, columns, pixels
        if not len(self):
            raise DataError("no pairs", subject=type(pairs).__name__, expected="at least one", found="0",
                            hint="check the split or the filter of the dataset")  # fmt: skip
        first = self.load(0)  # an error for all pairs is better raised now than in a worker
        if transform is not None and _is_tensor(first["image"]):
            raise ConfigError("a transform of float tensors whose range is not declared", subject="from_pairs",
                              expected="range, e.g. [0, 1]", found="none",
                              hint="declare the values that become 0 and 1, or leave the transform out")  # fmt: skip

    def __len__(self) -> int:
        return len(self.pairs)

    def sources(self) -> Sequence[Path]:
        """Files of the pairs, which are not known.

        Raises:
            ConfigError: Always, since a cache could not detect changes.
        """
        raise ConfigError("pairs cannot be cached", subject=type(self.pairs).__name__, expected="a dataset of files",
                          hint="leave the cache out, or save the pairs as files")  # fmt: skip

    def load(self, index: int) -> Sample:
        """Convert one pair."""
        subject = f"pair {index} of {type(self.pairs).__name__}"
        try:
            item = self.pairs[index]
        except KeyboardInterrupt:
            raise
        except Exception as error:  # foreign code may raise anything
            raise DataError("a pair cannot be loaded", subject=subject, found=describe(error),
                            hint="the error is that of the adapted dataset") from error  # fmt: skip
        image, mask, name = self._unpacked(item, index, subject)
        mask = self._mask(mask, subject)
        if _is_tensor(image) and image.ndim == 3 and image.numel():
            check_same_size(np.empty(image.shape[1:]), mask, "the image", subject)
            if image.is_floating_point() and self.pixels.range is None:
                import torch

                return {"image": image.detach().float(), "mask": torch.from_numpy(mask.astype(np.int64)), "id": name}
            image = image.movedim(0, 2)
        image = self._image(image, subject)
        check_same_size(image, mask, "the image", subject)
        return {"image": image, "mask": mask, "id": name}

    def _unpacked(self, item: Any, index: int, subject: str) -> tuple[Any, Any, str]:
        """Image, mask and id of an item."""
        if isinstance(item, Mapping):
            if missing := [column for column in self.columns if column not in item]:
                known = [str(column) for column in item]
                role = ("image", "mask")[self.columns.index(missing[0])]
                hint = f"set {role}= to its column; {did_you_mean(missing[0], known, 'column')}"
                raise DataError("missing columns", subject=subject, expected=", ".join(missing),
                                found=", ".join(known) or "none", hint=hint)  # fmt: skip
            image, mask = (item[column] for column in self.columns)
            name = str(item.get("id", index))
        elif isinstance(item, tuple | list) and len(item) == 2:
            (image, mask), name = item, str(index)
        else:
            found = f"{type(item).__name__}" + (f" of {len(item)}" if isinstance(item, tuple | list) else "")
            raise DataError("not a pair of image and mask", subject=subject, expected="(image, mask), or columns",
                            found=found, hint="choose a target that is a mask, or convert the items")  # fmt: skip
        for role, value in (("image", image), ("mask", mask)):
            if value is None:
                raise DataError(f"a pair without {role}", subject=subject, found="None", hint="remove such pairs first")
        return image, mask, name

    def _image(self, image: Any, subject: str) -> np.ndarray:
        """The image as an array (H, W, C)."""
        if isinstance(image, Image.Image):
            image = ImageOps.exif_transpose(image)
            if self.pixels.converts_colors and not image.mode.startswith(("I", "F")):
                return as_channels(image, self.pixels.channels)
        array = _array(image)
        if array is None or array.ndim not in (2, 3) or not array.size:
            raise ImageDecodeError(
                "not an image", subject=subject, expected="a PIL image, an array (H, W, C), or a tensor (C, H, W)",
                found=type(image).__name__ if array is None else f"{array.dtype} {array.shape}",
                hint="load files with the datasets folder or csv" if isinstance(image, str) else "convert the images",
            )  # fmt: skip
        return decode_array(array, self.pixels, subject)

    def _mask(self, mask: Any, subject: str) -> np.ndarray:
        """The class indices (H, W)."""
        if isinstance(mask, Image.Image):
            if mask.mode not in RAW_MODES | {"I"}:
                raise ImageDecodeError("not a mask", subject=subject, expected=_NUMBERS, found=f"mode {mask.mode}",
                                       hint="convert colors to class numbers")  # fmt: skip
            mask = ImageOps.exif_transpose(mask)
        array = _array(mask)
        if array is not None and array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
            array = array[0] if array.shape[0] == 1 else array[..., 0]
        if array is None or array.ndim != 2 or array.dtype.kind not in "bui" or not array.size:
            found = type(mask).__name__ if array is None else f"{array.dtype} {array.shape}"
            raise DataError("not a mask", subject=subject, expected=_NUMBERS, found=found,
                            hint="choose a target of class numbers, and convert floats or one-hot planes")  # fmt: skip
        return map_labels(array.astype(np.uint8) if array.dtype == bool else array, self.labels, subject)


def _is_tensor(value: Any) -> bool:
    """Whether a value is a PyTorch tensor, without importing torch."""
    return hasattr(value, "detach") and hasattr(value, "is_floating_point")


def _array(value: Any) -> np.ndarray | None:
    """A value as an array of numbers; None if it is none."""
    if _is_tensor(value):
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value)
    except Exception:  # foreign types may raise anything
        return None
    return array if array.dtype.kind in "buif" else None
