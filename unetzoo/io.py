"""Write files durably: under a temporary name, flushed to disk, then renamed into place.

Readers see either the old content or the new, never part of it. Uses only the standard library.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import CheckpointCorruptError, DataError, UnetzooError

MANIFEST = "manifest.json"
LFS_POINTER = b"version https://git-lfs"
RESTORE = "restore the folder from a copy, or write it again"


class Disk:
    """The disk operations of durable writing; tests make each of them fail."""

    def write(self, path: Path, data: bytes) -> str:
        """Write a file, flush it to disk, and return its SHA-256."""
        with open(path, "wb") as file:
            file.write(data)
            file.flush()
            self.sync(path, file.fileno())
        return hashlib.sha256(data).hexdigest()

    def sync(self, path: Path, descriptor: int | None = None) -> None:
        """Flush a file or folder to disk."""
        if descriptor is not None:
            os.fsync(descriptor)
        elif path.is_file() or os.name == "posix":  # folders can be opened only on POSIX
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Rename atomically; an existing file of that name is replaced."""
        source.replace(target)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()

    def remove(self, folder: Path) -> None:
        """Remove a folder of files. It is renamed first, so that no reader finds it incomplete."""
        aside = folder
        if not folder.name.startswith(".tmp-"):
            aside = temporary_name(folder)
            self.rename(folder, aside)
        for file in sorted(aside.iterdir()):
            self.unlink(file)
        aside.rmdir()


DISK = Disk()


@contextlib.contextmanager
def disk_errors(
    subject: object,
    kind: type[UnetzooError] = DataError,
    *,
    what: str = "cannot write",
    full: str = "free some space, then try again",
    other: str = "check the path and its permissions",
) -> Iterator[None]:
    """Convert file errors of the system to errors of this library.

    Args:
        subject: The file or folder.
        kind: Type of the error to raise.
        what: Message if the disk is not full.
        full: Hint if the disk is full.
        other: Hint otherwise.

    Examples:
        >>> with disk_errors("a.png"):  # doctest: +ELLIPSIS
        ...     raise OSError(errno.ENOSPC, "No space left on device")
        Traceback (most recent call last):
        unetzoo.errors.DataError: no space left: a.png: found No space left on device. Fix: ...
    """
    try:
        yield
    except UnetzooError:
        raise
    except (OSError, NotImplementedError) as error:  # file systems without locks raise NotImplementedError
        is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        found = getattr(error, "strerror", None) or str(error)
        raise kind("no space left" if is_full else what, subject=subject, found=found,
                   hint=full if is_full else other) from error  # fmt: skip


def temporary_name(path: Path, suffix: str = "") -> Path:
    """Return an unused path in the same folder, with a short name regardless of the length of `path`."""
    return path.with_name(f".tmp-{uuid.uuid4().hex}{suffix}")


