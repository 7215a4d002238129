"""Where derived data are kept, and how they are made once: whole or not at all, whoever else makes them.

A file or folder is built beside its place under a lock, synced, and renamed. What a killed builder left is removed by
the next one.
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
    """The folder of everything that can be made again: `$UNETZOO_CACHE`, or `unetzoo` in the user's cache folder.

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
        raise CacheError("no place for caches", found=str(error), hint="set UNETZOO_CACHE to a folder") from error


@contextlib.contextmanager
def building(
    target: Path,
    *,
    usable: Callable[[Path], bool] = Path.exists,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Path | None]:
    """Make `target`, a file or a folder, once: one process builds, the others wait and take what it made.

    Gives the path to build at, or None when there is nothing left to do. On leaving the block what stands there is
    synced to the disk and renamed to `target`, in place of what was there; if the block raises, it is removed. The
    block's own errors pass as they are: put its writing under `our_errors`.

    Args:
        target: The file or folder.
        usable: Whether an existing `target` will do.
        say: Where to tell that another process is waited for.

    Raises:
        CacheError: The place cannot be written, or is full.

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
            say(f"another process is making {target}: waiting for it")
            lock.acquire()
    try:
        if usable(target):
            yield None
            return
        _clear(target)
        place = draft_of(target)
        try:
            yield place
            with our_errors(target):
                _put(place, target)
        finally:
            _clear(target)
    finally:
        lock.release()


def our_errors(subject: object) -> contextlib.AbstractContextManager[None]:
    """Turn the system's errors about a cache's files into ours."""
    return disk_errors(
        subject, CacheError, what="cannot write the cache",
        full="free some space, or set UNETZOO_CACHE to a folder on a larger disk",
        other="set UNETZOO_CACHE to a folder that you may write",
    )  # fmt: skip


def _put(place: Path, target: Path) -> None:
    if place.is_dir():
        os.sync()  # one call for any number of files
        if target.exists():
            os.replace(target, draft_of(target))  # a folder cannot be renamed onto another
    else:
        DISK.sync(place)
    os.replace(place, target)
    DISK.sync(target.parent)


def draft_of(target: Path) -> Path:
    """An unused name that `building` removes where a process died."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")


def _clear(target: Path) -> None:
    """Remove what builders left; the lock is ours, so all but we are dead."""
    for debris in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
        if debris.is_dir() and not debris.is_symlink():
            shutil.rmtree(debris, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                debris.unlink()
