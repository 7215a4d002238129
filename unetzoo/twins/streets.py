"""Twins of the street scenes: Cityscapes and CamVid in both of its layouts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..datasets.camvid import LABELS as CAMVID_LABELS
from ..datasets.cityscapes import LABEL_IDS, LABELS, PICTURE, TABLE, TRAIN_IDS
from .base import Layout, Pair, rng_of, save
from .images import paint, street

CITIES = {"train": ("aachen", "bochum"), "val": ("frankfurt",), "test": ("berlin",)}
# label ids 24 to 33 are things, counted one by one in the files of instances
FIRST_THING = 24
VOID = {0: ("unlabeled", (0, 0, 0)), 1: ("ego vehicle", (0, 0, 0)), 3: ("out of roi", (0, 0, 0)),
        4: ("static", (0, 0, 0))}  # fmt: skip
NAMES = {i: name for i, name, _ in TABLE} | {i: name for i, (name, _) in VOID.items()}
COLORS = {i: color for i, _, color in TABLE} | {i: color for i, (_, color) in VOID.items()}
_SHOWN = COLORS | {1: (30, 30, 30), 3: (10, 10, 10), 4: (140, 120, 90), 0: (120, 130, 110)}
# Cityscapes' id → CamVid's class; what it does not know is not labeled (11)
TO_CAMVID = {23: 0, 11: 1, 17: 2, 7: 3, 8: 4, 21: 5, 22: 5, 19: 6, 20: 6, 12: 7, 13: 7, 26: 8, 27: 8, 28: 8, 31: 8,
             24: 9, 25: 10, 32: 10, 33: 10}  # fmt: skip


def _shares(count: int) -> dict[str, int]:
    """Frames a split: a fifth val, a tenth test, one at least."""
    val, test = max(1, count // 5), max(1, count // 10)
    return {"train": max(2, count - val - test), "val": val, "test": test}


def _write_cityscapes(root: Path, count: int, size: int, seed: int) -> None:
    number = 0
    for split, frames in _shares(count).items():
        for i in range(frames):
            rng = rng_of(seed, number)
            labels = street(rng, size, 2 * size)
            city = CITIES[split][i % len(CITIES[split])]
            stem = f"{city}_{i:06d}_000019"
            save(root / "leftImg8bit" / split / city / f"{stem}{PICTURE}.png", paint(labels, _SHOWN, rng))
            if split == "test":  # the labels of the test split are kept secret
                labels = np.where(labels == 1, labels, np.uint8(3))
            _write_labels(root / "gtFine" / split / city / f"{stem}_gtFine", labels)
            number += 1


def _write_labels(stem: Path, labels: np.ndarray) -> None:
    """The five label files of a frame."""
    to_train = np.full(256, 255, np.uint8)
    to_train[list(LABELS.ids)] = np.arange(len(LABELS.ids))
    colors = np.zeros((256, 4), np.uint8)
    for value, color in COLORS.items():
        colors[value] = *color, 255
    instances = np.where(labels >= FIRST_THING, labels.astype(np.uint16) * 1000, labels)  # one of each kind: number 0
    for end, array in (("labelIds", labels), ("labelTrainIds", to_train[labels]), ("instanceIds", instances),
                       ("color", colors[labels])):  # fmt: skip
        save(stem.with_name(f"{stem.name}_{end}.png"), array)
    height, width = labels.shape
    boxes = [{"label": NAMES[int(value)], "polygon": _box(labels == value)} for value in np.unique(labels)]
    text = json.dumps({"imgHeight": height, "imgWidth": width, "objects": boxes}, indent=4)
    stem.with_name(f"{stem.name}_polygons.json").write_text(text)


def _box(where: np.ndarray) -> list[list[int]]:
    rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
    top, bottom, left, right = (int(v) for v in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def _read_cityscapes(root: Path) -> list[Pair]:
    pairs = []
    for split in ("train", "val", "test"):
        for image in sorted((root / "leftImg8bit" / split).glob(f"*/*{PICTURE}.*")):
            name = image.stem.removesuffix(PICTURE)
            folder = root / "gtFine" / split / image.parent.name
            pairs.append(Pair(name, split, image, tuple(folder / f"{name}{end}.png" for end in (LABEL_IDS, TRAIN_IDS))))
    return pairs


def _camvid_folders(root: Path, split: str, nested: bool) -> tuple[Path, Path]:
    return (root / "images" / split, root / "labels" / split) if nested else (root / split, root / f"{split}annot")


def _write_camvid(root: Path, count: int, size: int, seed: int, *, nested: bool) -> None:
    table = np.full(256, 11, np.uint8)
    table[list(TO_CAMVID)] = list(TO_CAMVID.values())
    number = 0
    for split, frames in _shares(count).items():
        images, masks = _camvid_folders(root, split, nested)
        for _ in range(frames):
            rng = rng_of(seed, number)
            labels = street(rng, size, size * 4 // 3)
            name = f"0001TP_{6690 + 30 * number:06d}.png"
            save(images / name, paint(labels, _SHOWN, rng))
            save(masks / name, table[labels])
            number += 1


def _read_camvid(root: Path, *, nested: bool) -> list[Pair]:
    pairs = []
    for split in ("train", "val", "test"):
        images, masks = _camvid_folders(root, split, nested)
        pairs += [Pair(path.stem, split, path, (masks / f"{path.stem}.png",)) for path in sorted(images.glob("0*.*"))]
    return pairs


def _camvid(about: str, nested: bool) -> Layout:
    return Layout("camvid", about, lambda *args: _write_camvid(*args, nested=nested),
                  lambda root: _read_camvid(root, nested=nested), ("train", "val", "test"),
                  labels=CAMVID_LABELS, size=72)  # fmt: skip


STREETS = {
    "cityscapes": Layout(
        "cityscapes", "Cityscapes: leftImg8bit/ and gtFine/ with all five label files; test without labels",
        _write_cityscapes, _read_cityscapes, ("train", "val"), recipe="unet-cityscapes", labels=LABELS, size=64,
    ),
    "camvid": _camvid("CamVid as SegNet has it: train/ and trainannot/, and so on", nested=False),
    "camvid-folders": _camvid("CamVid by kind: images/train/ and labels/train/, and so on", nested=True),
}  # fmt: skip
