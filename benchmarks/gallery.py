"""Figures of the home page and the gallery, all predicted by networks of this library.

    python -m benchmarks.gallery DSB2018 [NAME ...]

writes docs/figures/NAME.webp. Only images that anyone may show are used: drawn ones, and nuclei of the 2018 Data
Science Bowl (CC0) from the test split, which neither trained nor chose a network. DSB2018 is the folder of the dataset
`dsb2018`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

import unetzoo
from unetzoo.inference import predict_to, predict_with_uncertainty
from unetzoo.inference.results import SegmentationResult
from unetzoo.report.images import colored, limits_of, overlaid, scaled
from unetzoo.twins import write

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
SIDE, GAP = 256, 8
CROWDED, LARGE, STAINED, BALLOON = 11, 20, 0, 11  # images to show: fluorescence is too dark to be seen in most others
Grid = Sequence[Sequence[np.ndarray]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gallery")
    parser.add_argument("dsb2018", type=Path)
    parser.add_argument("names", nargs="*", default=list(FIGURE), metavar="NAME", help=", ".join(FIGURE))
    options = parser.parse_args()
    for name in options.names:
        save(name, FIGURE[name](options.dsb2018))


def save(name: str, rows: Grid) -> None:
    """Write a grid of images with transparent gaps, which suits light and dark pages."""
    heights, widths = [row[0].shape[0] for row in rows], [tile.shape[1] for tile in rows[0]]
    size = (sum(widths) + GAP * (len(widths) - 1), sum(heights) + GAP * (len(heights) - 1))
    sheet = Image.new("RGBA", size)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for tile in row:
            sheet.paste(Image.fromarray(tile), (left, top))
            left += tile.shape[1] + GAP
        top += height + GAP
    sheet.save(FIGURES / f"{name}.webp", quality=88, method=6)


def nuclei(root: Path, *, color: bool) -> list[np.ndarray]:
    """Test images of at least one tile, cut to it: stained tissue, or fluorescence."""
    data = unetzoo.DATASETS.build("dsb2018", root=root, split="test")
    images = [data.load(index)["image"] for index in range(len(data))]
    return [
        image[:SIDE, :SIDE]
        for image in images
        if min(image.shape[:2]) >= SIDE and (np.ptp(image.astype(int), axis=-1).mean() > 5) == color
    ]


@cache
def composite() -> SegmentationResult:
    data = unetzoo.DATASETS.build("composites", split="test", size=96, length=24, jitter=True)
    return unetzoo.load("composites").predict(data.load(BALLOON)["image"])


def hero(root: Path) -> Grid:
    net = unetzoo.load("nuclei")
    images = [nuclei(root, color=False)[CROWDED], nuclei(root, color=True)[STAINED]]
    scene, overlay, depth = mask_depth(root)[0]
    above, below = [*images, scene, scene], [*(outlines(net.predict(image)) for image in images), overlay, depth]
    return [above, below]


def binary(root: Path) -> Grid:
    """Train on a folder of images and masks, as `unetzoo train FOLDER --minutes 3` does."""
    image = nuclei(root, color=False)[LARGE]
    data = unetzoo.DATASETS.build("dsb2018", root=root, split="train")
    with tempfile.TemporaryDirectory() as folder:
        for index in range(120):
            sample = data.load(index)
            for name, array in (("images", sample["image"]), ("masks", sample["mask"] * np.uint8(255))):
                Path(folder, "cells", name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(Path(folder, "cells", name, f"{index:03}.png"))
        plan = unetzoo.plan(Path(folder, "cells"), minutes=3)
        unetzoo.train(plan, out=f"{folder}/run", progress=False)
        result = unetzoo.load(f"{folder}/run").predict(image)
    return [[image, gray(result.label_map * np.uint8(255)), np.asarray(result.overlay())]]


def multiclass(root: Path) -> Grid:
    """Train on drawn faces of eleven classes, as `unetzoo train FOLDER --minutes 2` does on a twin."""
    with tempfile.TemporaryDirectory() as folder:
        faces = write("helen", f"{folder}/faces", count=100)
        unetzoo.train(unetzoo.plan(faces, minutes=2), out=f"{folder}/run", progress=False)
        image = unetzoo.DATASETS.build("helen", root=faces, split="test").load(0)["image"]
        result = unetzoo.load(f"{folder}/run").predict(image)
    return [[enlarged(image), enlarged(result.colors), enlarged(np.asarray(result.overlay()))]]


def mask_depth(root: Path) -> Grid:
    result = composite()
    scene = np.ascontiguousarray(result.image[..., :3])
    depth = result.depth_colors()
    assert depth is not None
    return [[enlarged(tile) for tile in (scene, overlaid(scene, result.colors), np.asarray(depth))]]


def instances(root: Path) -> Grid:
    image = nuclei(root, color=False)[CROWDED]
    result = unetzoo.load("nuclei").predict(image)
    return [[image, np.asarray(result.overlay()), outlines(result)]]


def gigapixel(root: Path) -> Grid:
    """Stream a mosaic of 16.8 megapixels from disk to disk in 200 MB."""
    images = [image for image in nuclei(root, color=True) if image.mean() > 180]  # similar ones, stained on white
    rng, count = np.random.default_rng(0), 16
    mosaic = np.block([[[images[rng.integers(len(images))]] for _ in range(count)] for _ in range(count)])
    net = unetzoo.load("nuclei")
    with tempfile.TemporaryDirectory() as folder:
        slide, classes = Path(folder, "slide.tif"), Path(folder, "classes.tif")
        tifffile.imwrite(slide, mosaic, tile=(256, 256), photometric="rgb")
        predict_to(net, slide, classes, memory="200MB")
        found = tifffile.imread(classes)
    part = slice(SIDE // 2, SIDE // 2 + SIDE)
    whole = np.asarray(Image.fromarray(mosaic).resize((SIDE, SIDE), Image.Resampling.BOX))
    near = mosaic[part, part]
    return [[whole, near, overlaid(near, colored(found[part, part], net.labels))]]


def uncertainty(root: Path) -> Grid:
    image = nuclei(root, color=True)[STAINED]
    net = unetzoo.load("nuclei")
    _, disagreement = predict_with_uncertainty(net, image, tta="d4")
    return [
        [image, np.asarray(net.predict(image).overlay()), scaled(disagreement.numpy(), limits_of(disagreement.numpy()))]
    ]


def outlines(result: SegmentationResult) -> np.ndarray:
    return np.asarray(result.objects.outlined(result.image))


def gray(plane: np.ndarray) -> np.ndarray:
    return np.stack([plane] * 3, -1)


def enlarged(tile: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(tile).resize((SIDE, SIDE), Image.Resampling.NEAREST))


FIGURE: dict[str, Callable[[Path], Grid]] = {
    "home": hero, "binary": binary, "multiclass": multiclass, "mask-depth": mask_depth, "instances": instances,
    "gigapixel": gigapixel, "uncertainty": uncertainty,
}  # fmt: skip

if __name__ == "__main__":
    main()
