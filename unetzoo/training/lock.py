"""One writer for a run folder."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import ConfigError, RunLockedError


class RunLock:
    """Holds a run folder inside its `with` block; freed by the system when the process dies, however it dies.

    The same process may hold it more than once.

    Args:
        folder: The run folder, made when it is not there; None holds nothing.

    Raises:
        ConfigError: The folder cannot be made.
        RunLockedError: On entering, when another process holds it.
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
