"""The contact sheet: samples beside their colored masks, those with findings first and framed, with a legend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from ..datasets.files import PathLike, read_stack
from ..datasets.layout import FileLayout
from ..errors import DataError
from ..images import read_stored
from ..images.display import as_rgb
from ..labels import LabelSpec
from .examine import class_indices, read_labels
from .facts import ImageFacts, Record
from .findings import Findings
from .probe import open_image

Doubtful = Mapping[str, Sequence[tuple[str, str]]]  # file → severity and kind of its findings
# The image of a sample, RGB, and its labels as class indices (−1: no class); None for what cannot be read.
Look = Callable[[Record], tuple[Image.Image | None, np.ndarray | None]]

_MOST, _COLUMNS, _SIDE, _CAPTION, _GAP, _FRAME = 24, 3, 240, 16, 10, 4
_FRAMES = {"error": (220, 30, 30), "warning": (245, 150, 0)}
_IGNORED, _MISSING = (128, 128, 128), (235, 235, 235)


def draw_sheet(
    records: Sequence[Record], labels: LabelSpec | None, found: Findings, look: Look, path: PathLike
) -> None:
    """Draw up to 24 samples: those with findings first, on at most half of the sheet, the others evenly spread.

    Raises:
        DataError: The sheet cannot be written.
    """
    doubtful = found.by_file()
    tiles = [_tile(record, labels, look, doubtful) for record in _chosen(records, doubtful)]
    rows, legend = -(-len(tiles) // _COLUMNS), _legend(labels)
    high, wide = _SIDE + _CAPTION + _GAP, 2 * _SIDE + _GAP
    sheet = Image.new("RGB", (_COLUMNS * wide + _GAP, rows * high + _GAP + legend.height), "white")
    for place, tile in enumerate(tiles):
        row, column = divmod(place, _COLUMNS)
        sheet.paste(tile, (_GAP + column * wide, _GAP + row * high))
    sheet.paste(legend, (_GAP, rows * high + _GAP))
    try:
        sheet.save(Path(path), "PNG")
    except OSError as error:
        raise DataError("cannot write the sheet", subject=path, found=error.strerror or str(error),
                        hint="choose a file in a writable folder") from error  # fmt: skip


def look_into_files(root: Path, layout: FileLayout) -> Look:
    """A function that reads samples of a folder again."""

    def look(record: Record) -> tuple[Image.Image | None, np.ndarray | None]:
        if layout.stacked:
            return _slice_of(root, record, layout.labels)
        image = None
        if layout.pixels is not None and record.image is not None and record.image.readable:
            values = read_stored(root / record.image_file, layout.pixels).values
            image = Image.fromarray(np.ascontiguousarray(as_rgb(values.astype(np.float32))))
        elif record.image_file not in {mask.file for mask in record.masks}:
            opened = open_image(root, ImageFacts(record.image_file), "image")
            image = _as_rgb(opened[0]) if opened else None
        _, numbers, reading = read_labels(root, [mask.file for mask in record.masks], layout)
        return image, None if numbers is None else class_indices(numbers, reading.labels)

    return look


def _slice_of(root: Path, record: Record, declared: LabelSpec | None) -> tuple[Image.Image | None, np.ndarray | None]:
    planes: list[np.ndarray | None] = []
    for facts in (record.image, *record.masks[:1]):
        file, comma, number = (facts.file if facts else "").partition(", slice ")
        planes.append(read_stack(root / file)[int(number)] if comma else None)
    image, numbers = (*planes, None)[:2]
    shown = None if image is None else Image.fromarray(image).convert("RGB")
    return shown, None if numbers is None else class_indices(numbers, declared)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, np.float32)
        low, high = float(values.min()), float(values.max())
        image = Image.fromarray(((values - low) / max(high - low, 1e-6) * 255).astype(np.uint8))
    return image.convert("RGB")


def _chosen(records: Sequence[Record], doubtful: Doubtful) -> list[Record]:
    bad = [record for record in records if _doubts(record, doubtful)]
    good = [record for record in records if not _doubts(record, doubtful)]
    room = max(_MOST // 2, _MOST - len(good))
    bad = bad[:room]
    places = np.linspace(0, len(good) - 1, min(len(good), _MOST - len(bad))).round().astype(int)
    return [*bad, *(good[place] for place in places)]


def _doubts(record: Record, doubtful: Doubtful) -> list[tuple[str, str]]:
    """Severity and kind of the findings of a sample, the worst first."""
    found = dict.fromkeys(doubt for file in (*record.files, record.name) for doubt in doubtful.get(file, ()))
    return sorted(found, key=lambda doubt: list(_FRAMES).index(doubt[0]))


def _tile(record: Record, labels: LabelSpec | None, look: Look, doubtful: Doubtful) -> Image.Image:
    """Image and mask side by side, each at most `_SIDE` wide, below the name of the sample."""
    tile = Image.new("RGB", (2 * _SIDE, _SIDE + _CAPTION), "white")
    image, classes = look(record)
    panels = image, None if classes is None else Image.fromarray(_colored(classes, labels))
    for place, panel in enumerate(panels):
        shown = panel or Image.new("RGB", (_SIDE, _SIDE), _MISSING)
        method = Image.Resampling.NEAREST if place else Image.Resampling.BILINEAR
        side = _SIDE - 2 * _FRAME
        tile.paste(ImageOps.contain(shown, (side, side), method), (place * _SIDE + _FRAME, _CAPTION + _FRAME))
    pen, color = ImageDraw.Draw(tile), (0, 0, 0)
    caption = f"{record.split}  {record.name}" if record.split and record.split not in record.key else record.name
    doubts = _doubts(record, doubtful)
    if doubts:
        color, caption = _FRAMES[doubts[0][0]], f"{caption[-40:]}: {', '.join(code for _, code in doubts)}"
        pen.rectangle((0, _CAPTION, tile.width - 1, tile.height - 1), outline=color, width=_FRAME - 1)
    pen.text((_FRAME, 2), _printable(caption[:78]), fill=color)
    return tile


def _colored(classes: np.ndarray, labels: LabelSpec | None) -> np.ndarray:
    if labels is None:  # without a meaning: gray values, scaled to their range
        top = max(int(classes.max()), 1)
        return np.repeat((np.clip(classes, 0, top) * (255 / top)).astype(np.uint8)[..., None], 3, axis=2)
    table = np.array([*labels.palette, _IGNORED], np.uint8)
    if labels.classes == 2 and labels.palette[0] == (0, 0, 0):
        table[1] = 255  # binary masks in black and white
    return table[np.where((classes >= 0) & (classes < labels.classes), classes, labels.classes)]


def _legend(labels: LabelSpec | None) -> Image.Image:
    """Colors and names of the classes, in lines as wide as the sheet."""
    width = _COLUMNS * (2 * _SIDE + _GAP)
    swatches = Image.fromarray(_colored(np.arange(-1, labels.classes)[None], labels)) if labels else None
    names = ["ignored", *labels.names] if labels else ["no labels declared: values as grays"]
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    places: list[tuple[int, int]] = []
    left = top = 0
    for name in names:
        need = 34 + int(pen.textlength(_printable(name)))
        if left and left + need > width:
            left, top = 0, top + 20
        places.append((left, top))
        left += need
    legend = Image.new("RGB", (width, top + 24), "white")
    pen = ImageDraw.Draw(legend)
    for number, (name, (x, y)) in enumerate(zip(names, places, strict=True)):
        if swatches is not None:
            pen.rectangle((x, y, x + 14, y + 14), fill=swatches.getpixel((number, 0)), outline=(0, 0, 0))  # type: ignore[arg-type]
        pen.text((x + 18, y + 1), _printable(name), fill=(0, 0, 0))
    return legend


def _printable(text: str) -> str:
    """Latin-1 text; Pillow's built-in font may have no other characters."""
    return text.encode("latin-1", "replace").decode("latin-1")
