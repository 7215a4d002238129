"""Mutated images through every reader in a process with little memory: `image_trials.py SEED START STOP FOLDER`.

Prints a line of JSON before and after each mutant, so that the one that hangs or kills is known.
"""

from __future__ import annotations

import io
import json
import logging
import random
import struct
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tifffile
from mutants import EDGES, MUTATORS, Mutant, edit_header, edit_number, mutant
from PIL import Image

from unetzoo.datasets.color_masks import read_color_mask
from unetzoo.datasets.depth_files import read_depth
from unetzoo.datasets.files import read_image, read_mask, read_rgba, read_stack, stack_shape
from unetzoo.datasets.objects import read_numbers
from unetzoo.errors import UnetzooError
from unetzoo.images import Pixels
from unetzoo.images.georeference import Georeference
from unetzoo.images.inspection import kind_of
from unetzoo.images.tiff_source import open_tiff
from unetzoo.labels import LabelSpec

TIFF = b"II*\0", b"MM\0*"
MEMORY = 2 * 2**30  # bytes of address space, Python and the decoders included
BINARY = LabelSpec(("background", "cell"), ids=(0, 255))
COLORS = LabelSpec.from_colors({"background": (0, 0, 0), "cell": (255, 255, 255)}, ignore_index=255)
ANY = LabelSpec(tuple(map(str, range(65_536))))


def _saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def seeds() -> dict[str, bytes]:
    """Whole images of every format and most kinds of each."""
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(26) * 5, np.arange(37) * 3)
    colors = np.stack([smooth, smooth[::-1], smooth[:, ::-1]], axis=-1) + rng.integers(0, 9, (26, 37, 3))
    rgb = Image.fromarray(colors.clip(0, 255).astype(np.uint8))
    labels = Image.fromarray(rng.integers(0, 2, (26, 37), np.uint8) * 255)
    deep = Image.fromarray(rng.integers(0, 65_536, (26, 37), np.uint16))
    gray, palette, cutout = rgb.convert("L"), rgb.quantize(16), rgb.convert("RGBA")
    cutout.putalpha(labels)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "an image"
    bits, ink, turned = labels.convert("1"), rgb.convert("CMYK"), {"exif": exif}
    moving = {"save_all": True, "append_images": [rgb.rotate(9)]}
    found = {
        "rgb.png": _saved(rgb, "PNG"), "gray.png": _saved(gray, "PNG"), "labels.png": _saved(labels, "PNG"),
        "palette.png": _saved(palette, "PNG", transparency=3), "bits.png": _saved(bits, "PNG"),
        "deep.png": _saved(deep, "PNG"), "cutout.png": _saved(cutout, "PNG"),
        "turned.png": _saved(rgb, "PNG", **turned), "moving.png": _saved(rgb, "PNG", **moving),
        "rgb.jpg": _saved(rgb, "JPEG"), "gray.jpg": _saved(gray, "JPEG"), "ink.jpg": _saved(ink, "JPEG"),
        "steps.jpg": _saved(rgb, "JPEG", progressive=True), "turned.jpg": _saved(rgb, "JPEG", **turned),
        "camera.jpg": _saved(rgb, "MPO", **moving),
        "rgb.bmp": _saved(rgb, "BMP"), "palette.bmp": _saved(palette, "BMP"), "bits.bmp": _saved(bits, "BMP"),
        "palette.gif": _saved(palette, "GIF"), "labels.gif": _saved(labels, "GIF"),
        "moving.gif": _saved(palette, "GIF", save_all=True, append_images=[palette.rotate(9)]),
        "lossy.webp": _saved(rgb, "WEBP"), "exact.webp": _saved(cutout, "WEBP", lossless=True, **turned),
        "moving.webp": _saved(rgb, "WEBP", **moving),
        "turned.tif": _saved(rgb, "TIFF", **turned), "float.tif": _saved(gray.convert("F"), "TIFF"),
    }  # fmt: skip
    for name, kind in (("long.tif", np.uint32), ("signed.tif", np.int32)):
        file = io.BytesIO()
        tifffile.imwrite(file, np.asarray(deep).astype(kind), photometric="minisblack", tile=(16, 16))
        found[name] = file.getvalue()
    file = io.BytesIO()
    np.save(file, np.asarray(deep).astype(np.int64))
    found["objects.npy"] = file.getvalue()
    for compression in (None, "tiff_lzw", "tiff_deflate", "packbits", "jpeg", "group4"):
        image = bits if compression == "group4" else rgb
        found[f"{compression or 'plain'}.tif"] = _saved(image, "TIFF", compression=compression)
    stack = np.repeat(np.asarray(gray)[None], 3, axis=0)
    for name, options in (("stack", {}), ("packed", {"compression": "zlib"}), ("tiled", {"tile": (16, 16)})):
        file = io.BytesIO()
        tifffile.imwrite(file, stack, photometric="minisblack", **options)
        found[f"{name}.tif"] = file.getvalue()
    return found | deep_seeds(rng)


