"""Data that still lie in an archive: unpacked once, kept by content, used by everyone."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import uuid
from pathlib import Path
from typing import IO, Any

from ..errors import DataError
from ..terminal import progress_console
from .files import PathLike
from .store import building, cache_root, our_errors
from .unpacking import MAX_BYTES, MAX_ENTRIES, MAX_RATIO, Limits, archive_suffix, unpack

_CHUNK = 1 << 20
_SETTLED = 2 * 10**9  # ns: a file younger than the coarsest clock of a file system may yet change unseen
_PATIENCE = 2.0  # seconds without a bar
_NOISE = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")  # what systems add of their own accord


def data_root(
    root: PathLike,
    *,
    max_entries: int = MAX_ENTRIES,
    max_bytes: int = MAX_BYTES,
    max_ratio: float = MAX_RATIO,
    progress: bool = True,
) -> Path:
    """The folder of a dataset: `root` itself, or, where it is an archive, the folder that it unpacks to.

    A `.zip` or `.tar` (also `.tar.gz`, `.tar.xz`, `.tar.bz2` and their short forms) is unpacked into the cache folder
    (`$UNETZOO_CACHE`, or `unetzoo` in the user's cache folder) when it is first used, and found there by its content
    (SHA-256) ever after. Where all that it holds lies in one folder, that folder is given.

    Archives are not trusted: names that lead out, links, devices, doubled names and too much content are refused, and
    nothing is left behind.

    Args:
        root: A folder or an archive. What does not exist is given back as it is: the dataset says what is missing.
        max_entries: Most files and folders.
        max_bytes: Most bytes in all.
        max_ratio: Most bytes unpacked for a byte of the archive, beyond the first 64 MB.
        progress: Show a bar on the terminal when it takes long.

    Raises:
        UnsafeArchiveError: What it holds may not be unpacked.
        DataError: A broken, truncated or encrypted archive, or one that changes meanwhile.
        CacheError: The cache folder cannot be written, or is full.

    Examples:
        >>> import tempfile, zipfile
        >>> os.environ["UNETZOO_CACHE"] = tempfile.mkdtemp()
        >>> path = Path(tempfile.mkdtemp()) / "data.zip"
        >>> with zipfile.ZipFile(path, "w") as archive:
        ...     archive.writestr("data/images/a.txt", "a")
        >>> [file.name for file in data_root(path).iterdir()]
        ['images']
        >>> del os.environ["UNETZOO_CACHE"]
    """
    path = Path(root)
    if archive_suffix(path) is None or not path.is_file():
        return path
    limits = Limits(max_entries, max_bytes, max_ratio)
    with _Bar(progress) as bar:
        folder = cache_root() / "archives"
        key = _remembered(path, folder)
        target = folder / _name(path, key) if key else None
        if target is None or not target.is_dir():
            target = _unpacked(path, folder, limits, bar)
    return _top(target)


def _unpacked(path: Path, folder: Path, limits: Limits, bar: _Bar) -> Path:
    """The folder that an archive unpacks to; one handle reads it, so that it cannot be exchanged meanwhile."""
    try:
        file = open(path, "rb")
    except OSError as error:
        raise DataError("cannot read the archive", subject=path, found=error.strerror,
                        hint="change its permissions") from error  # fmt: skip
    with file:
        before = _stat(os.fstat(file.fileno()))
        bar.start(f"reading {path.name}", before["size"])
        key = _digest(file, path, bar)
        target = folder / _name(path, key)
        with building(target, usable=Path.is_dir, say=bar.say) as place:
            if place is not None:
                bar.start(f"unpacking {path.name}", before["size"])
                unpack(file, path, place, limits, bar.tell)
                if _stat(os.fstat(file.fileno())) != before:
                    raise DataError("the archive changes while it is read", subject=path,
                                    hint="wait until it is complete")  # fmt: skip
    _remember(path, folder, before, key)
    return target


def _digest(file: IO[bytes], path: Path, bar: _Bar) -> str:
    sha = hashlib.sha256()
    try:
        while data := file.read(_CHUNK):
            sha.update(data)
            bar.tell(file.tell())
    except OSError as error:
        raise DataError("cannot read the archive", subject=path, found=str(error), hint="fetch it again") from error
    return sha.hexdigest()


def _name(path: Path, key: str) -> str:
    """The folder of an archive: legible, and its content's own."""
    suffix = archive_suffix(path) or ""
    plain = re.sub(r"[^\w.-]+", "_", path.name[: len(path.name) - len(suffix)], flags=re.ASCII)[:60].strip(".")
    return f"{plain or 'archive'}-{key[:32]}"


def _top(folder: Path) -> Path:
    """The one folder that an archive consists of, or all of it."""
    with our_errors(folder):
        inside = [entry for entry in folder.iterdir() if entry.name not in _NOISE]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def _stat(found: os.stat_result) -> dict[str, Any]:
    return {"size": found.st_size, "mtime": found.st_mtime_ns, "inode": found.st_ino, "device": found.st_dev}


def _note(path: Path, folder: Path) -> Path:
    """Where the key of an archive at this path is kept."""
    return folder / "known" / (hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:32] + ".json")


def _remembered(path: Path, folder: Path) -> str | None:
    """The key of an archive that is what it was when it was last read, by its size, time and place on the disk."""
    try:
        known = json.loads(_note(path, folder).read_text())
        key = known.pop("sha256")
        return key if known == _stat(os.stat(path)) and re.fullmatch("[0-9a-f]{64}", key) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # nothing noted, or nothing legible: it is read again


def _remember(path: Path, folder: Path, found: dict[str, Any], key: str) -> None:
    if time.time_ns() - found["mtime"] < _SETTLED:
        return
    note = _note(path, folder)
    with our_errors(note):
        note.parent.mkdir(exist_ok=True)
        draft = note.with_name(f"{note.name}.{uuid.uuid4().hex}.tmp")
        draft.write_text(json.dumps({**found, "sha256": key}))
        os.replace(draft, note)


class _Bar:
    """A bar on the terminal, once something takes long."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._progress: Any = None
        self._task: Any = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def start(self, what: str, total: int) -> None:
        """Begin another step."""
        self._stop()
        self._what, self._total, self._since = what, total, time.monotonic()

    def tell(self, position: int) -> None:
        """How far the step has come."""
        if self._progress is None and self._enabled and time.monotonic() - self._since > _PATIENCE:
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(),
                TimeRemainingColumn(),
            )
            console = progress_console()
            self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
            self._task = self._progress.add_task(self._what, total=self._total)
            self._progress.start()
        if self._progress is not None:
            self._progress.update(self._task, completed=position)

    def say(self, text: str) -> None:
        """A line on the terminal."""
        if self._enabled:
            progress_console().print(text, soft_wrap=True)

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
