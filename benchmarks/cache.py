"""A cached dataset at 256² compared with decoding and resizing 2048×1024 frames every time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unetzoo.datasets import Folder, Transform, cached

from .harness import Race

FRAMES, HEIGHT, WIDTH, SIZE, CLASSES = 6, 1024, 2048, 256, 19


def draw(root: Path) -> None:
    """Frames that compress like camera images (3 MB as PNG): gradients, blocks, sensor noise."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    for number in range(FRAMES):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        frame = np.stack([rows * f / HEIGHT + columns * (1 - f) / WIDTH for f in (0.2, 0.5, 0.8)], axis=-1) * 160
        for thing in range(120):
            top, left = rng.integers(0, HEIGHT - 40), rng.integers(0, WIDTH - 40)
            place = slice(top, top + rng.integers(20, 300)), slice(left, left + rng.integers(20, 300))
            mask[place] = thing % CLASSES
            frame[place] = frame[place] * 0.4 + rng.uniform(0, 150, 3)
        frame += rng.normal(0, 3, frame.shape)
        for folder, array in (("images", frame.clip(0, 255).astype(np.uint8)), ("masks", mask)):
            (root / folder).mkdir(exist_ok=True)
            Image.fromarray(array).save(root / folder / f"{number}.png")


def races() -> Iterator[Race]:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        draw(root)
        frames = Folder(root, classes=CLASSES)
        frames.transform = Transform(size=SIZE)
        kept = cached(frames, SIZE, folder=root / "cache", progress=False)

        def pillow() -> list[dict[str, Any]]:
            return [
                {
                    "image": np.asarray(_shrunk(root / "images" / f"{i}.png", Image.Resampling.BILINEAR)),
                    "mask": np.asarray(_shrunk(root / "masks" / f"{i}.png", Image.Resampling.NEAREST)),
                }
                for i in range(FRAMES)
            ]

        def arrays(outputs: dict[str, Any]) -> None:
            for ours, theirs in zip(outputs["cached"], outputs["Pillow: open, resize"], strict=True):
                assert np.abs(ours["image"].astype(int) - theirs["image"]).max() <= 1
                assert np.array_equal(ours["mask"], theirs["mask"])

        yield Race(
            f"{FRAMES} frames of {WIDTH}×{HEIGHT} (PNG) at {SIZE}², as arrays",
            {"cached": lambda: [kept.load(i) for i in range(FRAMES)], "Pillow: open, resize": pillow},
            arrays, notes={"Pillow: open, resize": "its own rounding: images may differ by 1 of 255"},
            work=(FRAMES, "samples"),
        )  # fmt: skip
        yield Race(
            f"{FRAMES} frames of {WIDTH}×{HEIGHT} (PNG) at {SIZE}², as tensors through Transform(size={SIZE})",
            {"cached": _all(kept), "folder: decode and resize": _all(frames)},
            equal, work=(FRAMES, "samples"),
        )  # fmt: skip


def _all(dataset: Any) -> Callable[[], list[dict[str, Any]]]:
    return lambda: [dataset[i] for i in range(FRAMES)]


def _shrunk(path: Path, how: Image.Resampling) -> Image.Image:
    return Image.open(path).resize((SIZE, SIZE), how)


def equal(outputs: dict[str, Any]) -> None:
    """Samples must be identical."""
    for ours, theirs in zip(outputs["cached"], outputs["folder: decode and resize"], strict=True):
        assert ours["id"] == theirs["id"] and all((ours[k] == theirs[k]).all() for k in ("image", "mask"))
