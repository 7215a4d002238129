"""Images as arrays and tensors: decoding files, normalization, and what a network's validation does to an image.

The ground below `unetzoo.datasets` and `unetzoo.inference`: both read an image here, so both see the same pixels.
Names are resolved when they are first used (PEP 562): decoding a file imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arrays import as_tensor
    from .decode import read_image, read_rgba
    from .normalize import Normalize, normalize
    from .preprocess import Preprocess

_LAZY = {
    "Normalize": "normalize",
    "Preprocess": "preprocess",
    "as_tensor": "arrays",
    "normalize": "normalize",
    "read_image": "decode",
    "read_rgba": "decode",
}

__all__ = ["Normalize", "Preprocess", "as_tensor", "normalize", "read_image", "read_rgba"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
