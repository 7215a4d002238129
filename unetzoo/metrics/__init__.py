"""Metrics: `update(output, target)`, `compute() -> dict[str, float]`, `reset()`, and a state that adds up.

Counts and sums are kept, never scores: the state of two processes, added, is the state of one that saw everything.
"""

from __future__ import annotations

from .confusion import SegmentationMetric
from .depth import DepthMetric

__all__ = ["DepthMetric", "SegmentationMetric"]
