"""Faults of pictures that decode, but not to what was meant."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .base import save
from .planting import Twin, fault, files, has_masks, stacked


def _colour(layout) -> bool:
    return files(layout) and not layout.grey


@fault("exif-one-sided", "a picture turned by its EXIF orientation, its labels not", files)
def _exif(twin: Twin) -> None:
    path = twin.pick().image
    exif = Image.Exif()
    exif[0x0112] = int(twin.rng.choice([3, 6, 8]))
    if path.suffix == ".jpg":  # pixels stay untouched
        block = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
        data = path.read_bytes()
        path.write_bytes(data[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + data[2:])
    else:
        with Image.open(path) as image:
            image.load()
        image.save(path, exif=exif)
    twin.note(path)


@fault("blank-image", "a picture of one colour", has_masks)
def _blank(twin: Twin) -> None:
    pair = twin.pick()
    twin.set_picture(pair, np.full_like(twin.picture(pair), 127))


@fault("sixteen-bit-image", "a grey picture of 16 bits", has_masks)
def _sixteen_bits(twin: Twin) -> None:
    pair = twin.pick()
    if stacked(twin.layout):
        twin.stack(pair.image, lambda stack: stack.astype(np.uint16) * 257)
        return
    grey = np.asarray(Image.fromarray(twin.picture(pair)).convert("L")).astype(np.uint16) * 257
    save(twin.renamed(pair.image, ".png"), grey)


@fault("cmyk-image", "a picture in the four colours of print", _colour)
def _cmyk(twin: Twin) -> None:
    pair = twin.pick()
    image = Image.fromarray(twin.picture(pair)).convert("CMYK")
    image.save(twin.renamed(pair.image, ".jpg"), quality=95)


@fault("alpha-image", "a picture with transparent parts", files)
def _alpha(twin: Twin) -> None:
    pair = twin.pick()
    image = Image.fromarray(twin.picture(pair))
    fade = np.broadcast_to(np.linspace(0, 255, image.width).astype(np.uint8), (image.height, image.width))
    image.putalpha(Image.fromarray(np.ascontiguousarray(fade)))
    image.save(twin.renamed(pair.image, ".png"))


@fault("grey-image", "one grey picture among colour pictures", _colour)
def _grey(twin: Twin) -> None:
    pair = twin.pick()
    twin.set_picture(pair, np.asarray(Image.fromarray(twin.picture(pair)).convert("L")))
