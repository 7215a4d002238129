"""Cases of the conformance checks, which the tests and `unetzoo plugin check` run.

`miniature` writes five drawn images with annotation files of a format.
"""

from __future__ import annotations

import base64
import io
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


def labelme(folder: Path, objects: Drawn) -> None:
    """Write LabelMe's JSON files: polygons, a rectangle, a circle, a mask."""
    for number, (file, found) in enumerate(objects.items()):
        shapes = [{"label": category, "points": pairs(points), "shape_type": "polygon", "group_id": None}
                  for category, points in found]  # fmt: skip
        if number == 1:
            shapes.append({"label": NAMES[0], "points": [[2, 3], [9.5, 8]], "shape_type": "rectangle"})
            shapes.append({"label": NAMES[1], "points": [[50, 10], [53, 10]], "shape_type": "circle", "group_id": 3})
        if number == 2:
            shapes.append({"label": NAMES[1], "points": [[4, 5], [7, 6]], "shape_type": "mask", "mask": png(PATCH)})
        content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": file, "imageData": None,
                   "imageHeight": SIZE[1], "imageWidth": SIZE[0]}  # fmt: skip
        (folder / "images" / file).with_suffix(".json").write_text(json.dumps(content))


def yolo(folder: Path, objects: Drawn) -> None:
    """Write YOLO's text files and data.yaml."""
    (folder / "labels").mkdir()
    (folder / "data.yaml").write_text(f"path: .\ntrain: images\nnames:\n  0: {NAMES[0]}\n  1: {NAMES[1]}\n")
    for file, found in objects.items():
        rows = ((NAMES.index(category), (np.reshape(points, (-1, 2)) / SIZE).ravel()) for category, points in found)
        text = "".join(f"{number} {' '.join(f'{value:.6f}' for value in points)}\n" for number, points in rows)
        (folder / "labels" / file).with_suffix(".txt").write_text(text)


def cvat(folder: Path, objects: Drawn) -> None:
    """Write CVAT's XML: polygons, a turned box, an ellipse, a mask."""
    labels = "".join(f"<label><name>{name}</name></label>" for name in NAMES)
    text = f"<annotations><version>1.1</version><meta><job><labels>{labels}</labels></job></meta>"
    for number, (file, found) in enumerate(objects.items()):
        text += f'\n<image id="{number}" name="{file}" width="{SIZE[0]}" height="{SIZE[1]}">'
        for category, points in found:
            joined = ";".join(f"{x},{y}" for x, y in pairs(points))
            text += f'\n<polygon label="{category}" occluded="0" points="{joined}" z_order="0"></polygon>'
        if number == 1:
            text += (f'\n<box label="{NAMES[0]}" xtl="2" ytl="3" xbr="9.5" ybr="8" rotation="30" z_order="-1"></box>'
                     f'\n<ellipse label="{NAMES[1]}" cx="50" cy="10" rx="4" ry="3" z_order="1"></ellipse>')  # fmt: skip
        if number == 2:
            text += f'\n<mask label="{NAMES[1]}" rle="1, 2, 1, 4" left="4" top="5" width="4" height="2"></mask>'
        text += "</image>"
    (folder / "annotations.xml").write_text(text + "</annotations>")


def rle_csv(folder: Path, objects: Drawn) -> None:
    """Write run lengths as Kaggle does, one row per object."""
    rows = ["ImageId,EncodedPixels,ClassId"]
    for number, (file, found) in enumerate(objects.items()):
        for category, points in found if number != 3 else ():
            edges = np.cumsum(decode_counts(coco_mask.frPyObjects([points], SIZE[1], SIZE[0])[0]["counts"]))
            runs = (f"{start + 1} {end - start}" for start, end in zip(edges[::2], edges[1::2], strict=False))
            rows.append(f"{file},{' '.join(runs)},{category}")
        if number == 3:
            rows.append(f"{file},,")
    (folder / "train.csv").write_text("\n".join(rows) + "\n")


def label_studio(folder: Path, objects: Drawn) -> None:
    """Write Label Studio's JSON: polygons, a rectangle, an ellipse, a brush mask."""
    tasks = []
    for number, (file, found) in enumerate(objects.items()):
        values = [("polygon", category, {"points": (np.reshape(points, (-1, 2)) / SIZE * 100).tolist(), "closed": True})
                  for category, points in found]  # fmt: skip
        if number == 1:
            values.append(("rectangle", NAMES[0], {"x": 5, "y": 6, "width": 10, "height": 12, "rotation": 20}))
            values.append(("ellipse", NAMES[1], {"x": 80, "y": 20, "radiusX": 6, "radiusY": 5, "rotation": 0}))
        if number == 2:
            mask = np.zeros(SIZE[::-1], bool)
            mask[5:7, 4:8] = PATCH
            values.append(("brush", NAMES[1], {"format": "rle", "rle": list(brush(mask))}))
        results = [
            {"id": f"r{n}", "type": f"{kind}labels", "original_width": SIZE[0], "original_height": SIZE[1],
             "image_rotation": 0, "value": {**value, f"{kind}labels": [category]}}
            for n, (kind, category, value) in enumerate(values)
        ]  # fmt: skip
        tasks.append({"id": number, "annotations": [{"id": number, "was_cancelled": False, "result": results}],
                      "data": {"image": f"/data/upload/1/0a1b2c3d-{file}"}})  # fmt: skip
    (folder / "export.json").write_text(json.dumps(tasks))


PATCH = np.array([[0, 1, 1, 0], [1, 1, 1, 1]], bool)


def pairs(points: list[float]) -> list[list[float]]:
    """Vertices as pairs."""
    return np.reshape(points, (-1, 2)).tolist()


def png(mask: np.ndarray) -> str:
    """A mask as PNG in base64, as LabelMe stores it."""
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def brush(mask: np.ndarray) -> bytes:
    """A mask in Label Studio's run lengths: opaque pixels of 255 inside."""
    values = np.repeat(mask.ravel() * 255, 4)
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    place = 0
    while place < len(values):
        ends = np.flatnonzero(values[place:] != values[place])
        count = min(int(ends[0]) if len(ends) else len(values) - place, 2**16)
        if count == 1:  # a group of values that differ, here of one
            bits += f"000000{values[place]:08b}"
        else:
            size = next(n for n, width in enumerate((3, 4, 8, 16)) if count <= 2**width)
            bits += f"1{size:02b}{count - 1:0{(3, 4, 8, 16)[size]}b}{values[place]:08b}"
        place += count
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


WRITERS: dict[str, Callable[[Path, Drawn], None]] = {
    "coco": coco, "labelme": labelme, "yolo-seg": yolo, "cvat": cvat, "rle-csv": rle_csv, "label-studio": label_studio,
}  # fmt: skip


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
        Case("dataset", format, partial(_case, format, {"split": "val", "instances": True, "order": "area"}),
             name=f"{format}(val)"),
    )
]  # fmt: skip
