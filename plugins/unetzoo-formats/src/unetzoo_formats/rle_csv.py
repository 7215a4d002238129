"""Run lengths in a CSV file, as in Kaggle's competitions."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from unetzoo.datasets import ANNOTATION_LAYOUTS
from unetzoo.errors import ConfigError, did_you_mean

from .annotated import Annotated
from .places import Places
from .reading import Annotations, Entry, Region, read_bytes, short, unreadable
from .shapes import Runs

COLUMNS = {
    "image": ("imageid", "image_id", "id", "image", "img", "filename", "file_name", "image_name", "imageid_classid"),
    "rle": ("encodedpixels", "encoded_pixels", "rle", "rle_mask", "annotation", "segmentation"),
    "class": ("classid", "class_id", "class", "label", "category", "cell_type"),
}
EMPTY = frozenset({"", "-1", "nan"})
_LONGEST = 2**31 - 1


class RleCsv(Annotated):
    """Run lengths in a CSV file with one row per object: pairs of a start, counted from 1, and a length.

    Pixels are counted down the columns, from the upper left corner; with `by_rows=True` along the rows. The columns are
    recognized by their usual names (`ImageId`, `EncodedPixels`, `ClassId`, `rle_mask`, …) or declared.
    `ImageId_ClassId` holds both, separated by the last underscore. Without a column of classes, the category is
    `foreground`. Categories are sorted by number or name. Rows without run lengths (empty or -1) are images without
    objects. Images may be named without suffix.

    The other arguments are those of `Annotated`.

    Args:
        columns: Headers that differ, e.g. {"image": "scan", "rle": "mask", "class": "organ"}.
        by_rows: Whether pixels are counted along the rows.
    """

    how_to_get: ClassVar[str] = "put the CSV file, with columns such as ImageId and EncodedPixels, beside the images"
    layouts: ClassVar = (ANNOTATION_LAYOUTS["rle-csv"],)

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str | None = None,
        annotations: str | None = None,
        images: str | None = None,
        *,
        columns: Mapping[str, str] | None = None,
        by_rows: bool = False,
        names: Sequence[str] | None = None,
        background: str = "background",
        ignore: Sequence[str] = (),
        order: Literal["file", "area"] = "file",
        empty: bool = True,
        instances: bool = False,
        channels: int | None = None,
        bands: Sequence[int] | None = None,
        range: Any = None,
        val_fraction: float = 0.2,
        split_seed: int = 0,
        group: str | None = None,
        fold: str | None = None,
        transform: Any = None,
    ) -> None:
        if unknown := [name for name in columns or () if name not in COLUMNS]:
            raise ConfigError("unknown column", subject="RleCsv", expected=" | ".join(COLUMNS), found=unknown[0],
                              hint=did_you_mean(str(unknown[0]), COLUMNS, "column"))  # fmt: skip
        self.columns, self.by_rows = dict(columns or {}), by_rows
        super().__init__(
            root, split, annotations, images, names=names, background=background, ignore=ignore, order=order,
            empty=empty, instances=instances, channels=channels, bands=bands, range=range, val_fraction=val_fraction,
            split_seed=split_seed, group=group, fold=fold, transform=transform,
        )  # fmt: skip

    def read(self, places: Places, split: str | None, annotations: str | None, images: str | None) -> Annotations:
        """Read the file of a split."""
        file, divided = places.annotation_file("rle-csv", split, annotations, self.how_to_get)
        found = Annotations([self.root / file], divided)
        entries: dict[str, Entry] = {}
        categories: set[str] = set()
        for line, cells in self._rows(self.root / file):
            try:
                name, category, edges = _row(cells)
            except ValueError as error:
                found.faults.add(f"line {line}: {error}")
                continue
            entry = entries.setdefault(name, Entry(name))
            if category:
                categories.add(category)
            if edges is not None:
                entry.regions.append(Region(category, (Runs(edges, by_rows=self.by_rows),)))
        found.entries = list(entries.values())
        found.categories = sorted(
            categories, key=lambda name: (not name.isdecimal(), len(name) * name.isdecimal(), name)
        )
        return found

    def _rows(self, path: Path) -> Iterator[tuple[int, dict[str, str]]]:
        """Line and cells of each row, by role."""
        text = read_bytes(path).decode("utf-8-sig", errors="replace")
        before = csv.field_size_limit(_LONGEST)  # a run-length mask may be longer than the usual limit
        try:
            reader = csv.reader(io.StringIO(text, newline=""))
            header = [name.strip() for name in next(reader, [])]
            places = self._places(path, header)
            for row in reader:
                if row:
                    yield (
                        reader.line_num,
                        {role: row[place] if place < len(row) else "" for role, place in places.items()},
                    )
        except csv.Error as error:
            raise unreadable(path, f"CSV ({error})") from error
        finally:
            csv.field_size_limit(before)

    def _places(self, path: Path, header: Sequence[str]) -> dict[str, int]:
        """The index of each column; that of both image and class is "both"."""
        plain = [name.casefold() for name in header]
        places: dict[str, int] = {}
        for role, usual in COLUMNS.items():
            wanted = (self.columns[role].casefold(),) if role in self.columns else usual
            if known := [plain.index(name) for name in wanted if name in plain]:
                places[role] = known[0]
            elif role in self.columns or role != "class":
                raise unreadable(path, f"the columns {short(', '.join(header))}", f"a column {' or '.join(wanted[:3])}")
        if plain[places["image"]] == "imageid_classid":
            places["both"] = places.pop("image")
        return places


def _row(cells: Mapping[str, str]) -> tuple[str, str, np.ndarray | None]:
    """Image, category and run lengths of a row; None if it has no object."""
    if "both" in cells:
        name, _, category = cells["both"].strip().rpartition("_")
    else:
        name, category = cells["image"].strip(), cells.get("class", "foreground").strip()
    text = cells["rle"].strip()
    if not name:
        raise ValueError("no image")
    if text.lower() in EMPTY:
        return name, category, None
    if not category:
        raise ValueError("no class")
    try:
        runs = np.array(text.split(), np.int64)
    except (ValueError, OverflowError):
        raise ValueError(f"run lengths that are not whole numbers: {short(text)}") from None
    if len(runs) % 2:
        raise ValueError("a start without a length")
    if runs.min() < 1 or runs.max() > 2**40:
        raise ValueError("starts and lengths that are not numbers from 1 within an image")
    starts = runs[::2] - 1
    return name, category, np.stack([starts, starts + runs[1::2]], 1).ravel()
