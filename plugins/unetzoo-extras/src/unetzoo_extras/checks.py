"""What is checked, under small settings: by the tests, and by `unetzoo plugin check`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unetzoo.testing import Case
from unetzoo.twins import write

WIDTHS = {"model.encoder_channels": [4, 8, 8], "train.batch_size": 2}
SMALL = {**WIDTHS, "transform.train.crop": 32, "data.repeat": 1}
SMP = {"model.encoder_name": "resnet18", "train.batch_size": 2, "transform.size": [32, 32]}


def _twin(layout: str, key: str, settings: dict[str, Any]) -> Callable[[Path], dict[str, Any]]:
    """Options that write a layout in miniature into the case's folder."""
    return lambda folder: {key: str(write(layout, folder / "data")), **settings}


def _second_observer(folder: Path) -> dict[str, Any]:
    """DRIVE's test set, as if both observers had seen the same."""
    root = write("drive", folder / "data")
    (root / "test" / "2nd_manual").mkdir()
    for path in (root / "test" / "1st_manual").iterdir():
        shutil.copy(path, root / "test" / "2nd_manual" / path.name.replace("manual1", "manual2"))
    return {"root": str(root), "split": "test", "observer": 2}


CASES = [
    Case("dataset", "oxford-pet", _twin("oxford-pet", "root", {}), name="oxford-pet"),
    Case("dataset", "oxford-pet", _twin("oxford-pet", "root", {"split": "test", "border": "class"}),
         name="oxford-pet(border=class)"),
    Case("dataset", "drive", _twin("drive", "root", {}), name="drive"),
    Case("dataset", "drive", _second_observer,
         name="drive(observer=2)"),
    Case("dataset", "isic2018", _twin("isic2018", "root", {}), name="isic2018"),
    Case("recipe", "oxford-pet", _twin("oxford-pet", "data.root", SMP), name="oxford-pet"),
    Case("recipe", "drive", _twin("drive", "data.root", {**WIDTHS, "transform.train.crop": 32}),
         name="drive"),
    *(Case("recipe", name, _twin("drive", "data.root", SMALL), name=name) for name in ("unet-drive", "r2unet-drive")),
    Case("recipe", "isic2018", _twin("isic2018", "data.root", {**WIDTHS, "transform.size": [32, 32]}),
         name="isic2018"),
]  # fmt: skip
