"""Import and listing time in a fresh interpreter, compared with an empty one and the libraries underneath."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial

from .harness import Race

GROUP = "unetzoo.models"


def races() -> Iterator[Race]:
    programs = {
        "import unetzoo": "import unetzoo, sys; assert 'torch' not in sys.modules",
        "an empty program": "pass",
        "import torch": "import torch",
        "import segmentation_models_pytorch": "import segmentation_models_pytorch",
    }
    yield Race("import, a fresh interpreter", {k: partial(run, v) for k, v in programs.items()}, check=lambda _: None)
    names = f"sorted(e.name for e in entry_points(group='{GROUP}'))"
    bare = f"from importlib.metadata import entry_points; print(*{names})"
    listings = {
        "unetzoo.list_models()": "import unetzoo; print(*sorted(unetzoo.list_models()))",
        "entry_points()": bare,
    }
    yield Race("listing, a fresh interpreter", {k: partial(run, v) for k, v in listings.items()}, check=same)


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout


def same(outputs: dict[str, str]) -> None:
    assert len(set(outputs.values())) == 1, outputs
