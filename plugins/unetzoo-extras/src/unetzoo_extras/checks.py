"""What is checked, under small settings: by the tests, and by `unetzoo plugin check`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from unetzoo.testing import Case

from . import miniatures

WIDTHS = {"model.encoder_channels": [4, 8, 8], "train.batch_size": 2}
SMP = {"model.encoder_name": "resnet18", "train.batch_size": 2, "transform.size": [32, 32]}


def _written(write: Callable[[Path], Path], key: str, settings: dict[str, Any]) -> Callable[[Path], dict[str, Any]]:
    """Options that write a layout in miniature into the case's folder."""
    return lambda folder: {key: str(write(folder / "data")), **settings}


CASES = [
    Case("dataset", "oxford-pet", _written(miniatures.oxford_pet, "root", {}), name="oxford-pet"),
    Case("dataset", "oxford-pet", _written(miniatures.oxford_pet, "root", {"split": "test", "border": "class"}),
         name="oxford-pet(border=class)"),
    Case("dataset", "drive", _written(miniatures.drive, "root", {}), name="drive"),
    Case("dataset", "drive", _written(miniatures.drive, "root", {"split": "test", "observer": 2}),
         name="drive(observer=2)"),
    Case("dataset", "isic2018", _written(miniatures.isic2018, "root", {}), name="isic2018"),
    Case("recipe", "oxford-pet", _written(miniatures.oxford_pet, "data.root", SMP), name="oxford-pet"),
    Case("recipe", "drive", _written(miniatures.drive, "data.root", {**WIDTHS, "transform.train.crop": 32}),
         name="drive"),
    Case("recipe", "isic2018", _written(miniatures.isic2018, "data.root", {**WIDTHS, "transform.size": [32, 32]}),
         name="isic2018"),
]  # fmt: skip
