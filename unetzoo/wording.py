"""How numbers and values are said in texts. Standard library only."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any


def pluralize(number: int, one: str) -> str:
    """A number with its noun, in the plural unless there is one.

    Examples:
        >>> pluralize(1, "window"), pluralize(0, "window"), pluralize(1234, "window")
        ('1 window', '0 windows', '1,234 windows')
    """
    return f"{number:,} {one}" + "s" * (number != 1)


def inline(value: Any) -> str:
    """A value as TOML writes it in one line.

    Examples:
        >>> inline({"name": "adam", "lr": 2e-3, "betas": [0.9, 0.99], "fused": False})
        '{name = "adam", lr = 0.002, betas = [0.9, 0.99], fused = false}'
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {inline(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(inline, value)) + "]"
    return repr(value) if isinstance(value, float) else json.dumps(value, default=str, ensure_ascii=False)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[\w-]+", key, re.ASCII) else json.dumps(key, ensure_ascii=False)
