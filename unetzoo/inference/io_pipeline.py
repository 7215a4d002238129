"""Process items in three overlapping steps: read ahead in threads, work in order, write in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ..errors import ConfigError, UnetzooError

Item = TypeVar("Item")
Raw = TypeVar("Raw")
Done = TypeVar("Done")


def io_pipeline(
    items: Sequence[Item],
    read: Callable[[Item], Raw],
    work: Callable[[Raw], Done],
    write: Callable[[Item, Done], None],
    *,
    workers: int = 2,
) -> Generator[Exception | None, None, None]:
    """Read items in threads, process one at a time in this thread, write in other threads.

    Args:
        items: The items.
        read: Item → input of `work`.
        work: Input → result; called in the order of the items.
        write: Called with item and result.
        workers: Number of reading threads, and of writing threads. At most twice as many items wait before `work`, and
            after it.

    Yields:
        For each item, in order, None, or the `UnetzooError` or `OSError` that one of the steps raised. Other errors
        are raised. If the caller closes the generator, nothing more is read, and writes in progress are finished.

    Raises:
        ConfigError: Fewer than one worker.

    Examples:
        >>> written = []
        >>> list(io_pipeline([2, 0, 4], lambda n: n, lambda n: 8 // n, lambda n, m: written.append(m), workers=1))
        Traceback (most recent call last):
        ...
        ZeroDivisionError: integer division or modulo by zero
    """
    if workers < 1:
        raise ConfigError("wrong workers", expected="a number ≥ 1", found=workers)
    ahead = 2 * workers
    readers, writers = (ThreadPoolExecutor(workers, thread_name_prefix=name) for name in ("read", "write"))
    reading: deque[Future[Raw]] = deque(readers.submit(read, item) for item in items[:ahead])
    writing: deque[Future[None]] = deque()
    try:
        for index, item in enumerate(items):
            writing.append(_worked(reading.popleft(), item, work, write, writers))
            if index + ahead < len(items):
                reading.append(readers.submit(read, items[index + ahead]))
            if len(writing) > ahead:
                yield _outcome(writing.popleft())
        while writing:
            yield _outcome(writing.popleft())
    finally:
        for pool in (readers, writers):
            pool.shutdown(wait=True, cancel_futures=True)


def _worked(
    reading: Future[Raw],
    item: Item,
    work: Callable[[Raw], Done],
    write: Callable[[Item, Done], None],
    writers: ThreadPoolExecutor,
) -> Future[None]:
    try:
        return writers.submit(write, item, work(reading.result()))
    except (UnetzooError, OSError) as error:
        failed: Future[None] = Future()
        failed.set_exception(error)
        return failed


def _outcome(future: Future[None]) -> Exception | None:
    try:
        return future.result()
    except (UnetzooError, OSError) as error:
        return error