def deep_seeds(rng: np.random.Generator) -> dict[str, bytes]:
    """Whole images of many channels or more than 8 bits."""
    values = rng.integers(0, 4096, (26, 37, 5)).astype(np.uint16)
    planes, pages = {"planarconfig": "separate", "tile": (16, 16)}, {"photometric": "minisblack"}
    geo = [(33550, 12, 3, (10.0, 10.0, 0.0), True), (33922, 12, 6, (0.0, 0.0, 0.0, 5e5, 5e6, 0.0), True),
           (34735, 3, 8, (1, 1, 0, 1, 3072, 0, 1, 32633), True), (42113, 2, 0, "0", True)]  # fmt: skip
    found = {}
    for name, array, options in (
        ("five.tif", values, {"planarconfig": "contig", "metadata": None}),
        ("packed_five.tif", values, {"planarconfig": "contig", "tile": (16, 16), "compression": "zlib"}),
        ("planar_five.tif", values.transpose(2, 0, 1), planes),
        ("float_five.tif", values.astype(np.float32), {"planarconfig": "contig", "bigtiff": True}),
        ("geo_five.tif", values, {"planarconfig": "contig", "extratags": geo, "metadata": None}),
        ("five.ome.tif", values.transpose(2, 0, 1), {"ome": True, "metadata": {"axes": "CYX"}}),
    ):
        file = io.BytesIO()
        tifffile.imwrite(file, np.ascontiguousarray(array), **pages, **options)
        found[name] = file.getvalue()
    with tifffile.TiffWriter(file := io.BytesIO()) as writer:
        writer.write(values, photometric="minisblack", planarconfig="contig", metadata=None)
        writer.write(np.ones((26, 37), bool), photometric="mask", subfiletype=4, compression="zlib", metadata=None)
    found["masked_five.tif"] = file.getvalue()
    for name, save in (("five.npy", np.save), ("five.npz", np.savez_compressed)):
        save(file := io.BytesIO(), values)
        found[name] = file.getvalue()
    rows = b"".join(b"\0" + row[:, :3].astype(">u2").tobytes() for row in values)
    parts = (b"IHDR", struct.pack(">IIBBBBB", 37, 26, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    found["deep_rgb.png"] = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    return found


def declare_size(data: bytes, rng: random.Random, donors: Sequence[bytes] = ()) -> bytes:
    """The header declares another, often huge, width and height; checksums are corrected."""
    sizes = [rng.choice((*EDGES, 5000, 9000, 20_000, 60_000, 10**6)) for _ in range(2)]
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        header = data[12:16] + struct.pack(">II", *sizes) + data[24:29]
        return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    small = [size % 2**16 for size in sizes]
    if data[:3] == b"GIF":
        place = data.find(b",", 13) if rng.random() < 0.5 else -1  # of the frame, or of the screen
        place = place + 5 if place >= 0 else 6
        return data[:place] + struct.pack("<HH", *small) + data[place + 4 :]
    if data[:2] == b"BM":
        return data[:18] + struct.pack("<II", *sizes) + data[26:]
    if data[:2] == b"\xff\xd8":
        place = max(data.find(bytes([0xFF, kind])) for kind in (0xC0, 0xC2))
        return data[: place + 5] + struct.pack(">HH", *small) + data[place + 9 :] if place > 0 else data
    if data[:4] == b"RIFF":
        return data[:24] + struct.pack("<HH", *small) + data[28:]
    return edit_tag(data, rng, donors) if data[:4] in TIFF else edit_header(data, rng)


def edit_tag(data: bytes, rng: random.Random, donors: Sequence[bytes] = ()) -> bytes:
    """A field of a TIFF's first directory becomes another: sizes, offsets, counts, compression."""
    if data[:4] not in TIFF:
        return edit_number(data, rng)
    order = "<" if data[:2] == b"II" else ">"
    start = int.from_bytes(data[4:8], "little" if order == "<" else "big")
    if start + 2 > len(data):
        return data
    (count,) = struct.unpack_from(order + "H", data, start)
    raw = bytearray(data)
    for _ in range(rng.choice((1, 1, 2))):
        entry = start + 2 + 12 * rng.randrange(max(1, count))
        place, width = rng.choice(((0, 2), (2, 2), (4, 4), (8, 4), (8, 4), (8, 4)))  # tag, type, count, value
        value = rng.choice((*EDGES, 5000, 9000, 60_000, len(data), rng.randrange(60_000))) % 256**width
        if entry + 12 <= len(raw):
            struct.pack_into(order + ("H" if width == 2 else "I"), raw, entry + place, value)
    return bytes(raw)


def mutate_chunk(data: bytes, rng: random.Random, donors: Sequence[bytes] = ()) -> bytes:
    """A PNG's chunks change places, are doubled, lost, taken from another file, or altered with the right checksum."""
    chunks = _chunks(data)
    if not chunks:
        return edit_number(data, rng)
    place = rng.randrange(len(chunks))
    match rng.randrange(5):
        case 0:
            chunks.insert(rng.randrange(len(chunks)), chunks.pop(place))
        case 1:
            chunks.insert(place, chunks[place])
        case 2:
            chunks.pop(place)
        case 3:
            others = [chunk for donor in donors for chunk in _chunks(donor)]
            chunks.insert(place, rng.choice(others or chunks))
        case _:
            kind, body = chunks[place]
            chunks[place] = kind, rng.choice(list(MUTATORS.values()))(body, rng, donors) if body else rng.randbytes(9)
    packed = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    return data[:8] + b"".join(packed)


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, place = [], 8
    while data[:4] == b"\x89PNG" and place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return chunks


PICTURE_MUTATORS = {**MUTATORS, "declare_size": declare_size, "edit_tag": edit_tag, "mutate_chunk": mutate_chunk}
SEEDS = seeds()


def image_mutant(seed: int, number: int) -> Mutant:
    """A mutated image."""
    return mutant(SEEDS, seed, number, PICTURE_MUTATORS)


def _is(array: np.ndarray, kind: type, shape: tuple[int | None, ...]) -> bool:
    fits = array.ndim == len(shape) and all(m in (n, None) for n, m in zip(array.shape, shape, strict=True))
    return array.dtype == kind and fits and min(array.shape) > 0


FIVE, CHOSEN = Pixels(5, range=[0, 4095]), Pixels(bands=[3, 1], range="image")
DEEP = Pixels(3, range="dtype")


def _read_in_windows(path: Path) -> np.ndarray:
    with open_tiff(path, FIVE) as source:
        height, width = (min(n, 64) for n in source.shape[:2])
        source.missing(source.read(0, height, 0, width))
        return source.read(height // 2, height, 0, width)


def _difference(path: Path) -> str:
    found = Georeference.of(path)
    return "" if found is None else found.difference(found)


READERS: dict[str, tuple[Callable, Callable[..., bool]]] = {
    "image": (read_image, lambda a: _is(a, np.uint8, (None, None, 3))),
    "gray": (lambda path: read_image(path, 1), lambda a: _is(a, np.uint8, (None, None, 1))),
    "five": (lambda path: read_image(path, FIVE), lambda a: _is(a, np.float32, (None, None, 5))),
    "chosen": (lambda path: read_image(path, CHOSEN), lambda a: _is(a, np.float32, (None, None, 2))),
    "deep": (lambda path: read_image(path, DEEP), lambda a: _is(a, np.float32, (None, None, 3))),
    "windows": (_read_in_windows, lambda a: _is(a, a.dtype.type, (None, None, 5))),
    "kind": (kind_of, lambda kind: kind.channels > 0),
    "georeference": (_difference, lambda found: found == ""),
    "cutout": (read_rgba, lambda a: _is(a, np.uint8, (None, None, 4))),
    "mask": (lambda path: read_mask(path, BINARY), lambda a: _is(a, np.uint8, (None, None)) and a.max() <= 1),
    "colors": (
        lambda path: read_color_mask(path, COLORS, ignore_unknown=True),
        lambda a: _is(a, np.uint8, (None, None)),
    ),
    "objects": (read_numbers, lambda a: a.dtype.kind in "iu" and a.ndim == 2 and a.min() >= 0),
    "numbers": (lambda path: read_mask(path, ANY), lambda a: _is(a, np.int32, (None, None)) and a.min() >= 0),
    "depth": (lambda path: read_depth(path, 1.0), lambda a: _is(a, np.float32, (None, None))),
    "stack": (read_stack, lambda a: _is(a, np.uint8, (None, None, None))),
    "stack shape": (stack_shape, lambda shape: len(shape) == 3 and min(shape) > 0),
}


def outcomes(path: Path) -> dict[str, str]:
    """What each reader made of a file: "array", the name of our error, or the traceback of anything else."""
    found = {}
    for name, (read, valid) in READERS.items():
        try:
            answer = read(path)
            found[name] = "array" if valid(answer) else f"foreign: an answer out of contract: {answer!r}"
        except UnetzooError as error:
            whole = error.subject and error.hint and str(path) in str(error)
            found[name] = type(error).__name__ if whole else f"foreign: says too little: {error}"
        except BaseException:
            found[name] = "foreign: " + traceback.format_exc(limit=-3)
    return found


def main() -> None:
    import resource

    seed, start, stop = (int(text) for text in sys.argv[1:4])
    logging.disable()  # tifffile notes every oddity
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for number in range(start, stop):
        made = image_mutant(seed, number)
        path = Path(sys.argv[4]) / f"{number}-{made.origin}"
        path.write_bytes(made.data)
        print(json.dumps({"number": number}), flush=True)
        began = time.perf_counter()
        found = outcomes(path)
        seconds = time.perf_counter() - began
        print(json.dumps({"number": number, "how": made.how, "origin": made.origin, "seconds": seconds,
                          "found": found}), flush=True)  # fmt: skip
        path.unlink()


if __name__ == "__main__":
    main()
