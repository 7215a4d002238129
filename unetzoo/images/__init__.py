"""Images as arrays and tensors: decoding files, normalization, and what a network's validation does to an image.

The ground below `unetzoo.datasets` and `unetzoo.inference`: both read an image here, so both see the same pixels.
Names are resolved when they are first used (PEP 562): decoding a file imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arrays import as_tensor
    from .decode import read_rgba
    from .normalize import Normalize, normalize
    from .pixels import Pixels
    from .preprocess import Preprocess
    from .reading import Stored, channel_files, decode_image, read_image, read_stored

_LAZY = {
    "Normalize": "normalize",
    "Pixels": "pixels",
    "Preprocess": "preprocess",
    "Stored": "reading",
    "as_tensor": "arrays",
    "channel_files": "reading",
    "normalize": "normalize",
    "decode_image": "reading",
    "read_image": "reading",
    "read_stored": "reading",
    "read_rgba": "decode",
}

__all__ = [
    "Normalize", "Pixels", "Preprocess", "Stored", "as_tensor", "channel_files", "decode_image", "normalize",
    "read_image", "read_rgba", "read_stored",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
