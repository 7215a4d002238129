"""Twins of the faces: Helen (the release, and re-sorted) and CelebAMask-HQ (with its mapping file and without)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..datasets.base import seeded_split
from ..datasets.celebamask import FIRST_TEST, FIRST_VAL, LABELS, MAPPING, PART_FILES, PARTS, PICTURES
from ..datasets.helen import LABELS as HELEN_LABELS
from ..datasets.helen import RESORTED
from ..datasets.layout import divided
from ..datasets.listing import natural_key
from .base import Layout, Pair, rng_of, save
from .images import FACE_COLORS, complexion, face, paint

# Helen's sides are the viewer's, CelebAMask-HQ's the subject's: the left brow of the one is the right one of the other
HELEN = {
    "skin": 1, "r_brow": 2, "l_brow": 3, "r_eye": 4, "l_eye": 5, "nose": 6, "u_lip": 7, "mouth": 8, "l_lip": 9,
    "hair": 10,
}  # fmt: skip
_INDEX = {name: i for i, name in enumerate(FACE_COLORS)}


def _compose(parts: dict[str, np.ndarray], numbers: dict[str, int]) -> np.ndarray:
    """The label map of the parts that have a number, later ones over earlier ones."""
    labels = np.zeros(next(iter(parts.values())).shape, np.uint8)
    for name in PARTS:
        if name in parts and name in numbers:
            labels[parts[name]] = numbers[name]
    return labels


def _write_helen(root: Path, count: int, size: int, seed: int, *, resorted: bool) -> None:
    tests = max(1, count // 5)
    for i in range(count):
        rng = rng_of(seed, i)
        parts = face(rng, size)
        image, labels = paint(_compose(parts, _INDEX), complexion(rng), rng), _compose(parts, HELEN)
        part, name = ("test" if i >= count - tests else "train"), f"{100032540 + 1117 * i}_1"
        if resorted:
            images, masks = (root / RESORTED / part / kind for kind in ("images", "labels"))
        else:
            images = masks = root / part
            viz = (0.5 * image + 0.5 * np.array(HELEN_LABELS.palette)[labels]).astype(np.uint8)
            save(images / f"{name}_viz.jpg", viz)
        save(images / f"{name}_image.jpg", image)
        save(masks / f"{name}_label.png", labels)


def _read_helen(root: Path, *, resorted: bool) -> list[Pair]:
    pairs = []
    for part in ("train", "test"):
        folder = root / RESORTED / part / "images" if resorted else root / part
        images = {path.stem.removesuffix("_image"): path for path in folder.glob("*_image.*")}
        names = sorted(images, key=natural_key)
        vals = set(seeded_split(names, "val", 0.1, 0)) if part == "train" else set()
        labels = root / RESORTED / part / "labels" if resorted else folder
        pairs += [Pair(name, "val" if name in vals else part, images[name], (labels / f"{name}_label.png",))
                  for name in names]  # fmt: skip
    return pairs


def _write_celebamask(root: Path, count: int, size: int, seed: int, *, mapping: bool) -> None:
    ids = list(range(count - count // 4)) + [1999 + i for i in range(count // 4)]  # over two folders of part files
    for i, number in enumerate(ids):
        rng = rng_of(seed, i)
        worn = (("eye_g", "ear_r"), ("hat",), ("neck_l",), ())[i % 4]
        parts = face(rng, 2 * size, worn)  # images have twice the side of part files
        save(root / PICTURES / f"{number}.jpg", paint(_compose(parts, _INDEX), complexion(rng), rng))
        for name, present in parts.items():
            gray = present[::2, ::2].astype(np.uint8) * 255
            save(root / PART_FILES / str(number // 2000) / f"{number:05d}_{name}.png", np.stack([gray] * 3, 2))
    if mapping:
        first = {"train": 0, "val": FIRST_VAL, "test": FIRST_TEST}
        lines = [f"{number:<12}{(original := first[_official_split(number)] + i):<12}{original + 1:06d}.jpg"
                 for i, number in enumerate(ids)]  # fmt: skip
        (root / MAPPING).write_text("idx         orig_idx    orig_file\n" + "\n".join(lines) + "\n")


def _official_split(number: int) -> str:
    """The twin's own choice: of every five faces the fourth is val, the fifth test."""
    return {3: "val", 4: "test"}.get(number % 5, "train")


def _read_celebamask(root: Path, *, mapping: bool) -> list[Pair]:
    images = {path.stem: path for path in (root / PICTURES).iterdir() if path.stem.isdecimal()}
    names = sorted(images, key=natural_key)
    if mapping:
        split = {name: _official_split(int(name)) for name in names}
    else:
        split = {name: part for part in ("train", "val", "test")
                 for name in divided(names, part, 0, val=0.09, test=0.1, subject=root)}  # fmt: skip
    pairs = []
    for name in names:
        folder = root / PART_FILES / str(int(name) // 2000)
        files = [folder / f"{int(name):05d}_{part}.png" for part in PARTS]
        hair_first = sorted(files, key=lambda path: not path.stem.endswith("_hair"))
        pairs.append(Pair(name, split[name], images[name], tuple(path for path in hair_first if path.exists())))
    return pairs


def _helen(about: str, resorted: bool) -> Layout:
    return Layout("helen", about, lambda *args: _write_helen(*args, resorted=resorted),
                  lambda root: _read_helen(root, resorted=resorted), ("train", "val", "test"),
                  recipe="helen", labels=HELEN_LABELS, size=64)  # fmt: skip


def _celebamask(about: str, mapping: bool) -> Layout:
    return Layout("celebamask", about, lambda *args: _write_celebamask(*args, mapping=mapping),
                  lambda root: _read_celebamask(root, mapping=mapping), ("train", "val", "test"),
                  recipe="celebamask-eyes-lips", masks="parts", labels=LABELS["parts"], size=64)  # fmt: skip


FACES = {
    "helen": _helen("the HelenStar release: train/ and test/ with NAME_image.jpg, NAME_label.png, NAME_viz.jpg", False),
    "helen-resorted": _helen("Helen re-sorted: splitted_Data/{train,test}/{images,labels}", True),
    "celebamask": _celebamask("CelebAMask-HQ with the mapping file of CelebA's official split", True),
    "celebamask-unmapped": _celebamask("CelebAMask-HQ without a mapping file: a seeded split", False),
}
