"""Faults of masks: wrong encodings and wrong values."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from .base import TwinLayout, pixels
from .planting import PlantedTwin, declared_values, fault, files, has_masks, indexed, raw, stacked


def _shown(twin: PlantedTwin, values: np.ndarray) -> np.ndarray:
    """Values in the colors of their classes (H, W, 3); others in white."""
    labels = twin.layout.labels
    table = np.full((256, 3), 255, np.uint8)
    if labels is not None:
        table[list(labels.ids)] = labels.palette
    return table[values]


@fault("jpeg-mask", "a mask saved as JPEG", lambda at: files(at) and at.masks not in ("jpeg", "parts"))
def _jpeg_mask(twin: PlantedTwin) -> None:
    pair = twin.pick()
    values = twin.values(pair)
    twin.save(twin.renamed(pair.masks[0], ".jpg"), values, quality=75)


@fault("rgb-mask", "a mask of colors instead of class numbers", raw)
def _rgb_mask(twin: PlantedTwin) -> None:
    pair = twin.pick()
    twin.save(pair.masks[0], _shown(twin, twin.values(pair)))


@fault("alpha-mask", "a mask with an alpha channel", raw)
def _alpha_mask(twin: PlantedTwin) -> None:
    pair = twin.pick()
    values = twin.values(pair)
    twin.save(pair.masks[0], np.dstack([*[values] * 3, np.full_like(values, 255)]))


def _deep(at: TwinLayout) -> bool:
    return raw(at) or stacked(at)


@fault("sixteen-bit-mask", "a 16-bit mask: values × 257", lambda at: _deep(at) or at.masks == "parts")
def _sixteen_bits(twin: PlantedTwin) -> None:
    pair = twin.pick()
    if stacked(twin.layout):
        twin.stack(pair.masks[0], lambda stack: stack.astype(np.uint16) * 257)
    else:
        twin.save(pair.masks[0], twin.values(pair).astype(np.uint16) * 257)


@fault("float-mask", "a float32 TIFF as mask", _deep)
def _float_mask(twin: PlantedTwin) -> None:
    pair = twin.pick()
    if stacked(twin.layout):
        twin.stack(pair.masks[0], lambda stack: stack.astype(np.float32))
    else:
        values = twin.values(pair).astype(np.float32)
        twin.save(twin.renamed(pair.masks[0], ".tif"), values)


@fault("multi-frame-mask", "several images in one mask file", lambda at: files(at) and at.masks != "jpeg")
def _multi_frame(twin: PlantedTwin) -> None:
    path = twin.pick().masks[0]
    with Image.open(path) as file:
        image = file.copy()
    other = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image.save(path, save_all=True, append_images=[other], duration=100)
    twin.note(path)


def _change_all(twin: PlantedTwin, change: Callable[[np.ndarray], np.ndarray]) -> None:
    if stacked(twin.layout):
        twin.stack(twin.pairs[0].masks[0], lambda stack: np.stack([change(page) for page in stack]))
        return
    for pair, path in twin.all_masks():
        try:
            values = twin.values(pair, path)
        except OSError:  # broken by another fault
            continue
        twin.set_values(pair, change(values), path)


@fault("palette-to-gray", "palette masks converted to the brightness of their colors", lambda at: at.masks == "palette")
def _palette_to_gray(twin: PlantedTwin) -> None:
    for pair in twin.pairs:
        twin.save(pair.masks[0], pixels(pair.masks[0], "L"))


def _several_values(at: TwinLayout) -> bool:
    values = declared_values(at)
    return at.masks not in (None, "jpeg") and values[-1] - values[0] > 2  # closer values show no trace


@fault("jpeg-values", "masks that were once JPEGs: values close to the original ones", _several_values)
def _jpeg_values(twin: PlantedTwin) -> None:
    def through_jpeg(values: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(values).save(file, "JPEG", quality=75)
        return np.asarray(Image.open(file))

    _change_all(twin, through_jpeg)


@fault("interpolated-ids", "masks resized bilinearly: values between the original ones", _several_values)
def _interpolated(twin: PlantedTwin) -> None:
    def resized(values: np.ndarray) -> np.ndarray:
        image = Image.fromarray(values)
        small = image.resize((image.width * 2 // 3, image.height * 2 // 3), Image.Resampling.BILINEAR)
        return np.asarray(small.resize(image.size, Image.Resampling.BILINEAR))

    _change_all(twin, resized)


@fault("zero-one", "0 and 1 instead of 0 and 255", lambda at: (
    at.masks in ("binary", "parts") and at.values is not None and at.values.otherwise is None))  # fmt: skip
def _zero_one(twin: PlantedTwin) -> None:
    _change_all(twin, lambda values: values // 255)


@fault("zero-255", "0 and 255 instead of class numbers", lambda at: at.masks == "index")
def _zero_255(twin: PlantedTwin) -> None:
    lowest = declared_values(twin.layout)[0]
    _change_all(twin, lambda values: (values > lowest) * np.uint8(255))


@fault("shifted-ids", "all class numbers too high by one", indexed)
def _shifted(twin: PlantedTwin) -> None:
    _change_all(twin, lambda values: np.where(values < 255, values + 1, values))


@fault("out-of-range-id", "a few pixels of an undeclared value", lambda at: has_masks(at) and at.masks != "jpeg")
def _out_of_range(twin: PlantedTwin) -> None:
    pair = twin.pick()
    values = twin.values(pair).copy()
    row, column = (int(twin.rng.integers(n - 3)) for n in values.shape)
    values[row : row + 2, column : column + 3] = 200 if indexed(twin.layout) else 128
    twin.set_values(pair, values)


@fault("all-ignored", "a mask without a labeled pixel", lambda at: bool(
    at.labels and max(at.labels.ignore_ids, default=-1) >= 0))  # fmt: skip
def _all_ignored(twin: PlantedTwin) -> None:
    pair = twin.pick()
    labels = twin.layout.labels
    assert labels is not None  # as `where` requires
    value = min(i for i in labels.ignore_ids if i >= 0)
    twin.set_values(pair, np.full_like(twin.values(pair), value))


def _class_values(twin: PlantedTwin) -> tuple[int, ...]:
    labels = twin.layout.values.labels if twin.layout.values else None
    return labels.ids if labels else ()


@fault("empty-mask", "a mask of a single class", has_masks)
def _empty_mask(twin: PlantedTwin) -> None:
    pair = twin.pick()
    for path in pair.masks if twin.layout.masks == "parts" else pair.masks[:1]:
        values = twin.values(pair, path)
        counts = {value: np.count_nonzero(values == value) for value in _class_values(twin)}
        most = 0 if twin.layout.masks in ("parts", "jpeg") else max(counts, key=counts.__getitem__)
        twin.set_values(pair, np.full_like(values, most), path)


@fault("inverted-mask", "a mask with foreground and background swapped",
       lambda at: at.labels is not None and at.labels.classes == 2 and at.masks not in (None, "parts"))  # fmt: skip
def _inverted(twin: PlantedTwin) -> None:
    pair = twin.pick()
    values, labels = twin.values(pair), twin.layout.labels
    assert labels is not None  # as `where` requires
    if twin.layout.masks == "jpeg":
        twin.set_values(pair, 255 - values)
        return
    first, second = labels.ids
    twin.set_values(pair, np.where(values == first, second, np.where(values == second, first, values)))


def _many_classes(at: TwinLayout) -> bool:
    return at.labels is not None and at.labels.classes > 2 and (indexed(at) or at.masks == "parts")


@fault("absent-class", "a declared class that no mask contains", _many_classes)
def _absent_class(twin: PlantedTwin) -> None:
    if twin.layout.masks == "parts":
        gone = list(twin.layout.layout.joined)[1]
        for pair in twin.pairs:
            for path in pair.masks:
                if path.stem.endswith(f"_{gone}"):
                    twin.remove(path)
        return
    labels = twin.layout.labels
    assert labels is not None  # as `where` requires
    gone = labels.ids[-1]
    other = labels.ignore_ids[-1] if labels.ignore_ids else labels.ids[0]
    for pair, path in twin.all_masks():
        values = twin.values(pair, path)
        if (values == gone).any():
            twin.set_values(pair, np.where(values == gone, other, values), path)
