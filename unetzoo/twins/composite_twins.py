"""Twins that are not plain pairs of files: a manifest, the sources of composites, and an export of composites."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from ..datasets import Composites, CompositesExport, Csv
from ..datasets.blending import paste
from ..datasets.composites import GRID, PLACES
from ..datasets.drawing import foreground
from ..datasets.export_files import COMPOSITE, DEPTH, MASK, SCENE
from ..datasets.layout import MaskValues
from ..datasets.listing import natural_key
from ..datasets.scenery import background
from ..datasets.sources import Drawings, division
from ..labels import LabelSpec
from .base import Pair, TwinLayout, save

LISTED = LabelSpec(("background", "object"))


def _write_manifest(root: Path, count: int, size: int, seed: int) -> None:
    data = Composites("all", size, count, seed, channels=3, foregrounds=10, backgrounds=10)
    rows: list[tuple[str, ...]] = [("id", "image", "mask", "depth", "split")]
    for i in range(count):
        sample, name = data[i], _LISTED.sample_names.format(i)
        files = [file.fill(name=name) for file in _LISTED.files]
        depth = np.rint(sample["depth"] * 65535).astype(np.uint16)
        for file, array in zip(files, (sample["image"], sample["mask"], depth), strict=True):
            save(root / file, array)
        rows.append((name, *files, "val" if i % 5 == 4 else "train"))
    with open(root / _LISTED.table, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _read_manifest(root: Path) -> list[Pair]:
    with open(root / _LISTED.table, newline="", encoding="utf-8") as file:
        return [Pair(row["id"], row["split"], root / row["image"], (root / row["mask"],), root / row["depth"])
                for row in csv.DictReader(file)]  # fmt: skip


def _write_sources(root: Path, count: int, size: int, seed: int) -> None:
    for i in range(count):
        rgba = Image.fromarray(foreground(1000 * seed + i, size))
        rgba = rgba.resize((size // 2, max(1, round(rgba.height * size / 2 / rgba.width))), Image.Resampling.BICUBIC)
        save(root / "fg" / f"fg{i + 1:03d}.png", np.asarray(rgba))
        save(root / "bg" / f"bg{i + 1:03d}.jpg", background(1000 * seed + i, size)[0])


def _read_sources(root: Path) -> list[Pair]:
    def split(i: int) -> str:
        return {8: "val", 9: "test"}.get(i % 10, "train")

    cutouts, scenes = (sorted((root / kind).glob(f"{kind}*.*")) for kind in ("fg", "bg"))
    return [Pair(path.stem, split(i), path) for files in (scenes, cutouts) for i, path in enumerate(files)]


def _write_export(root: Path, count: int, size: int, seed: int) -> None:
    sources = 10 * (1 + count // 200)  # eight of ten are train, one val, one test
    drawn = Drawings(size, 1, sources, sources)
    for number in range(sources):
        save(root / SCENE / f"bg{number + 1}.jpg", drawn.scene(number).image)
    for part, samples in _tenths(count).items():
        pool = division(sources, part, "sources")
        for i in range(samples):
            fg, bg = pool[i % len(pool)], pool[(i + i // len(pool) + seed) % len(pool)]
            mirrored, place = bool(i // len(PLACES) % 2), i % len(PLACES)
            top, left = (round(GRID * size * step) for step in PLACES[place])
            sample = paste(drawn.cutout(fg, mirrored), drawn.scene(bg), top, left)
            stem = f"fg{fg + 1:03d}{'flip' * mirrored}_bg{bg + 1}_{place + 1:02d}"
            depth = np.rint(sample["depth"] * 255).astype(np.uint8)
            for kind, array in ((COMPOSITE, sample["image"]), (MASK, sample["mask"] * np.uint8(255)), (DEPTH, depth)):
                save(root / kind / f"{stem}.jpg", array)


def _tenths(count: int) -> dict[str, int]:
    tenth = max(1, count // 10)
    return {"train": count - 2 * tenth, "val": tenth, "test": tenth}


def _read_export(root: Path) -> list[Pair]:
    def split(stem: str) -> str:
        return {8: "val", 9: "test"}.get((int(stem[2:5]) - 1) % 10, "train")

    files = sorted((path for path in (root / COMPOSITE).iterdir() if path.stem.startswith("fg")),
                   key=lambda path: natural_key(path.stem))  # fmt: skip
    return [Pair(p.stem, split(p.stem), p, (root / MASK / f"{p.stem}.jpg",), root / DEPTH / f"{p.stem}.jpg")
            for p in files]  # fmt: skip


(_LISTED,), (_SOURCES,) = Csv.layouts_for(), Composites.layouts_for()
(_EXPORT,) = CompositesExport.layouts_for(mask_threshold=128)
COMPOSITE_TWINS = {
    "csv": TwinLayout(
        "csv", _LISTED, _write_manifest, _read_manifest, ("train", "val"), {"names": LISTED.names}, MaskValues(LISTED),
    ),
    "composites": TwinLayout(
        "composites", _SOURCES, _write_sources, _read_sources, ("train", "val", "test"), {"size": 64, "length": 20},
        least=10,
    ),
    "eva": TwinLayout(
        "composites-export", _EXPORT, _write_export, _read_export, ("train", "val", "test"), _EXPORT.options, least=10,
    ),
}  # fmt: skip
