"""Faults of images that can be decoded, but are wrong."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .planting import PlantedTwin, colored, fault, files, has_masks, stacked


@fault("exif-one-sided", "an image with an EXIF rotation that its mask lacks", files)
def _exif(twin: PlantedTwin) -> None:
    path = twin.pick().image
    exif = Image.Exif()
    exif[0x0112] = int(twin.rng.choice([3, 6, 8]))
    if path.suffix == ".jpg":  # without encoding the pixels again
        block = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
        data = path.read_bytes()
        twin.write(path, data[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + data[2:])
        return
    with Image.open(path) as image:
        image.load()
    image.save(path, exif=exif)
    twin.note(path)


@fault("blank-image", "an image of a single color", has_masks)
def _blank(twin: PlantedTwin) -> None:
    pair = twin.pick()
    image = np.full_like(twin.read_image(pair), 127)
    if image.ndim == 3:
        image[..., 3:] = 255  # an alpha channel stays opaque
    twin.write_image(pair, image)


@fault("sixteen-bit-image", "a 16-bit gray image", has_masks)
def _sixteen_bits(twin: PlantedTwin) -> None:
    pair = twin.pick()
    if stacked(twin.layout):
        twin.stack(pair.image, lambda stack: stack.astype(np.uint16) * 257)
    else:
        gray = np.asarray(Image.fromarray(twin.read_image(pair)).convert("L")).astype(np.uint16) * 257
        twin.save(twin.renamed(pair.image, ".png"), gray)


@fault("cmyk-image", "a CMYK image", colored)
def _cmyk(twin: PlantedTwin) -> None:
    pair = twin.pick()
    image = Image.fromarray(twin.read_image(pair)).convert("CMYK")
    image.save(twin.renamed(pair.image, ".jpg"), quality=95)


@fault("alpha-image", "an image with an alpha channel", files)
def _alpha(twin: PlantedTwin) -> None:
    pair = twin.pick()
    image = Image.fromarray(twin.read_image(pair))
    fade = np.broadcast_to(np.linspace(0, 255, image.width).astype(np.uint8), (image.height, image.width))
    image.putalpha(Image.fromarray(np.ascontiguousarray(fade)))
    image.save(twin.renamed(pair.image, ".png"))


@fault("gray-image", "a gray image among color images", colored)
def _gray(twin: PlantedTwin) -> None:
    pair = twin.pick()
    twin.write_image(pair, np.asarray(Image.fromarray(twin.read_image(pair)).convert("L")))
