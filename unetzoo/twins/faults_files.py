"""Faults of files: missing, broken, duplicated, of another size."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np

from .base import pixels
from .planting import PlantedTwin, anywhere, fault, files, has_depth, has_masks, single_files, stacked


@fault("missing-mask", "an image without a mask", files)
def _missing_mask(twin: PlantedTwin) -> None:
    for path in twin.pick().masks:
        twin.remove(path)


@fault("missing-image", "a mask without an image", files)
def _missing_image(twin: PlantedTwin) -> None:
    twin.remove(twin.pick().image)


@fault("duplicate-stem", "two images with the same name (in a manifest: with the same id)", files)
def _duplicate_stem(twin: PlantedTwin) -> None:
    pair = twin.pick()
    if twin.layout.layout.table:
        line = next(
            s for s in (twin.root / twin.layout.layout.table).read_text().splitlines() if s.startswith(f"{pair.name},")
        )
        twin.edit_manifest(lambda text: text + line + "\n")
        return
    twin.save(pair.image.with_suffix(".png" if pair.image.suffix != ".png" else ".bmp"), pixels(pair.image))


@fault("truncated-image", "an image file without its end", anywhere)
def _truncated_image(twin: PlantedTwin) -> None:
    _truncate(twin, twin.pick().image)


@fault("truncated-mask", "a mask file without its end", has_masks)
def _truncated_mask(twin: PlantedTwin) -> None:
    _truncate(twin, twin.pick().masks[0])


def _truncate(twin: PlantedTwin, path: Path) -> None:
    data = path.read_bytes()
    twin.write(path, data[: len(data) * 6 // 10])


@fault("empty-file", "an image file of 0 bytes", anywhere)
def _empty_file(twin: PlantedTwin) -> None:
    twin.write(twin.pick().image, b"")


@fault("not-an-image", "an image file that contains a web page", anywhere)
def _not_an_image(twin: PlantedTwin) -> None:
    page = b"<!DOCTYPE html><html><head><title>404 Not Found</title></head><body>gone</body></html>\n"
    twin.write(twin.pick().image, page)


@fault("no-permission", "an image file without read permission (which the superuser does not need)", anywhere)
def _no_permission(twin: PlantedTwin) -> None:
    path = twin.pick().image
    os.chmod(path, 0)
    twin.note(path)


@fault("pixel-bomb", "a small file that declares an image of 50,000 × 50,000 pixels", single_files)
def _pixel_bomb(twin: PlantedTwin) -> None:
    path, side = twin.pick().image, 50_000
    data = bytearray(path.read_bytes())
    if data.startswith(b"\x89PNG"):
        data[16:24] = side.to_bytes(4, "big") * 2
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    elif data.startswith(b"II*\0"):
        first = int.from_bytes(data[4:8], "little")
        for entry in range(first + 2, first + 2 + 12 * int.from_bytes(data[first : first + 2], "little"), 12):
            if data[entry : entry + 2] in (b"\x00\x01", b"\x01\x01"):  # the tags of width and height
                data[entry + 2 : entry + 12] = b"\x04\0\x01\0\0\0" + side.to_bytes(4, "little")
    else:
        place = _frame_header(bytes(data))
        data[place + 5 : place + 9] = side.to_bytes(2, "big") * 2
    twin.write(path, bytes(data))


def _frame_header(jpeg: bytes) -> int:
    """Offset of the segment that contains the size of a JPEG."""
    place = 2
    while not 0xC0 <= jpeg[place + 1] <= 0xC2:
        place += 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
    return place


@fault("stray-file", "a file that belongs to no sample", anywhere)
def _stray_file(twin: PlantedTwin) -> None:
    twin.write(twin.pick().image.with_name("Thumbs.db"), b"\xd0\xcf\x11\xe0" + bytes(60))


@fault("size-mismatch", "a mask of another size than its image", has_masks)
def _size_mismatch(twin: PlantedTwin) -> None:
    pair = twin.pick()
    if stacked(twin.layout):
        twin.stack(pair.masks[0], lambda stack: np.ascontiguousarray(stack[:, : stack.shape[1] * 3 // 4]))
    else:
        values = twin.values(pair)
        twin.set_values(pair, values[: values.shape[0] * 3 // 4])


@fault("depth-missing", "a sample without its depth file", has_depth)
def _depth_missing(twin: PlantedTwin) -> None:
    twin.remove(_depth(twin))


@fault("depth-size-mismatch", "depth of another size than its image", has_depth)
def _depth_size_mismatch(twin: PlantedTwin) -> None:
    path = _depth(twin)
    depth = pixels(path)
    twin.save(path, np.ascontiguousarray(depth[:, : depth.shape[1] * 3 // 4]))


@fault("depth-constant", "constant depth", has_depth)
def _depth_constant(twin: PlantedTwin) -> None:
    path = _depth(twin)
    depth = pixels(path)
    twin.save(path, np.full_like(depth, depth.mean()))


def _depth(twin: PlantedTwin) -> Path:
    path = twin.pick().depth
    assert path is not None  # as `has_depth` requires
    return path
