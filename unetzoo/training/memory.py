"""Exhausted memory: batches are processed again in smaller parts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import MemoryExhaustedError
from ..modules import is_out_of_memory
from ..wording import pluralize
from .batches import Batch

ONE_VALUE = "Expected more than 1 value per channel"  # torch, of a norm that sees one sample of 1×1
SMALLER = "take smaller images, a smaller network or train.precision=bf16"


def exhausted(what: str, error: object, hint: str) -> MemoryExhaustedError:
    """The error when even smaller parts do not fit."""
    return MemoryExhaustedError(f"out of memory in {what}", found=str(error).partition("\n")[0], hint=hint)


def free() -> None:
    """Return cached blocks to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def cut(batch: Batch, parts: int) -> list[Batch]:
    """Split a batch into parts of nearly equal size, at most one per sample.

    Examples:
        >>> [part["id"] for part in cut({"image": torch.zeros(3, 1), "id": ["a", "b", "c"]}, 2)]
        [['a', 'b'], ['c']]
    """
    samples = len(batch["image"])
    if parts == 1:
        return [batch]
    size = -(-samples // parts)
    return [_rows(batch, slice(start, start + size)) for start in range(0, samples, size)]


def _rows(value: Any, rows: slice) -> Any:
    if isinstance(value, Mapping):
        return {key: _rows(inner, rows) for key, inner in value.items()}
    return value[rows] if isinstance(value, Tensor | list | tuple) else value


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Report memory that runs out inside the block as our own error.

    Raises:
        MemoryExhaustedError: In place of torch's.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        failure = str(error)
    else:
        return
    raise exhausted(what, failure, SMALLER)


def smaller_parts(parts: int, size: int, failure: str, *, several: bool) -> tuple[int, str]:
    """Double the number of parts per batch; returns it with a message for the user.

    Args:
        parts: Parts per batch so far.
        size: Samples of a batch.
        failure: The error that occurred.
        several: Whether several processes train together.

    Raises:
        MemoryExhaustedError: Batches cannot be split further, or other processes would have to split theirs too.
    """
    if several:
        hint = f"start again with train.batch_size={max(size // 2, 1)} and twice the train.accumulate"
        raise exhausted("one of several processes", failure, hint + "; the last checkpoint is kept")
    if parts >= size:
        raise exhausted("training, at one sample", failure, SMALLER)
    free()
    parts = min(2 * parts, size)
    part = -(-size // parts)
    return parts, (
        f"out of memory: from now on, batches of {size} go through the network {pluralize(part, 'sample')} at a "
        f"time; the optimizer still sees whole batches, batch norm {pluralize(part, 'sample')}"
    )


def wide(value: Tensor) -> Tensor:
    """A value in the widest precision of its device, for sums."""
    return value.detach().to(torch.float32 if value.device.type == "mps" else torch.float64)