@contextlib.contextmanager
def replacing(path: Path, disk: Disk | None = None) -> Iterator[Path]:
    """Replace a file atomically: write to the temporary path that this yields.

    When the block ends, the file is flushed and renamed to `path`. If it raises, the temporary file is removed and
    `path` is untouched. The temporary path has the suffix of `path`, for writers that choose a format by suffix.

    Args:
        path: The file to write or replace.
        disk: The disk operations to use.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(Path(folder, "a.txt")) as partial:
        ...         _ = partial.write_text("whole")
        ...     Path(folder, "a.txt").read_text()
        'whole'
    """
    disk = disk or DISK
    partial = temporary_name(path, path.suffix)
    try:
        yield partial
        disk.sync(partial)
        disk.rename(partial, path)
        disk.sync(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, data: bytes, disk: Disk | None = None) -> str:
    """Write or replace a file atomically and durably, and return its SHA-256."""
    disk = disk or DISK
    partial = temporary_name(path)
    try:
        digest = disk.write(partial, data)
        disk.rename(partial, path)
        disk.sync(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return digest


def write_text(path: Path, text: str, disk: Disk | None = None) -> None:
    """Write or replace a text file atomically and durably, in UTF-8; characters it cannot encode are escaped."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"), disk)


def write_json(path: Path, content: Any, disk: Disk | None = None) -> None:
    """Write or replace a JSON file atomically and durably."""
    write_text(path, as_json(content), disk)


def as_json(content: Any) -> str:
    """Format content as the text of a JSON file."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def manifest_of(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of files in a folder."""
    found = {}
    for name in sorted(names):
        data = (folder / name).read_bytes()
        found[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return found


def seal(content: Mapping[str, Any]) -> bytes:
    """Serialize a manifest in its canonical form with its own SHA-256, so that any change can be detected."""
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return json.dumps({**content, "sha256": digest}, indent=2).encode() + b"\n"


def write_manifest(
    folder: Path, names: Iterable[str], disk: Disk | None = None, *, former: Mapping[str, Any] | None = None
) -> None:
    """Write `manifest.json` with size and SHA-256 of the named files in a folder. Must be the last file written there.

    Args:
        folder: The folder.
        names: Names of files in the folder.
        disk: The disk operations to use.
        former: Output of `manifest_of` for files that are being replaced. Until the next manifest is written, either
            version is accepted.
    """
    content: dict[str, Any] = {"files": manifest_of(folder, names)}
    write_bytes(folder / MANIFEST, seal(content if former is None else {**content, "former": former}), disk)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Read the manifest of a folder; None if it has none.

    Raises:
        CheckpointCorruptError: The manifest is unreadable or was changed.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        data = path.read_bytes()
        listed = json.loads(data)
        content = {key: value for key, value in listed.items() if key != "sha256"}
        whole = seal(content) == data
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointCorruptError(
            "unreadable manifest", subject=path, found=f"{type(error).__name__}: {error}", hint=RESTORE
        ) from error
    if not whole:
        raise CheckpointCorruptError("the manifest was changed", subject=path, expected="its own SHA-256", hint=RESTORE)
    return content


def check_manifest(folder: Path) -> bool:
    """Verify a folder against its manifest; return False if it has none.

    Raises:
        CheckpointCorruptError: A listed file is missing or was changed, or the manifest itself is unreadable.
    """
    content = read_manifest(folder)
    if content is None:
        return False
    former = content.get("former")
    for name, facts in content["files"].items():
        path, accepted = folder / Path(name).name, [facts]
        if former is not None:
            accepted.append(former.get(name))
        try:
            found = manifest_of(folder, [path.name])[path.name]
        except FileNotFoundError:
            found = None
        except OSError as error:
            raise CheckpointCorruptError("cannot read a file", subject=path, found=str(error), hint=RESTORE) from error
        if found not in accepted:
            if found is not None and _is_lfs_pointer(path):
                raise CheckpointCorruptError(
                    "not the file itself", subject=path, expected=f"{facts['size']} bytes", found="a Git LFS pointer",
                    hint=f"run `git lfs pull`, or {RESTORE}",
                )  # fmt: skip
            raise CheckpointCorruptError(
                "the file is missing" if found is None else "the file was changed",
                subject=path,
                expected=f"{facts['size']} bytes with the SHA-256 in {MANIFEST}",
                hint=RESTORE,
            )
    return True


def _is_lfs_pointer(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(LFS_POINTER)).startswith(LFS_POINTER)


def replace_folder(source: Path, target: Path, disk: Disk | None = None) -> None:
    """Replace a folder by another one with a manifest and files of the same names.

    If the process is killed at any point, `target` exists, each of its files is either the old or the new one, and its
    manifest accepts both.

    Args:
        source: The new folder, next to `target`; it is removed.
        target: The folder to replace; it need not exist.
        disk: The disk operations to use.
    """
    disk = disk or DISK
    names = sorted(file.name for file in source.iterdir())
    for name in names:
        disk.sync(source / name)
    if not target.exists():
        disk.rename(source, target)
    else:
        listed = (read_manifest(source) or {"files": {}})["files"]
        write_bytes(target / MANIFEST, seal({"files": listed, "former": _contents(target)}), disk)
        for name in sorted(names, key=lambda name: name == MANIFEST):  # the final manifest comes last
            disk.rename(source / name, target / name)
        for name in {file.name for file in target.iterdir()} - {*names}:
            disk.unlink(target / name)
        disk.sync(target)
        source.rmdir()
    disk.sync(target.parent)


def _contents(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the output of `manifest_of` for a folder, taken from its manifest if that is reliable."""
    try:
        content = read_manifest(folder)
    except CheckpointCorruptError:
        content = None
    if content is not None and "former" not in content:
        return content["files"]
    return manifest_of(folder, [file.name for file in folder.iterdir() if file.is_file() and file.name != MANIFEST])
