"""Measure the memory that a network needs per pixel of a window."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..modules import LiveMemory
from .views import View
from .window_predictor import WindowPredictor
from .windows import canvas_length

TRIAL = 128  # pixels per side of the window that is measured, at least
MARGIN = 2.0  # for copies that libraries make inside kernels, which are not tracked


def bytes_per_pixel(predictor: WindowPredictor, channels: int) -> float:
    """Peak memory per pixel of a window for network, views and merging, not counting weights.

    Measured on a small window: on a GPU by its allocator; elsewhere by tracking tensors, with a margin for buffers
    inside kernels.
    """
    geometry = predictor.geometry
    side = canvas_length(geometry, TRIAL)
    side = side if geometry.maximum is None else min(side, geometry.maximum)
    shape = (1, channels, side, side)
    views = predictor.views[:2]  # more are merged into the same sums
    if predictor.on_gpu:
        peak = _peak_on_gpu(predictor, views, shape)
    else:
        peak = MARGIN * _peak_of_tensors(predictor, views, shape)
    return peak / (side * side)


def _peak_on_gpu(predictor: WindowPredictor, views: Sequence[View], shape: Sequence[int]) -> float:
    window = torch.zeros(tuple(shape), device=predictor.device, dtype=predictor.dtype)
    predictor.predict(window, views)  # kernels are chosen at the first call
    torch.cuda.synchronize(predictor.device)
    torch.cuda.reset_peak_memory_stats(predictor.device)
    before = torch.cuda.memory_allocated(predictor.device)
    predictor.predict(window, views)
    torch.cuda.synchronize(predictor.device)
    return torch.cuda.max_memory_allocated(predictor.device) - before + window.nbytes


def _peak_of_tensors(predictor: WindowPredictor, views: Sequence[View], shape: Sequence[int]) -> float:
    with LiveMemory() as live:
        window = torch.zeros(tuple(shape), device=predictor.device, dtype=predictor.dtype)
        predictor.predict(window, views)
    return live.peak
