"""Formats numbers, values and foreign text for display. Standard library only."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def pluralize(number: int, one: str) -> str:
    """A number with its noun, in the plural unless it is 1.

    Examples:
        >>> pluralize(1, "window"), pluralize(0, "loss"), pluralize(1234, "window")
        ('1 window', '0 losses', '1,234 windows')
    """
    ending = "es" if one.endswith("s") else "s"
    return f"{number:,} {one}" + ending * (number != 1)


def format_score(value: float | None) -> str:
    """A score with four digits; a dash where it is not defined.

    Examples:
        >>> [format_score(v) for v in (0.61234, float("nan"), None, 12345.6, 2e-5, 7.0)]
        ['0.6123', '–', '–', '12,346', '2e-05', '7']
    """
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value) or abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.4f}" if abs(value) >= 1e-3 else f"{value:.3g}"


def printable(text: str) -> str:
    r"""Make foreign text safe for a terminal, SVG or HTML.

    Control characters other than newline and tab, lone surrogates and bidirectional overrides are replaced by U+FFFD.

    Examples:
        >>> printable("cell\x1b[2J\u202e.png")
        'cell�[2J�.png'
    """
    return UNPRINTABLE.sub("\ufffd", text)


def describe(error: BaseException) -> str:
    """Type and message of a foreign error, whose message may itself raise.

    Examples:
        >>> describe(ValueError("no such layer"))
        'ValueError: no such layer'
    """
    try:
        message = str(error)
    except Exception:  # foreign code may raise anything
        message = "its message cannot be read"
    return f"{type(error).__name__}: {message}"


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
