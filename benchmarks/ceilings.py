"""A device's ceilings: the rates of a large matrix product and a large copy, measured in the run that cites them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch


@dataclass(frozen=True)
class Ceilings:
    """Upper bounds of a device's rates.

    Args:
        tflops: 10¹² operations a second of a product of matrices.
        gigabytes: 10⁹ bytes a second, read or written.
    """

    tflops: float
    gigabytes: float

    @property
    def flops(self) -> float:
        return 1e12 * self.tflops

    @property
    def bytes(self) -> float:
        return 1e9 * self.gigabytes

    def __str__(self) -> str:
        return f"{self.tflops:.3g} TFLOP/s, {self.gigabytes:.4g} GB/s"


@cache
def measured(dtype: torch.dtype = torch.float32, repeats: int = 10) -> Ceilings:
    """Measure the GPU if there is one, else the CPU with the current number of threads."""
    cuda = torch.cuda.is_available()
    device, side, length = ("cuda", 8192, 2**29) if cuda else ("cpu", 1536, 2**25)
    left, right = torch.randn(2, side, side, device=device).to(dtype)
    source = torch.zeros(length, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    product = fastest(lambda: torch.mm(left, right), repeats)
    copy = fastest(lambda: target.copy_(source), repeats)
    return Ceilings(2 * side**3 / product / 1e12, 2 * length / copy / 1e9)


def fastest(call: Callable[[], object], repeats: int) -> float:
    """Time of the fastest repetition in seconds, after two warm-up runs."""
    times = []
    for _ in range(repeats + 2):
        if torch.cuda.is_available():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()  # pyright: ignore[reportCallIssue]
            call()
            end.record()  # pyright: ignore[reportCallIssue]
            end.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        else:
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
    return min(times[2:])
