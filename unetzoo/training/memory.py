"""Out of memory: the same samples again, in smaller parts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import MemoryExhaustedError
from ..modules import is_out_of_memory
from ..wording import pluralize

Batch = dict[str, Any]
SMALLER = "take smaller images, a smaller network or train.precision=bf16"


def exhausted(what: str, error: object, hint: str) -> MemoryExhaustedError:
    """The error for memory that no smaller part can save."""
    return MemoryExhaustedError(f"out of memory in {what}", found=str(error).partition("\n")[0], hint=hint)


def free() -> None:
    """Give cached blocks back to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def cut(batch: Batch, parts: int) -> list[Batch]:
    """A batch in so many parts of nearly equal size, fewer when it has fewer samples.

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
    """Memory that runs out inside the block, where smaller parts do not help, is an error of ours.

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


class Parts:
    """Into how many parts each batch is cut; more after memory ran out."""

    def __init__(self) -> None:
        self.count = 1

    def more(self, size: int, failure: str, *, alone: bool) -> str:
        """Cut batches of so many samples in twice as many parts from here on; says so.

        Raises:
            MemoryExhaustedError: They cannot be cut further, or other processes would not follow.
        """
        if not alone:
            hint = f"start again with train.batch_size={max(size // 2, 1)} and twice the train.accumulate"
            raise exhausted("one of several processes", failure, hint + "; the last checkpoint stands")
        if self.count >= size:
            raise exhausted("training, at one sample", failure, SMALLER)
        free()
        self.count = min(2 * self.count, size)
        part = -(-size // self.count)
        return (
            f"out of memory: batches of {size} go through the network {pluralize(part, 'sample')} at a time from here "
            f"on; the optimizer sees as many as before, batch norm {part}"
        )
