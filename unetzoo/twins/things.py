"""Twins of cars and membranes, of a user's own folders, of a manifest, and of composites."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from ..datasets.base import seeded_split
from ..datasets.blending import paste
from ..datasets.carvana import SHOWN
from ..datasets.composites import GRID, PLACES, Composites
from ..datasets.drawing import foreground
from ..datasets.export_files import COMPOSITE, DEPTH, MASK, SCENE
from ..datasets.exports import LABELS as EXPORT_LABELS
from ..datasets.isbi2012 import VOLUME, VOLUME_LABELS
from ..datasets.layout import divided
from ..datasets.listing import natural_key
from ..datasets.scenery import background
from ..datasets.sources import Drawings, division
from ..labels import LabelSpec
from .base import Layout, Pair, Reader, Writer, rng_of, save, save_indexed
from .images import car, membranes, objects, paint, rim

MANIFEST = "manifest.csv"
OBJECTS = LabelSpec(("background", "disc", "square", "triangle"), ignore_ids=(255,), ignore_index=255,
                    palette=((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)))  # fmt: skip
TWO = LabelSpec(("background", "object"), ids=(0, 255))
CELLS = LabelSpec(("membrane", "cell"), ids=(0, 255))
LISTED = LabelSpec(("background", "object"))


def _write_carvana(root: Path, count: int, size: int, seed: int, *, images: str) -> None:
    cars = max(5, -(-count // 16))
    for number in range(cars):
        name = f"{int(rng_of(seed, number).integers(16**12)):012x}"
        paints = {0: (205, 205, 210), 1: tuple(rng_of(seed, number, 0).integers(40, 220, 3).tolist()),
                  2: (30, 40, 50), 3: (25, 25, 25)}  # fmt: skip
        for view in range(1, -(-count // cars) + 1):
            rng = rng_of(seed, number, view)
            labels = car(rng, size, size * 3 // 2, view)
            save(root / images / f"{name}_{view:02d}.jpg", paint(labels, paints, rng, spread=0))
            shown = {0: (0, 0, 0), 1: (255, 255, 255)}
            save_indexed(root / "train_masks" / f"{name}_{view:02d}_mask.gif", (labels > 0).astype(np.uint8), shown)


def _read_carvana(root: Path, *, images: str) -> list[Pair]:
    files = sorted(path for path in (root / images).iterdir() if path.stem[-3:-2] == "_")
    cars = {path.stem[:-3] for path in files}
    split = {name: part for part in ("train", "val", "test")
             for name in divided(cars, part, 0, val=0.1, test=0.1, subject=root)}  # fmt: skip
    masks = root / "train_masks"
    return [Pair(p.stem, split[p.stem[:-3]], p, (masks / f"{p.stem}_mask.gif",)) for p in files]


def _slices(count: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    images, labels = [], []
    for i in range(count):
        rng = rng_of(seed, i)
        cells = membranes(rng, size)
        images.append(paint(cells, {0: (85, 85, 85), 1: (165, 165, 165)}, rng, spread=0)[..., 0])
        labels.append(cells * np.uint8(255))
    return np.stack(images), np.stack(labels)


def _write_slices(root: Path, count: int, size: int, seed: int) -> None:
    for kind, stack in zip(("images", "labels"), _slices(count, size, seed), strict=True):
        for i, page in enumerate(stack):
            save(root / kind / f"{i:02d}.png", page)


def _write_stacks(root: Path, count: int, size: int, seed: int) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name, stack in zip((VOLUME, VOLUME_LABELS), _slices(count, size, seed), strict=True):
        tifffile.imwrite(root / name, stack, photometric="minisblack", software=False)


def _contiguous(count: int) -> list[str]:
    vals = max(1, round(count / 5))
    return ["train"] * (count - vals) + ["val"] * vals


def _read_slices(root: Path) -> list[Pair]:
    files = sorted((path for path in (root / "images").iterdir() if path.stem.isdecimal()), key=lambda p: int(p.stem))
    return [Pair(path.stem, split, path, (root / "labels" / f"{path.stem}.png",))
            for path, split in zip(files, _contiguous(len(files)), strict=True)]  # fmt: skip


def _read_stacks(root: Path) -> list[Pair]:
    with tifffile.TiffFile(root / VOLUME) as file:
        splits = _contiguous(len(file.pages))
    return [Pair(f"{i:02d}", split, root / VOLUME, (root / VOLUME_LABELS,), page=i) for i, split in enumerate(splits)]


def _write_folder(root: Path, count: int, size: int, seed: int, *, binary: bool) -> None:
    for i in range(count):
        rng = rng_of(seed, i)
        labels = objects(rng, size)
        colors = {0: (90, 120, 150), 1: (200, 60, 50), 2: (60, 170, 70), 3: (210, 190, 60)}
        save(root / "images" / f"photo_{i + 1}.jpg", paint(labels, colors, rng))
        if binary:
            save(root / "masks" / f"photo_{i + 1}.png", (labels > 0).astype(np.uint8) * 255)
        else:  # as in VOC: colored indices, outlines not labeled
            labels[rim(labels)] = 255
            shown = dict(enumerate(OBJECTS.palette)) | {255: (224, 224, 192)}
            save_indexed(root / "masks" / f"photo_{i + 1}.png", labels, shown)


def _read_folder(root: Path) -> list[Pair]:
    files = {path.stem: path for path in (root / "images").iterdir() if path.stem.startswith("photo_")}
    names = sorted(files, key=natural_key)
    vals = seeded_split(names, "val", 0.2, 0)
    return [Pair(name, "val" if name in vals else "train", files[name], (root / "masks" / f"{name}.png",))
            for name in names]  # fmt: skip


def _write_manifest(root: Path, count: int, size: int, seed: int) -> None:
    data = Composites("all", size, count, seed, channels=3, foregrounds=10, backgrounds=10)
    rows = [("id", "image", "mask", "depth", "split")]
    for i in range(count):
        sample, name = data[i], f"scene_{i:03d}"
        files = f"photos/{name}.png", f"masks/{name}.png", f"depth/{name}.png"
        depth = np.rint(sample["depth"] * 65535).astype(np.uint16)
        for file, array in zip(files, (sample["image"], sample["mask"], depth), strict=True):
            save(root / file, array)
        rows.append((name, *files, "val" if i % 5 == 4 else "train"))
    with open(root / MANIFEST, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _read_manifest(root: Path) -> list[Pair]:
    with open(root / MANIFEST, newline="", encoding="utf-8") as file:
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
    sources = 10 * (1 + count // 200)  # of every ten cut-outs and scenes, eight are train, one val, one test
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


def _carvana(about: str, images: str) -> Layout:
    return Layout(
        "carvana", about, lambda *args: _write_carvana(*args, images=images),
        lambda root: _read_carvana(root, images=images), ("train", "val", "test"),
        options={"hq": True} if images == "train_hq" else {}, recipe="carvana", masks="binary", labels=SHOWN, size=48,
    )  # fmt: skip


def _folder(about: str, labels: LabelSpec, *, binary: bool) -> Layout:
    ignored = {"ignore_ids": labels.ignore_ids, "ignore_index": labels.ignore_index} if labels.ignore_ids else {}
    return Layout(
        "folder", about, lambda *args: _write_folder(*args, binary=binary), _read_folder, ("train", "val"),
        options={"names": labels.names, "ids": labels.ids, **ignored}, masks="binary" if binary else "palette",
        labels=labels,
    )  # fmt: skip


def _isbi(about: str, writer: Writer, reader: Reader) -> Layout:
    return Layout(
        "isbi2012", about, writer, reader, ("train", "val"), recipe="isbi2012", masks="binary", labels=CELLS, gray=True,
        count=10, size=160,
    )  # fmt: skip


THINGS = {
    "carvana": _carvana("Carvana: train/CAR_VIEW.jpg and train_masks/CAR_VIEW_mask.gif", "train"),
    "carvana-hq": _carvana("Carvana with the images of train_hq/", "train_hq"),
    "isbi2012": _isbi("ISBI 2012 as PNG: images/NN.png and labels/NN.png", _write_slices, _read_slices),
    "isbi2012-tif": _isbi("ISBI 2012 as the challenge has it: train-volume.tif and train-labels.tif", _write_stacks,
                          _read_stacks),
    "folder": _folder("your own: images/ and masks/ by stem; masks with a palette, outlines not labeled", OBJECTS,
                      binary=False),
    "folder-binary": _folder("your own: images/ and masks/ by stem; masks of 0 and 255", TWO, binary=True),
    "csv": Layout("csv", "a manifest with columns id, image, mask, depth (16 bits) and split", _write_manifest,
                  _read_manifest, ("train", "val"), options={"names": LISTED.names}, labels=LISTED, has_depth=True),
    "composites": Layout("composites", "sources of composites: fg/ (RGBA cut-outs) and bg/ (scenes)", _write_sources,
                         _read_sources, ("train", "val", "test"), options={"size": 64, "length": 20},
                         recipe="eva-mask-depth", masks=None, least=10),
    "eva": Layout("composites-export", "an EVA export: bg/, fg_bg/, fg_bg_mask/ and fg_bg_depth/, all of them JPEG",
                  _write_export, _read_export, ("train", "val", "test"), options={"mask_threshold": 128}, masks="jpeg",
                  labels=EXPORT_LABELS, has_depth=True, least=10),
}  # fmt: skip
