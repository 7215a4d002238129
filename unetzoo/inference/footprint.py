"""Measure the memory that a network needs per pixel of a window."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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
    with Following() as live:
        window = torch.zeros(tuple(shape), device=predictor.device, dtype=predictor.dtype)
        predictor.predict(window, views)
    return live.peak


class Following(TorchDispatchMode):
    """Tracks the bytes of live tensors; `peak` is the maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run an operator and count new storages."""
        given = {id(s) for s in _storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if id(storage) not in given and storage not in self._known:
                self._known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _gone(self, size: int) -> None:
        self.now -= size


def _storages(values: Any) -> Iterator[torch.UntypedStorage]:
    return (leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor))
