"""Images with declared channels and range: facts of their files, a proposal if nothing is declared, and checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..datasets.stats import CLIPPED, Clipping
from ..datasets.tree import Inventory
from ..errors import DataError, ImageDecodeError, ImageTooLargeError, UnetzooError, UnsupportedImageError
from ..images import Pixels, channel_files, read_stored
from ..images.display import as_rgb
from ..images.georeference import Georeference
from ..images.inspection import Kind, kind_of
from ..images.percentiles import declarable, flat, histogram_of
from ..images.pixels import clipped_share
from .facts import ImageFacts, Record
from .findings import Findings
from .probe import digest, image_facts
from .set_checks import spread

DECLARED = ("channels", "bands", "range", "channel_files")  # arguments of datasets
_FAULTS = {"not an image of a supported format": "not-an-image", "no permission to read": "no-permission"}
SAMPLED = 16  # images from which a range is proposed


def declared_pixels(options: Mapping[str, Any]) -> Pixels | None:
    """The pixels declared by arguments of `folder` or `csv`; None for images of 8 bits in gray or RGB."""
    given = [options.get(name) for name in DECLARED]
    return unusual(Pixels(given[0], given[1], given[2], given[3] or ())) if any(given) else None


def unusual(pixels: Pixels | None) -> Pixels | None:
    """The declaration, or None if it is that of images of 8 bits in gray or RGB, which are checked as such."""
    return None if pixels is None or (pixels.converts_colors and pixels.range is None) else pixels


def read_pixel_facts(root: Path, file: str, pixels: Pixels) -> ImageFacts:
    """Facts of an image that is read with declared pixels."""
    facts = ImageFacts(file)
    try:
        absent = [path.name for path in channel_files(root / file, pixels) if not path.is_file()]
        if absent:
            return _failed(facts, "missing-file", ", ".join(absent))
        with (root / file).open("rb") as opened:
            if not opened.read(1):
                return _failed(facts, "empty-file", "")
        facts.kind = kind_of(root / file).type
        values, bits, missing = read_stored(root / file, pixels)
        limits = pixels.limits(values.dtype, bits) if pixels.range not in (None, "image", "percentile") else None
    except PermissionError as error:
        return _failed(facts, "no-permission", error.strerror or str(error))
    except UnsupportedImageError as error:
        return _failed(facts, "other-channels", f"{error.found}, expected {error.expected}")
    except ImageTooLargeError as error:
        return _failed(facts, "pixel-bomb", str(error.found))
    except ImageDecodeError as error:
        return _failed(facts, _FAULTS.get(error.what, "truncated-image"), str(error.found or error.what))
    facts.bits = 8  # as far as other checks are concerned
    facts.size = facts.stored = (values.shape[1], values.shape[0])
    image_facts(facts, Image.fromarray(np.ascontiguousarray(as_rgb(values.astype(np.float32)))))
    facts.digest = digest(repr((values.shape, values.dtype)).encode(), np.ascontiguousarray(values).data)
    counted = flat(values, missing)
    if limits is not None and len(counted):
        facts.clipped = clipped_share(counted[None], limits)
    return facts


def _failed(facts: ImageFacts, fault: str, detail: str) -> ImageFacts:
    facts.fault, facts.detail = fault, detail
    return facts


def propose_pixels(root: Path, inventory: Inventory, declared: Pixels | None = None) -> dict[str, Any]:
    """Arguments of `folder` or `csv` for images of other kinds than 8 bits in gray or RGB; {} if they are of these.

    Args:
        root: The folder.
        inventory: Its files.
        declared: Channels in separate files, of which only the range is undeclared.
    """
    images = [root / item.of("image")[0] for item in inventory.items if item.of("image")]
    some = [images[index] for index in spread(len(images), SAMPLED)]
    kinds: Counter[Kind] = Counter()
    for path in some:
        try:
            kinds[kind_of(path)] += 1
        except UnetzooError:
            continue
    if not kinds:
        return {}
    kind, count = kinds.most_common(1)[0]
    eight = kind.bits <= 8 and not kind.floats
    if (eight and kind.channels <= 4) or 2 * count <= len(some):
        return {}
    channels = kind.channels - len(kind.alpha) if declared is None else declared.channels
    found: dict[str, Any] = {} if channels == 3 or declared is not None else {"channels": channels}
    if eight and declared is None:
        return found
    try:
        return found | {"range": _range(some, Pixels(channels, range=[0, 1], files=declared.files if declared else ()))}
    except DataError:  # none of them can be read; the reasons are findings
        return {}


def _range(paths: Sequence[Path], pixels: Pixels) -> list[Any]:
    return declarable(histogram_of(partial(_values, paths, pixels)).limits())


def _values(paths: Iterable[Path], pixels: Pixels) -> Iterator[np.ndarray]:
    """The values (N, C) of the images that can be read."""
    for path in paths:
        try:
            stored = read_stored(path, pixels)
        except UnetzooError:
            continue
        yield flat(stored.values, stored.missing)


def check_pixels(root: Path, records: Sequence[Record], pixels: Pixels | None, found: Findings) -> None:
    """Report mixed data types, and values outside the range."""
    images = [record.image for record in records if record.image is not None and record.image.readable]
    types = Counter(image.kind for image in images if image.kind)
    for image in images:
        if len(types) > 1 and image.kind != types.most_common(1)[0][0]:
            found.add("mixed-types", image.file, f"{image.kind}, others have {types.most_common(1)[0][0]}")
    shares = [image.clipped for image in images]
    mean = float(np.mean(shares)) if shares else 0.0
    if pixels is not None and mean > CLIPPED:
        worst = max(images, key=lambda image: image.clipped)
        some = [root / image.file for image in (worst, *(images[index] for index in spread(len(images), SAMPLED)))]
        clipping = Clipping.of(mean, partial(_values, some, pixels), pixels)
        found.add("range-clips", worst.file, f"{worst.clipped:.1%} in this image; {clipping}")


def ground_difference(root: Path, image: str, mask: str) -> str:
    """How the ground that an image and its mask cover differs; "" if it is the same or unknown."""
    try:
        first, second = Georeference.of(root / image), Georeference.of(root / mask)
    except ImageDecodeError:
        return ""
    return "" if first is None or second is None else first.difference(second)
