"""Write any declared layout in miniature, and list the samples of a written one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile

from ..datasets.file_dataset import FileDataset, find_items
from ..datasets.layout import FileLayout, FilePattern, MaskValues
from ..labels import LabelSpec
from .base import RNG, Pair, rng_of, save, save_indexed
from .images import paint, rim, shapes

BLACK_WHITE = {0: (0, 0, 0), 1: (255, 255, 255)}
UNLABELED = {255: (224, 224, 192)}
Fields = dict[str, str]


class Drawn(NamedTuple):
    """A drawn sample: its image, and its mask as file values (of parts: bool, by name; of colors: (H, W, 3)).

    If each object has a file, the mask contains the numbers of the objects.
    """

    image: np.ndarray
    labels: np.ndarray | dict[str, np.ndarray]


class Drawing:
    """Content and names of the samples of a twin: geometric shapes, one kind per class; subclasses draw others.

    Args:
        count: Default number of samples.
        least: Smallest number of samples with which no split is empty; computed if None.
        size: Default height of the masks in pixels.
        palette: Whether mask files contain palette indices.
    """

    labels: LabelSpec | None = None  # declared by a file of the data, which `finish` writes

    def __init__(self, count: int = 20, least: int | None = None, size: int = 64, *, palette: bool = False) -> None:
        self.count, self.least, self.size, self.palette = count, least, size, palette

    def samples(self, layout: FileLayout, count: int, seed: int) -> list[Fields]:
        """The values of the fields in the paths of each sample."""
        names = [layout.sample_names.format(number) for number in range(count)]
        folders = [folder for folder, total in shares(layout, count).items() for _ in range(total)]
        more = {key: "a" for file in layout.files for key in file.fields if key not in ("name", "split", "part")}
        return [{**more, "name": name, "split": folder} for name, folder in zip(names, folders, strict=True)]

    def draw(self, rng: RNG, size: int, layout: FileLayout, values: MaskValues, fields: Fields, seed: int) -> Drawn:
        """Draw a sample."""
        labels = values.labels
        assert labels is not None
        classes = shapes(rng, size, labels.classes)
        colors = {index: tuple((np.array(color) * 0.6 + 70).astype(int).tolist())
                  for index, color in enumerate(labels.palette)}  # fmt: skip
        image = paint(classes, colors, rng)  # type: ignore[arg-type]
        stored = np.array(labels.palette if values.how == "colors" else labels.ids, np.uint8)[classes]
        ignored = [value for value in labels.ignore_ids if value >= 0]
        if ignored:  # unlabeled outlines, as in VOC
            stored[rim(classes)] = ignored[-1]
        return Drawn(image[..., 0] if layout.gray else image, stored)

    def write_more(self, root: Path, layout: FileLayout, fields: Fields, drawn: Drawn) -> None:
        """Write other files of a sample, which the dataset does not need."""

    def finish(self, root: Path, layout: FileLayout, samples: list[Fields]) -> None:
        """Write files of the whole data set."""


def shares(layout: FileLayout, count: int) -> dict[str, int]:
    """Number of samples in each folder or list of a split."""
    known = dict(layout.lists) or dict(layout.parts)
    if not known and "split" in layout.files[0].fields:
        known = {folder: (folder,) for folder in layout.fields["split"].split("|")}
    if not known:
        return {"": count}
    small = {folder: max(1, count // (5 if "val" in splits or len(known) == 2 else 10))
             for folder, splits in known.items() if "train" not in splits}  # fmt: skip
    first = next(folder for folder in known if folder not in small)
    return {folder: small.get(folder, max(2, count - sum(small.values()))) for folder in (first, *small)}


def write_layout(
    layout: FileLayout, values: MaskValues, drawing: Drawing, root: Path, count: int, size: int, seed: int
) -> None:
    """Draw the samples of a layout, and write all files that it declares."""
    samples = drawing.samples(layout, count, seed)
    stacks: dict[str, list[np.ndarray]] = {}
    for number, fields in enumerate(samples):
        drawn = drawing.draw(rng_of(seed, number), size, layout, values, fields, seed)
        if layout.stacked:
            for role, plane in (("image", drawn.image), ("mask", drawn.labels)):
                stacks.setdefault(role, []).append(np.asarray(plane))
            continue
        for file in layout.files:
            if not file.fallback:
                _write(root, file, fields, drawn, palette=drawing.palette, values=values)
        drawing.write_more(root, layout, fields, drawn)
    root.mkdir(parents=True, exist_ok=True)
    for role, planes in stacks.items():
        path = root / layout.of(role)[0].fill(**layout.fields)
        tifffile.imwrite(path, np.stack(planes), photometric="minisblack", software=False)
    for file in layout.lists:
        rows = (re.sub(r"(?<!\S)\d+(?!\S)", "1", layout.list_line.format(name=fields["name"]))
                for fields in samples if fields["split"] == file)  # fmt: skip
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("\n".join(rows) + "\n", encoding="utf-8")
    drawing.finish(root, layout, samples)


def _write(root: Path, file: FilePattern, fields: Fields, drawn: Drawn, *, palette: bool, values: MaskValues) -> None:
    labels = values.labels
    if file.role == "image":
        save(root / file.fill(**fields), drawn.image)
    elif file.role != "mask":  # e.g. a mask of valid pixels
        height, width = drawn.image.shape[:2]
        save(root / file.fill(**fields), np.full((height, width), 255, np.uint8))
    elif values.how == "object":
        for number in range(1, int(np.max(drawn.labels)) + 1):  # pyright: ignore[reportArgumentType, reportCallIssue]
            present = (np.asarray(drawn.labels) == number).astype(np.uint8) * 255
            save(root / file.fill(**{**fields, "object": f"{number:03d}"}), present)
    elif isinstance(drawn.labels, dict):
        for part, present in drawn.labels.items():
            save(root / file.fill(**fields, part=part), np.repeat(present[..., None].astype(np.uint8) * 255, 3, axis=2))
    elif palette and labels is not None:
        colors = dict(zip(labels.ids, labels.palette, strict=True))
        save_indexed(root / file.fill(**fields), drawn.labels, colors | UNLABELED)
    elif file.path.endswith(".gif"):
        save_indexed(root / file.fill(**fields), (drawn.labels > 0).astype(np.uint8), BLACK_WHITE)
    else:
        save(root / file.fill(**fields), drawn.labels)


def read_layout(layout: FileLayout, dataset: type[FileDataset], splits: tuple[str, ...], root: Path) -> list[Pair]:
    """The samples of a written layout, with the splits of the dataset."""
    if layout.stacked:
        paths = [root / layout.of(role)[0].fill(**layout.fields) for role in ("image", "mask")]
        with tifffile.TiffFile(paths[0]) as file:
            names = [f"{number:02d}" for number in range(len(file.pages))]
        return [Pair(name, split, paths[0], (paths[1],), page=int(name)) for split in splits
                for name in dataset.divide(names, split, root)]  # fmt: skip
    pairs = []
    for split in splits:
        items = [item for item in find_items(layout, root, split)[0] if item.of("image")]
        chosen = set(dataset.divide([item.name for item in items], split, root))
        for item in items:
            if item.name in chosen:
                read = layout.read_first(item.of("mask")) if item.of("mask") else []
                masks = sorted(item.of("mask"), key=lambda path: (path not in read, _rank(layout, path)))
                depth = next((root / path for path in item.of("depth")), None)
                files = tuple(root / path for path in masks)
                pairs.append(Pair(item.name, split, root / item.of("image")[0], files, depth))
    return pairs


def _rank(layout: FileLayout, path: str) -> int:
    """Order of parts: those painted last come first, because nothing covers them."""
    return -list(layout.joined).index(layout.part_in(path)) if layout.joined else 0
