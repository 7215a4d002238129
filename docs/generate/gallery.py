"""Draw the figures of the home page and the gallery: `python -m docs.generate.gallery PATH`.

PATH is the folder of the 2018 Data Science Bowl's images (CC0). The images shown are of its test split, which the
shipped weights have not seen; composites are drawn here.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

import unetzoo
from unetzoo.bundle import ModelBundle
from unetzoo.inference import Predictor, predict_with_uncertainty
from unetzoo.inference.objects import Objects
from unetzoo.report.images import colored

from . import DOCS

SIDE, GAP = 256, 8
FLUORESCENT, STAINED, CROWDED = "308084bdd358", "0121d6759c5a", "f6863b83d75e"
BINARY = unetzoo.LabelSpec(("background", "foreground"), palette=((20, 22, 30), (90, 170, 255)))
COLORED = unetzoo.LabelSpec(("background", "nucleus", "border"), palette=((20, 22, 30), (90, 170, 255), (255, 196, 60)))


def main() -> None:
    """Predict, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, help="the folder of dsb2018")
    root = parser.parse_args().root
    data: Any = unetzoo.DATASETS.build("dsb2018", root=root, split="test")
    images = {data[index]["id"]: data[index]["image"][:SIDE, :SIDE] for index in range(len(data))}
    nuclei = Predictor(unetzoo.load("nuclei"))  # pyright: ignore[reportArgumentType]
    found = {name: nuclei.segment(images[name]) for name in (FLUORESCENT, STAINED, CROWDED)}

    home = [panel for name in (CROWDED, STAINED)
            for panel in (large(shown(images[name])), outlined(images[name], found[name].objects))]  # fmt: skip
    save("nuclei", home)
    save("gallery-instances", [large(shown(images[CROWDED])), outlined(images[CROWDED], found[CROWDED].objects)])
    mask = (found[FLUORESCENT].label_map > 0).astype(np.uint8)
    save("gallery-binary", [large(shown(images[FLUORESCENT])), large(colored(mask, BINARY))])
    save("gallery-classes", [large(shown(images[STAINED])), large(colored(found[STAINED].label_map, COLORED))])
    save("gallery-uncertainty", [large(shown(images[STAINED])), large(disagreement(nuclei, images[STAINED]))])
    save("gallery-depth", composite())


def shown(image: np.ndarray) -> np.ndarray:
    """The image, brightened if it is dark."""
    return np.asarray(ImageOps.autocontrast(Image.fromarray(image), cutoff=(0, 0.5)))


def large(image: np.ndarray) -> Image.Image:
    """The image at twice the size."""
    return Image.fromarray(image).resize((2 * image.shape[1], 2 * image.shape[0]), Image.Resampling.LANCZOS)


def outlined(image: np.ndarray, objects: Objects) -> Image.Image:
    """The image at twice the size, with outlines of two pixels."""
    numbers = objects.numbers.repeat(2, 0).repeat(2, 1)
    thin = Objects(numbers, objects.classes, objects.probabilities)
    drawn = np.asarray(large(shown(image)))
    for shift in (1, 0):
        drawn = np.asarray(
            Objects(np.roll(thin.numbers, shift, (0, 1)), thin.classes, thin.probabilities).outlined(drawn)
        )
    return Image.fromarray(drawn)


def disagreement(predictor: Predictor, image: np.ndarray) -> np.ndarray:
    """Where eight views of the image disagree, in the colors of a heat map."""
    from matplotlib import colormaps

    assert predictor.preprocess is not None
    found = predict_with_uncertainty(predictor.net, predictor.preprocess(image), tta="d4")
    values = found.disagreement.float().cpu().numpy()
    return (colormaps["inferno"](values / values.max())[..., :3] * 255).astype(np.uint8)


def composite() -> list[Image.Image]:
    """A drawn composite with its background, and mask and depth of the shipped network."""
    from matplotlib import colormaps

    bundle = ModelBundle.of(unetzoo.load("composites"))
    data: Any = unetzoo.DATASETS.build("composites", split="test", size=128, length=8, jitter=True)
    image = data[3]["image"]
    result = Predictor(bundle).segment(image)
    assert result.depth is not None
    depth = (colormaps["viridis"](np.clip(result.depth, 0, 1))[..., :3] * 255).astype(np.uint8)
    mask = colored(result.label_map, BINARY)
    return [large(panel).resize((2 * SIDE, 2 * SIDE)) for panel in (image[..., :3], image[..., 3:], mask, depth)]


def save(name: str, panels: Sequence[Image.Image]) -> None:
    """Write panels in a row, with transparent gaps that suit a light and a dark page."""
    height = max(panel.height for panel in panels)
    width = sum(panel.width for panel in panels) + 2 * GAP * (len(panels) - 1)
    sheet, left = Image.new("RGBA", (width, height)), 0
    for panel in panels:
        sheet.paste(panel.convert("RGBA"), (left, 0))
        left += panel.width + 2 * GAP
    path = DOCS / "figures" / f"{name}.webp"
    sheet.save(path, quality=82, method=6)
    print(f"{path.relative_to(DOCS)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
