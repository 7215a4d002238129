"""Drawings for the twins of the built-in datasets: faces, streets, cars, cells."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..datasets import celebamask, cityscapes, helen, nnunet
from ..datasets.layout import FileLayout, MaskValues
from ..io import write_text
from ..labels import LabelSpec
from .base import RNG, rng_of, save
from .images import FACE_COLORS, car, complexion, face, membranes, nuclei, paint, street
from .writing import Drawing, Drawn, Fields, shares

# Left and right are the viewer's in Helen and the subject's in CelebAMask-HQ, so they are swapped.
HELEN = {
    "skin": 1, "r_brow": 2, "l_brow": 3, "r_eye": 4, "l_eye": 5, "nose": 6, "u_lip": 7, "mouth": 8, "l_lip": 9,
    "hair": 10,
}  # fmt: skip
_INDEX = {name: i for i, name in enumerate(FACE_COLORS)}
CITIES = {"train": ("aachen", "bochum"), "val": ("frankfurt",), "test": ("berlin",)}
# Label ids 24 to 33 are things, which are numbered in instance files.
FIRST_THING = 24
VOID = {0: ("unlabeled", (0, 0, 0)), 1: ("ego vehicle", (0, 0, 0)), 3: ("out of roi", (0, 0, 0)),
        4: ("static", (0, 0, 0))}  # fmt: skip
NAMES = {i: name for i, name, _ in cityscapes.TABLE} | {i: name for i, (name, _) in VOID.items()}
COLORS = {i: color for i, _, color in cityscapes.TABLE} | {i: color for i, (_, color) in VOID.items()}
_SHOWN = COLORS | {1: (30, 30, 30), 3: (10, 10, 10), 4: (140, 120, 90), 0: (120, 130, 110)}
# Cityscapes' id → CamVid's class; all others are unlabeled (11).
TO_CAMVID = {23: 0, 11: 1, 17: 2, 7: 3, 8: 4, 21: 5, 22: 5, 19: 6, 20: 6, 12: 7, 13: 7, 26: 8, 27: 8, 28: 8, 31: 8,
             24: 9, 25: 10, 32: 10, 33: 10}  # fmt: skip


def _compose(parts: dict[str, np.ndarray], numbers: dict[str, int]) -> np.ndarray:
    """A mask of the parts that have a number, later ones on top."""
    labels = np.zeros(next(iter(parts.values())).shape, np.uint8)
    for name in celebamask.PARTS:
        if name in parts and name in numbers:
            labels[parts[name]] = numbers[name]
    return labels


class HelenFaces(Drawing):
    """Faces with Helen's classes; the release contains a visualization of each."""

    def draw(self, rng: RNG, size: int, layout: FileLayout, values: MaskValues, fields: Fields, seed: int) -> Drawn:
        """A face."""
        parts = face(rng, size)
        return Drawn(paint(_compose(parts, _INDEX), complexion(rng), rng), _compose(parts, HELEN))

    def write_more(self, root: Path, layout: FileLayout, fields: Fields, drawn: Drawn) -> None:
        """`NAME_viz.jpg`."""
        if layout.name == "helen":
            viz = 0.5 * drawn.image + 0.5 * np.array(helen.LABELS.palette)[np.asarray(drawn.labels)]
            save(root / fields["split"] / f"{fields['name']}_viz.jpg", viz.astype(np.uint8))


