"""The cache folder, and atomic builds of its files and folders, once across concurrent processes.

A file or folder is built under a temporary name while holding a lock, then synced and renamed. The next builder removes
what a killed process left behind.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import CacheError
from ..io import DISK, disk_errors


def cache_root() -> Path:
    """Return the folder of all caches: `$UNETZOO_CACHE`, or `unetzoo` in the user's cache folder.

    Source:
        XDG Base Directory Specification 0.8: `$XDG_CACHE_HOME`, an absolute path, or `~/.cache`.

    Raises:
        CacheError: The user has no home folder.
    """
    if chosen := os.environ.get("UNETZOO_CACHE"):
        return Path(os.path.abspath(os.path.expanduser(chosen)))
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "unetzoo"
    except RuntimeError as error:
        raise CacheError("no cache folder", found=str(error), hint="set UNETZOO_CACHE to a folder") from error


@contextlib.contextmanager
def building(
    target: Path,
    *,
    usable: Callable[[Path], bool] = Path.exists,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Path | None]:
    """Build the file or folder `target` once: one process builds it, the others wait and use it.

    Yields the path to build at, or None if `target` is usable. When the block ends, the result is synced to disk and
    replaces `target`; if the block raises, the result is removed. Errors raised in the block are not converted, so it
    should write under `our_errors`.

    Args:
        target: The file or folder.
        usable: Whether an existing `target` is valid.
        say: Called with a message while waiting for another process.

    Raises:
        CacheError: The folder cannot be written, or the disk is full.

    Examples:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "squares"
        >>> for attempt in range(2):
        ...     with building(target) as place:
        ...         print("nothing to do" if place is None else place.write_text("0 1 4 9"))
        7
        nothing to do
    """
    if usable(target):
        yield None
        return
    with our_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(f".{target.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"waiting for another process that is building {target}")
            lock.acquire()
    try:
        if usable(target):
            yield None
            return
        _remove_drafts(target)
        place = draft_of(target)
        try:
            yield place
            with our_errors(target):
                _publish(place, target)
        finally:
            _remove_drafts(target)
    finally:
        lock.release()


def our_errors(subject: object) -> contextlib.AbstractContextManager[None]:
    """Convert OS errors about cache files to `CacheError`."""
    return disk_errors(
        subject, CacheError, what="cannot write the cache",
        full="free some space, or set UNETZOO_CACHE to a folder on a larger disk",
        other="set UNETZOO_CACHE to a folder that you can write to",
    )  # fmt: skip


def _publish(place: Path, target: Path) -> None:
    if place.is_dir():
        os.sync()  # one call for all files
        if target.exists():
            os.replace(target, draft_of(target))  # a folder cannot replace another one
    else:
        DISK.sync(place)
    os.replace(place, target)
    DISK.sync(target.parent)


def draft_of(target: Path) -> Path:
    """Return an unused temporary path; `building` removes it if the process is killed."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")


def _remove_drafts(target: Path) -> None:
    """Remove drafts of killed processes; the caller holds the lock."""
    for draft in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
        if draft.is_dir() and not draft.is_symlink():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                draft.unlink()
