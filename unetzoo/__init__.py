"""unetzoo: the U-Net family of PyTorch.

Names are resolved when they are first used (PEP 562): `import unetzoo` imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import errors
from ._version import __version__
from .registry import DATASETS, ENCODERS, LOSSES, METRICS, MODELS, RECIPES, WEIGHTS, build, list_models

if TYPE_CHECKING:
    from . import datasets, doctor, drawing, inference, losses, metrics, models, planning, testing, training, twins
    from .bundle import Preprocess
    from .drawing import draw, summary
    from .inference import Predictor, export, optimize, predict
    from .labels import LabelSpec
    from .loading import load
    from .models.card import info
    from .models.foreign import from_foreign
    from .models.weights import from_pretrained
    from .planning import plan
    from .training import Trainer, evaluate, train

_LAZY = {
    "LabelSpec": "labels",
    "Predictor": "inference",
    "Preprocess": "bundle",
    "Trainer": "training",
    "evaluate": "training",
    "load": "loading",
    "train": "training",
    "draw": "drawing",
    "summary": "drawing",
    "export": "inference",
    "optimize": "inference",
    "predict": "inference",
    "plan": "planning",
    "info": "models.card",
    "from_foreign": "models.foreign",
    "from_pretrained": "models.weights",
}
_ROOMS = (
    "datasets", "doctor", "drawing", "inference", "losses", "metrics", "models", "planning", "testing", "training",
    "twins",
)  # fmt: skip

__all__ = [
    "DATASETS",
    "ENCODERS",
    "LOSSES",
    "METRICS",
    "MODELS",
    "RECIPES",
    "WEIGHTS",
    "LabelSpec",
    "Predictor",
    "Preprocess",
    "Trainer",
    "__version__",
    "build",
    "datasets",
    "doctor",
    "draw",
    "drawing",
    "errors",
    "evaluate",
    "export",
    "from_foreign",
    "from_pretrained",
    "inference",
    "info",
    "list_models",
    "load",
    "losses",
    "metrics",
    "models",
    "optimize",
    "plan",
    "planning",
    "predict",
    "summary",
    "testing",
    "train",
    "training",
    "twins",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    if name in _LAZY:
        value = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'unetzoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
