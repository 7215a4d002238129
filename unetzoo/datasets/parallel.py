"""Ordered parallel map over worker processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, TypeVar

from ..errors import ConfigError, DataError

Piece = TypeVar("Piece")
Result = TypeVar("Result")
MOST = 256  # worker processes that are allowed on any machine
_work: Callable[[Any], Any]  # set in each worker

HINT = 'try fewer workers; in a script, call this below `if __name__ == "__main__":`'


def pieces(indices: Sequence[int], size: int) -> list[Sequence[int]]:
    """Divide indices into groups.

    Examples:
        >>> pieces(range(5), 2)
        [range(0, 2), range(2, 4), range(4, 5)]
    """
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def spread(work: Callable[[Piece], Result], todo: Sequence[Piece], workers: int | None = 0) -> Iterator[Result]:
    """Apply `work` to each piece and yield the results in order.

    Workers are spawned, so `work` must be picklable and a calling script needs `if __name__ == "__main__":`. They exit
    with the parent process, even if it is killed.

    Args:
        work: Function that takes a piece.
        todo: The pieces.
        workers: Number of processes. 0 runs in this process, None starts one per CPU.

    Raises:
        ConfigError: Invalid number of processes.
        DataError: A process died, or `work` is not picklable. Errors of `work` are raised unchanged.
    """
    workers = min(processes(workers), len(todo))
    if workers < 2:
        yield from map(work, todo)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_init_worker, initargs=(work,))
    try:
        yield from pool.map(_run_piece, todo)
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process died",
            found=str(error),
            hint=HINT,
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def processes(workers: int | None) -> int:
    """Resolve a number of worker processes: None means one per CPU; always 0 in a daemonic process.

    Raises:
        ConfigError: Not an integer ≥ 0, or far more processes than this machine can use.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = max(MOST, 8 * cpus)
    if workers is not None and (not isinstance(workers, int) or not 0 <= workers <= most):
        raise ConfigError("wrong workers", expected=f"an integer in 0…{most}", found=repr(workers),
                          hint=f"0 starts none; this machine has {cpus} CPUs")  # fmt: skip
    if multiprocessing.current_process().daemon:
        return 0  # workers of a DataLoader cannot start processes
    return cpus if workers is None else workers


def _init_worker(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent stops its workers
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        with contextlib.suppress(OSError):
            wait([parent.sentinel])
        os._exit(1)


def _run_piece(piece: Any) -> Any:
    return _work(piece)
