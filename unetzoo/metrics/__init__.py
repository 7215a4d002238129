"""Metrics: `update(output, target)`, `compute() -> dict[str, float]`, `reset()`, and a state that adds up.

Counts and sums are kept, never scores: the state of two processes, added, is the state of one that saw everything.
`unetzoo.metrics.functional` has scores as plain functions, `unetzoo.metrics.report` tables and figures.
"""

from __future__ import annotations

from . import functional
from .confusion import SegmentationMetric
from .depth import DepthMetric
from .image import PSNRMetric, SSIMMetric
from .instances import InstancesMetric
from .rand import RandMetric
from .surface import SurfaceMetric
from .sweep import SweepMetric
from .thin import ClDiceMetric

__all__ = [
    "ClDiceMetric",
    "DepthMetric",
    "InstancesMetric",
    "PSNRMetric",
    "RandMetric",
    "SSIMMetric",
    "SegmentationMetric",
    "SurfaceMetric",
    "SweepMetric",
    "functional",
]
