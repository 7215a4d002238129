"""What is checked, under small settings: by the tests, and by `unetzoo plugin check`.

`miniature` writes five drawn images with annotation files of a format.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from unetzoo.testing import Case

from .shapes import decode_counts

SIZE = (64, 48)  # width, height
NAMES = ("cell", "nucleus")
Drawn = dict[str, list[tuple[str, list[float]]]]  # image → category and vertices x, y, x, y, … of each object


def drawn(folder: Path, count: int = 5) -> Drawn:
    """Draw images with two objects each, an ellipse and a triangle in it."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    found: Drawn = {}
    for number in range(count):
        image = Image.fromarray(rng.integers(0, 60, (SIZE[1], SIZE[0], 3), np.uint8))
        x, y = rng.uniform(18, 40), rng.uniform(16, 30)
        angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
        outline = np.stack([x + 15 * np.cos(angles), y + 12 * np.sin(angles)], 1).round(2)
        inner = np.array([(x - 6, y - 4), (x + 6, y - 3), (x, y + 6)]).round(2)
        found[f"photo_{number}.png"] = objects = []
        for name, points, color in zip(NAMES, (outline, inner), ((180, 60, 60), (60, 60, 200)), strict=True):
            ImageDraw.Draw(image).polygon([tuple(point) for point in points.tolist()], fill=color)
            objects.append((name, points.ravel().tolist()))
        image.save(folder / f"photo_{number}.png")
    return found


def coco(folder: Path, objects: Drawn) -> None:
    """Write COCO JSON: category ids with holes, polygons, both kinds of run lengths, a crowd."""
    ids = {name: 3 + 8 * index for index, name in enumerate(NAMES)}
    images, annotations = [], []
    for number, (file, found) in enumerate(objects.items()):
        images.append({"id": 7 + number, "file_name": file, "width": SIZE[0], "height": SIZE[1]})
        shapes = [(category, [points], 0) for category, points in found]
        runs = coco_mask.frPyObjects([found[1][1]], SIZE[1], SIZE[0])[0]
        if number == 1:
            shapes[1] = NAMES[1], {"size": runs["size"], "counts": runs["counts"].decode()}, 0
        if number == 2:
            shapes[1] = NAMES[1], {"size": runs["size"], "counts": decode_counts(runs["counts"]).tolist()}, 0
        if number == 3:
            shapes.append((NAMES[0], [[0, 0, 9, 0, 9, 9, 0, 9]], 1))
        annotations += [
            {"id": 10 * number + n, "image_id": 7 + number, "category_id": ids[category], "segmentation": shape,
             "iscrowd": crowd}
            for n, (category, shape, crowd) in enumerate(shapes)
        ]  # fmt: skip
    content = {"images": images, "annotations": annotations,
               "categories": [{"id": number, "name": name} for name, number in ids.items()]}  # fmt: skip
    (folder / "annotations.json").write_text(json.dumps(content))


WRITERS: dict[str, Callable[[Path, Drawn], None]] = {"coco": coco}


def miniature(format: str, folder: Path) -> Path:
    """Write five images and annotation files of a format; return the folder."""
    WRITERS[format](folder, drawn(folder / "images"))
    return folder


def _case(format: str, more: dict[str, Any], folder: Path) -> dict[str, Any]:
    return {"root": str(miniature(format, folder / "data")), **more}


CASES = [
    case
    for format in WRITERS
    for case in (
        Case("dataset", format, partial(_case, format, {}), name=format),
        Case("dataset", format, partial(_case, format, {"split": "val", "order": "area"}),
             name=f"{format}(val)"),
    )
]  # fmt: skip
