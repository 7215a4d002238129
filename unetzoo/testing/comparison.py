"""Comparison of outputs."""

from __future__ import annotations

from typing import Any

from torch import Tensor, isclose

from .kit import Violation, require


def close(found: list[Tensor], expected: list[Tensor], what: str) -> None:
    """Require equal outputs up to rounding.

    Raises:
        Violation: They differ.
    """
    if [t.shape for t in found] != [t.shape for t in expected]:
        raise Violation(what, f"shapes {[tuple(t.shape) for t in found]}")
    for one, other in zip(found, expected, strict=True):
        worst = float((one - other).abs().max()) if one.numel() else 0.0
        limit = 1e-3 * float(other.abs().max()) + 1e-6  # other layouts and batch sizes use other kernels
        require(worst <= limit, what, f"a difference of {worst:.2g} (tolerance {limit:.2g})")


def same(one: Any, other: Any) -> bool:
    """Whether two outputs are equal; NaN equals NaN."""
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, Tensor):
        return one.shape == other.shape and bool(isclose(one, other, rtol=0, atol=0, equal_nan=True).all())
    equal = one == other
    return bool(equal.all()) if hasattr(equal, "all") else bool(equal) or (one != one and other != other)
