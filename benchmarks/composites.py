"""Composing samples on the fly compared with reading them from files; on one core, with warm sources and files.

The exported files hold the compositor's output, so all contenders return the same samples: PNG exactly, JPEG closely.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unetzoo.datasets import Composites, CompositesExport, write_export

from .harness import Race

SAMPLES = 200
SEEN = slice(None, None, 10)  # the samples that are compared
Sample = dict[str, Any]
Get = Callable[[int], Sample]


def races() -> Iterator[Race]:
    data = Composites(length=SAMPLES)
    with tempfile.TemporaryDirectory() as folder:
        for files, quality in (("PNG", None), ("JPEG", 90)):
            root = Path(folder) / files
            write_export(data, root, jpeg=quality)
            for channels, count in ((3, 3), (6, 4)):
                export = CompositesExport(root, "all", channels=channels)
                yield Race(
                    f"a sample of 192² and {channels} channels, with mask and depth; files are {files}",
                    {
                        "composed": collect(Composites(length=SAMPLES, channels=channels).__getitem__),
                        "CompositesExport": collect(in_order(export, data)),
                        f"Pillow and NumPy, {count} files": collect(reader(root, data, scene=channels == 6)),
                    },
                    exact if quality is None else about,
                    work=(SAMPLES, "samples"),
                    notes={"composed": "cut-outs and scenes in memory", "CompositesExport": "files in the page cache"},
                )
    yield Race(
        "6 channels, jittered",
        {
            "composed": collect(Composites(length=SAMPLES, jitter=True).__getitem__),
            "step by step": collect(step_by_step(data)),
        },
        exact,
        work=(SAMPLES, "samples"),
        notes={"step by step": "the same disturbances in plain NumPy and Pillow"},
    )


def collect(get: Get) -> Callable[[], list[Sample]]:
    """Load all samples in turn and keep some."""

    def run() -> list[Sample]:
        kept = []
        for index in range(SAMPLES):
            sample = get(index)
            if index % SEEN.step == 0:
                kept.append(sample)
        return kept

    return run


def in_order(export: CompositesExport, data: Composites) -> Get:
    places = [export.stems.index(data.stem(index)) for index in range(SAMPLES)]
    return lambda index: export[places[index]]


def reader(root: Path, data: Composites, *, scene: bool) -> Get:
    """Read an export in the usual way."""
    stems = [data.stem(index) for index in range(SAMPLES)]
    scenes = [data.background_names[data.combination(index).background] for index in range(SAMPLES)]
    ending = next((root / "fg_bg").iterdir()).suffix
    top = 65535 if ending == ".png" else 255

    def get(index: int) -> Sample:
        image = array(root / "fg_bg" / (stems[index] + ending))
        if scene:
            image = np.concatenate([image, array(root / "bg" / (scenes[index] + ending))], axis=2)
        mask = array(root / "fg_bg_mask" / f"{stems[index]}.png") // 255
        depth = array(root / "fg_bg_depth" / (stems[index] + ending)).astype(np.float32) / top
        return {"image": image, "mask": mask, "depth": depth}

    return get


def array(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def step_by_step(plain: Composites) -> Get:
    """A straightforward jitter of the plain sample."""

    def get(index: int) -> Sample:
        sample = plain[index]
        rng = np.random.default_rng(np.random.SeedSequence([plain.seed, 0, index]))
        rng.random(5)
        parts = []
        for start in (0, 3):
            dy, dx = rng.integers(-1, 2, 2).tolist()
            rows, columns = (np.clip(np.arange(192) - move, 0, 191) for move in (dy, dx))
            contrast, brightness = rng.uniform(0.85, 1.15), rng.uniform(-0.15, 0.15) * 255
            table = np.rint((np.arange(256) - 127.5) * contrast + 127.5 + brightness).clip(0, 255).astype(np.uint8)
            part = table[sample["image"][..., start : start + 3][rows[:, None], columns]]
            file = io.BytesIO()
            Image.fromarray(part).save(file, "JPEG", quality=int(rng.integers(60, 96)))
            parts.append(np.asarray(Image.open(file)))
            if start == 0:
                mask, depth = (sample[name][rows[:, None], columns] for name in ("mask", "depth"))
        return {"image": np.concatenate(parts, axis=2), "mask": mask, "depth": depth}

    return get


def exact(outputs: dict[str, list[Sample]]) -> None:
    compare(outputs, image=0, depth=0.5 / 65535 + 1e-7)


def about(outputs: dict[str, list[Sample]]) -> None:
    compare(outputs, image=6, depth=0.02)


def compare(outputs: dict[str, list[Sample]], image: float, depth: float) -> None:
    """Masks must be equal, images and depth as close as the file format allows."""
    ours = outputs["composed"]
    for samples in outputs.values():
        for truth, found in zip(ours, samples, strict=True):
            assert (found["mask"] == truth["mask"]).all()
            gap = np.abs(found["image"].astype(int) - truth["image"])
            depths = np.abs(found["depth"].astype(float) - truth["depth"])
            assert (gap.mean() if image else gap.max()) <= image
            assert (depths.mean() if image else depths.max()) <= depth
