"""Archives as dataset roots: unpacked once into the cache folder and found there by their content."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from pathlib import Path
from typing import IO, Any

from ..errors import DataError
from ..io import write_json
from ..terminal import progress_console
from .files import PathLike
from .store import building, cache_root, our_errors
from .unpack import MAX_BYTES, MAX_ENTRIES, MAX_RATIO, Limits, archive_suffix, unpack

_SETTLED = 2 * 10**9  # ns, the coarsest file system clock: a younger file may still change without a new time
_NOISE = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")  # files that operating systems add
_CHECKED: set[Path] = set()  # unpacked folders whose contents this process has compared


def data_root(
    root: PathLike,
    *,
    max_entries: int = MAX_ENTRIES,
    max_bytes: int = MAX_BYTES,
    max_ratio: float = MAX_RATIO,
    progress: bool = True,
) -> Path:
    """The folder of a dataset: `root` itself, or the folder that the archive `root` unpacks to.

    A `.zip` or `.tar` (also `.tar.gz`, `.tar.xz`, `.tar.bz2` and their short forms) is unpacked into the cache folder
    (`$UNETZOO_CACHE`, or `unetzoo` in the user's cache folder) on first use and is found by its SHA-256 afterwards.
    An unpacked file that has been changed since is noticed by its size or time, once per process, and the archive is
    unpacked again. If everything is in one top folder, that folder is returned.

    Archives are not trusted: paths that leave the folder, links, devices, duplicate names and excessive content are
    refused, and nothing is left behind.

    Args:
        root: A folder or an archive. A path that does not exist is returned unchanged; the dataset reports it.
        max_entries: Maximum number of files and folders.
        max_bytes: Maximum total size.
        max_ratio: Maximum ratio of unpacked to packed size, beyond the first 64 MB.
        progress: Show progress on the terminal.

    Raises:
        UnsafeArchiveError: Unsafe or excessive content.
        DataError: A broken, truncated or encrypted archive, or one that changes while it is read.
        CacheError: The cache folder cannot be written, or the disk is full.

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
    folder = cache_root() / "archives"
    key = _remembered(path, folder)
    target = folder / _folder_name(path, key) if key else None
    if target is None or not _is_whole(target):
        target = _unpacked(path, folder, Limits(max_entries, max_bytes, max_ratio), quiet=not progress)
    with our_errors(target):
        inside = [entry for entry in target.iterdir() if entry.name not in _NOISE]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else target


def _unpacked(path: Path, folder: Path, limits: Limits, *, quiet: bool) -> Path:
    """Unpack an archive; it is read through a single handle, so that it cannot be exchanged in between."""
    console = progress_console(quiet=quiet)
    try:
        file = open(path, "rb")
    except OSError as error:
        raise DataError("cannot read the archive", subject=path, found=error.strerror,
                        hint="change its permissions") from error  # fmt: skip
    with file:
        before = _stat(os.fstat(file.fileno()))
        key = _digest(file, path)
        target = folder / _folder_name(path, key)
        with building(target, usable=_is_whole, say=lambda text: console.print(text, soft_wrap=True)) as place:
            if place is not None:
                with console.status(f"unpacking {path.name}"):
                    unpack(file, path, place, limits)
                if _stat(os.fstat(file.fileno())) != before:
                    raise DataError("the archive changed while it was read", subject=path,
                                    hint="wait until it is complete")  # fmt: skip
                _write_note(_contents_note(target), {"contents": _contents(place)})
    if time.time_ns() - before["mtime"] > _SETTLED:
        _write_note(_archive_note(path, folder), {**before, "sha256": key})
    return target


def _digest(file: IO[bytes], path: Path) -> str:
    try:
        return hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore[reportArgumentType] -- it is a file
    except OSError as error:
        raise DataError("cannot read the archive", subject=path, found=str(error), hint="download it again") from error


def _folder_name(path: Path, key: str) -> str:
    """A readable name that is unique for the content."""
    suffix = archive_suffix(path) or ""
    plain = re.sub(r"[^\w.-]+", "_", path.name[: len(path.name) - len(suffix)], flags=re.ASCII)[:60].strip(".")
    return f"{plain or 'archive'}-{key[:32]}"


def _stat(found: os.stat_result) -> dict[str, Any]:
    return {"size": found.st_size, "mtime": found.st_mtime_ns, "inode": found.st_ino, "device": found.st_dev}


def _archive_note(path: Path, folder: Path) -> Path:
    """The file with the key of the archive at this path."""
    return folder / "known" / (hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:32] + ".json")


def _contents_note(target: Path) -> Path:
    """The file with the digest of an unpacked folder."""
    return target.parent / "known" / f"{target.name}.json"


def _write_note(note: Path, content: dict[str, Any]) -> None:
    with our_errors(note):
        note.parent.mkdir(exist_ok=True)
        write_json(note, content)


def _remembered(path: Path, folder: Path) -> str | None:
    """The key of an archive whose size, time and inode are unchanged since it was last read."""
    try:
        known = json.loads(_archive_note(path, folder).read_text())
        key = known.pop("sha256")
        return key if known == _stat(os.stat(path)) and re.fullmatch("[0-9a-f]{64}", key) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # no note, or an unreadable one: the archive is read again


def _contents(folder: Path) -> str:
    """Digest of the names, sizes and times of all files in a folder."""
    state = hashlib.sha256()
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            found = os.stat(os.path.join(place, name))
            line = f"{os.path.relpath(place, folder)}/{name}\0{found.st_size}\0{found.st_mtime_ns}\n"
            state.update(line.encode("utf-8", "surrogateescape"))
    return state.hexdigest()


def _is_whole(target: Path) -> bool:
    """Whether an unpacked folder exists with its original contents; they are compared once per process."""
    if target in _CHECKED:
        return target.is_dir()
    try:
        whole = target.is_dir() and json.loads(_contents_note(target).read_text())["contents"] == _contents(target)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if whole:
        _CHECKED.add(target)
    return whole
