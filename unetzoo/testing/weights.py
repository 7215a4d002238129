"""Checks of weights that a package ships: they open without network access, and predict an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..bundle import ModelBundle
from ..images import Pixels
from .case import Case
from .kit import check, require

KIND = "weights"
MEGABYTES = 50
CARD = "README.md"


@check(KIND, first=True)
def loads(case: Case) -> None:
    """`unetzoo.load(NAME)` opens a complete network, offline."""
    bundle = _bundle(case)
    missing = [name for name in ("labels", "preprocess") if getattr(bundle, name) is None]
    require(not missing, "labels and preprocessing saved with the network", f"no {' and no '.join(missing)}")


@check(KIND)
def predicts(case: Case) -> None:
    """A user who has nothing but these weights predicts an image."""
    from ..loading import LoadedModel

    bundle = _bundle(case)
    pixels = bundle.pixels or Pixels()
    channels = getattr(bundle.model, "in_channels", pixels.channels)
    image = np.random.default_rng(0).integers(0, 256, (96, 100, channels), np.uint8)
    found = LoadedModel(*bundle).predict((image / 255).astype(np.float32) if pixels.range else image)
    require(found.label_map.shape[-2:] == (96, 100), "a label map (96, 100)", found.label_map.shape)


@check(KIND, independent=True)
def described(case: Case) -> None:
    """Weights without data, license and scores cannot be judged."""
    card = Path(case.load()) / CARD
    text = card.read_text(encoding="utf-8").lower() if card.is_file() else ""
    missing = [word for word in ("data", "license", "score") if word not in text]
    require(not missing, f"a {CARD} with data, license and scores", f"nothing about {', '.join(missing)}")


@check(KIND, independent=True)
def small(case: Case) -> None:
    """Everyone who installs the package downloads them."""
    size = sum(file.stat().st_size for file in Path(case.load()).iterdir()) / 1e6
    require(size <= MEGABYTES, f"at most {MEGABYTES} MB; half precision suffices", f"{size:.0f} MB")


def _bundle(case: Case) -> ModelBundle:
    if "bundle" not in case.memo:
        from ..models import from_pretrained

        case.memo["bundle"] = ModelBundle.of(from_pretrained(case.load()))
    return case.memo["bundle"]
