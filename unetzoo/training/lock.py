"""Lock a run folder for a single writer."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import ConfigError, RunLockedError


class RunLock:
    """Locks a run folder inside its `with` block. The system releases the lock if the process dies.

    The same process may acquire it more than once.

    Args:
        folder: The run folder, created if missing; None locks nothing.

    Raises:
        ConfigError: The folder cannot be created.
        RunLockedError: On entering, if another process holds the lock.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.lock = folder, None
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                "cannot make the run folder",
                subject=folder,
                found=str(error),
                hint="give a folder that can be written to",
            ) from error
        self.lock = FileLock(folder.resolve() / ".lock", is_singleton=True)

    def __enter__(self) -> None:
        if self.lock is None:
            return
        try:
            self.lock.acquire(timeout=0)
        except Timeout as error:
            raise RunLockedError(
                "another process writes to this run", subject=self.folder, hint="wait for it, or give another --out"
            ) from error
        except OSError as error:
            raise ConfigError("cannot lock the run folder", subject=self.folder, found=str(error)) from error

    def __exit__(self, *_: object) -> None:
        if self.lock is not None:
            self.lock.release()