class CelebAFaces(Drawing):
    """Faces as part files; images have twice their height and width."""

    def samples(self, layout: FileLayout, count: int, seed: int) -> list[Fields]:
        """Ids in two folders of part files."""
        ids = [*range(count - count // 4), *(1999 + number for number in range(count // 4))]
        return [{"name": str(number), "folder": str(number // 2000)} for number in ids]

    def draw(self, rng: RNG, size: int, layout: FileLayout, values: MaskValues, fields: Fields, seed: int) -> Drawn:
        """A face with optional parts."""
        worn = (("eye_g", "ear_r"), ("hat",), ("neck_l",), ())[int(fields["name"]) % 4]
        parts = face(rng, 2 * size, worn)
        image = paint(_compose(parts, _INDEX), complexion(rng), rng)
        return Drawn(image, {name: present[::2, ::2] for name, present in parts.items()})

    def finish(self, root: Path, layout: FileLayout, samples: list[Fields]) -> None:
        """The mapping file: of five faces, the fourth is in val and the fifth in test."""
        if layout.name != "celebamask":
            return
        first = {3: celebamask.FIRST_VAL, 4: celebamask.FIRST_TEST}
        lines = ["idx         orig_idx    orig_file"]
        for place, fields in enumerate(samples):
            original = first.get(int(fields["name"]) % 5, 0) + place
            lines.append(f"{fields['name']:<12}{original:<12}{original + 1:06d}.jpg")
        (root / celebamask.MAPPING).write_text("\n".join(lines) + "\n")


class Streets(Drawing):
    """Street scenes with Cityscapes' label ids and all of its label files; the test split has no labels."""

    def samples(self, layout: FileLayout, count: int, seed: int) -> list[Fields]:
        """Frames of several cities."""
        found = []
        for split, frames in shares(layout, count).items():
            for number in range(frames):
                city = CITIES[split][number % len(CITIES[split])]
                found.append({"split": split, "city": city, "name": f"{city}_{number:06d}_000019"})
        return found

    def draw(self, rng: RNG, size: int, layout: FileLayout, values: MaskValues, fields: Fields, seed: int) -> Drawn:
        """A street."""
        labels = street(rng, size, 2 * size)
        image = paint(labels, _SHOWN, rng)
        if fields["split"] in layout.withheld:
            labels = np.where(labels == 1, labels, np.uint8(3))
        return Drawn(image, labels)

    def write_more(self, root: Path, layout: FileLayout, fields: Fields, drawn: Drawn) -> None:
        """Train ids, instances, colors and polygons."""
        labels = np.asarray(drawn.labels)
        to_train = np.full(256, 255, np.uint8)
        to_train[list(cityscapes.IDS)] = range(len(cityscapes.IDS))
        colors = np.zeros((256, 4), np.uint8)
        colors[:, 3] = 255
        for value, color in COLORS.items():
            colors[value, :3] = color
        instances = np.where(
            labels >= FIRST_THING, labels.astype(np.int32) * 1000, labels
        )  # one instance per class, number 0
        instances = instances.astype(np.uint16)
        stem = root / "gtFine" / fields["split"] / fields["city"] / f"{fields['name']}_gtFine"
        for end, array in (("labelTrainIds", to_train[labels]), ("instanceIds", instances), ("color", colors[labels])):
            save(stem.with_name(f"{stem.name}_{end}.png"), array)
        height, width = labels.shape
        boxes = [{"label": NAMES[int(value)], "polygon": _box(labels == value)} for value in np.unique(labels)]
        text = json.dumps({"imgHeight": height, "imgWidth": width, "objects": boxes}, indent=4)
        stem.with_name(f"{stem.name}_polygons.json").write_text(text)


def _box(where: np.ndarray) -> list[list[int]]:
    rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
    top, bottom, left, right = (int(v) for v in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


class CamVidStreets(Drawing):
    """Street scenes with CamVid's classes."""

    def draw(self, rng: RNG, size: int, layout: FileLayout, values: MaskValues, fields: Fields, seed: int) -> Drawn:
        """A street."""
        table = np.full(256, 11, np.uint8)
        table[list(TO_CAMVID)] = list(TO_CAMVID.values())
        labels = street(rng, size, size * 4 // 3)
        return Drawn(paint(labels, _SHOWN, rng), table[labels])


class Cars(Drawing):
    """Cars in a studio, in several views."""

    def samples(self, layout: FileLayout, count: int, seed: int) -> list[Fields]:
        """Views of each car, counted from 1."""
        cars = max(5, -(-count // 16))
        names = [f"{int(rng_of(seed, number).integers(16**12)):012x}" for number in range(cars)]
        return [{"name": f"{name}_{view:02d}", "car": str(number), "view": str(view)}
                for number, name in enumerate(names) for view in range(1, -(-count // cars) + 1)]  # fmt: skip

    def draw(self, rng: RNG, size: int, layout: FileLayout, values: MaskValues, fields: Fields, seed: int) -> Drawn:
        """A view of a car, which has the same color in all views."""
        color = tuple(rng_of(seed, int(fields["car"]), 0).integers(40, 220, 3).tolist())
        paints = {0: (205, 205, 210), 1: color, 2: (30, 40, 50), 3: (25, 25, 25)}
        labels = car(rng, size, size * 3 // 2, int(fields["view"]))
        return Drawn(paint(labels, paints, rng, spread=0), (labels > 0).astype(np.uint8) * 255)


class Cells(Drawing):
    """Cells and the membranes between them."""

    def draw(self, rng: RNG, size: int, layout: FileLayout, values: MaskValues, fields: Fields, seed: int) -> Drawn:
        """A slice."""
        cells = membranes(rng, size)
        image = paint(cells, {0: (85, 85, 85), 1: (165, 165, 165)}, rng, spread=0)
        return Drawn(image[..., 0], cells * np.uint8(255))


class Nuclei(Drawing):
    """Nuclei with a number each, some of which touch; the original files are RGBA."""

    def draw(self, rng: RNG, size: int, layout: FileLayout, values: MaskValues, fields: Fields, seed: int) -> Drawn:
        """Nuclei on a dark background."""
        numbers = nuclei(rng, size)
        image = paint((numbers > 0).astype(np.uint8), {0: (20, 20, 30), 1: (150, 150, 170)}, rng, spread=0)
        if values.how == "object":
            image = np.dstack([image, np.full(numbers.shape, 255, np.uint8)])
        return Drawn(image, numbers)


class Cases(Drawing):
    """Shapes, and the `dataset.json` of nnU-Net."""

    labels = LabelSpec(("background", "disc", "square", "triangle"), ignore_ids=(4,), ignore_index=255,
                       palette=((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)))  # fmt: skip

    def finish(self, root: Path, layout: FileLayout, samples: list[Fields]) -> None:
        """`dataset.json`."""
        assert layout.labels is not None
        named = zip(layout.labels.names, layout.labels.ids, strict=True)
        labels = dict(named) | {"ignore": layout.labels.ignore_ids[0]}
        plan = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": labels, "numTraining": len(samples),
                "file_ending": ".png"}  # fmt: skip
        write_text(root / nnunet.PLAN, json.dumps(plan, indent=2) + "\n")


DRAWINGS: dict[str, Drawing] = {
    "helen": HelenFaces(),
    "celebamask": CelebAFaces(),
    "cityscapes": Streets(),
    "camvid": CamVidStreets(size=72),
    "carvana": Cars(size=48),
    "isbi2012": Cells(count=10, size=160),
    "dsb2018": Nuclei(),
    "nnunet": Cases(),
}
