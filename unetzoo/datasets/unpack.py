"""Unpacking archives that are not trusted.

Names are checked before anything is written, and sizes are measured while unpacking, never taken from headers. An
archive with links, devices or pipes is refused as a whole; archives inside it stay packed.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import re
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar, cast

from ..errors import DataError, UnetzooError, UnsafeArchiveError
from .store import our_errors

MAX_ENTRIES = 2_000_000
MAX_BYTES = 500 * 10**9
MAX_RATIO = 200  # unpacked over packed bytes; deflate reaches 1,032
SPARED = 64 * 10**6  # bytes that may be unpacked at any ratio: a few empty masks compress well
_TAR: dict[str, Callable[..., Any]] = {
    ".tar": lambda file: contextlib.nullcontext(file), ".tar.gz": gzip.open, ".tgz": gzip.open, ".tar.xz": lzma.open,
    ".txz": lzma.open, ".tar.bz2": bz2.open, ".tbz2": bz2.open, ".tbz": bz2.open,
}  # fmt: skip
_CHUNK = 1 << 20
_LARGEST_HEADER = 8 * _CHUNK  # of one entry of a tar file
T = TypeVar("T")
_BY_HAND = "download it again; if you trust it, unpack it yourself and use the folder"


class Limits(NamedTuple):
    """Limits on the number of files and folders, their total bytes, and unpacked over packed bytes."""

    entries: int = MAX_ENTRIES
    size: int = MAX_BYTES
    ratio: float = MAX_RATIO


class ArchivedFile(NamedTuple):
    """A file or folder in an archive; a folder has no content."""

    name: str
    content: Callable[[], IO[bytes]] | None
    size: int


def archive_suffix(path: Path) -> str | None:
    """The suffix by which a path is an archive, or None.

    Examples:
        >>> archive_suffix(Path("Data.TAR.gz")), archive_suffix(Path("data.png"))
        ('.tar.gz', None)
    """
    return max((end for end in (".zip", *_TAR) if path.name.lower().endswith(end)), key=len, default=None)


def unpack(file: IO[bytes], archive: Path, target: Path, limits: Limits) -> None:
    """Unpack an archive into a new folder.

    Args:
        file: The archive, open for reading.
        archive: Its path, for its kind and for errors.
        target: The folder to create.
        limits: Limits on the content.

    Raises:
        UnsafeArchiveError: Entries outside the target, other than plain files and folders, or beyond the limits.
        DataError: A broken, truncated or encrypted archive.
        CacheError: The target cannot be written.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    suffix = archive_suffix(archive) or ".tar"
    entries = _zip_entries(file, archive) if suffix == ".zip" else _tar_entries(file, archive, suffix)
    tree = _Tree(archive, limits, size)
    with our_errors(target):
        target.mkdir()
    while (entry := _read(archive, lambda: next(entries, None))) is not None:
        for folder in tree.claim(entry):
            with our_errors(target):
                (target / folder).mkdir()
        if entry.content is not None:
            path = target / entry.name
            with our_errors(path), open(path, "xb") as out:
                tree.copy(entry, out)
    if not tree.entries:
        raise DataError("empty archive", subject=archive, expected="files", found="none", hint="download it again")


class _Tree:
    """The entries unpacked so far, checked against the limits."""

    def __init__(self, archive: Path, limits: Limits, size: int) -> None:
        self.archive, self.limits = archive, limits
        self.entries = self.bytes = 0
        self._most = min(limits.size, max(SPARED, int(limits.ratio * size)))
        self._seen: dict[str, str | None] = {}  # folded path → the path of a folder; None for a file

    def claim(self, entry: ArchivedFile) -> list[str]:
        """The new folders that an entry needs; names that are taken or leave the target are refused."""
        parts = [part for part in entry.name.split("/") if part not in ("", ".")]
        sizes = [len(part.encode("utf-8", "surrogateescape")) for part in parts]
        if (
            re.match(r"/|[A-Za-z]:", entry.name) or re.search(r"[\\\0]", entry.name) or ".." in parts
            or (os.name == "nt" and ":" in entry.name) or (not parts and entry.content is not None)
            or len(entry.name) > 1000 or sum(sizes) > 1000 or max(sizes, default=0) > 255
        ):  # fmt: skip
            raise UnsafeArchiveError(
                "unsafe name in an archive", subject=self.archive, found=_shortened(entry.name), hint=_BY_HAND,
                expected="relative names of at most 255 bytes, and 1,000 bytes with their folders",
            )  # fmt: skip
        paths = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
        folders = paths if entry.content is None else paths[:-1]
        new = [path for path in folders if self._is_new(path, is_file=False)]
        if entry.content is not None:
            self._is_new(paths[-1], is_file=True)
        return new

    def copy(self, entry: ArchivedFile, out: IO[bytes]) -> None:
        """Copy the content of an entry."""
        assert entry.content is not None  # folders are not copied
        before = self.bytes
        source = _read(self.archive, entry.content)
        while data := _read(self.archive, lambda: source.read(_CHUNK)):
            self.bytes += len(data)
            if self.bytes > self._most:
                raise self._too_much()
            out.write(data)
        _read(self.archive, source.close)
        if self.bytes - before != entry.size:
            raise DataError("broken archive", subject=self.archive, expected=f"{entry.size:,} bytes in {entry.name!r}",
                            found=f"{self.bytes - before:,}", hint="download it again")  # fmt: skip

    def _is_new(self, path: str, *, is_file: bool) -> bool:
        """Whether a path is new; a folder may occur again, a file or a name that differs only in case may not."""
        folded = unicodedata.normalize("NFC", path).casefold()
        if folded in self._seen:
            if is_file or self._seen[folded] != path:
                raise UnsafeArchiveError("two entries of the same name in an archive", subject=self.archive,
                                         found=_shortened(self._seen[folded] or path), hint=_BY_HAND)  # fmt: skip
            return False
        self._seen[folded] = None if is_file else path
        self.entries += 1
        if self.entries > self.limits.entries:
            raise self._too_much()
        return True

    def _too_much(self) -> UnsafeArchiveError:
        limits = self.limits
        expected = f"at most {limits.entries:,} entries, {limits.size:,} bytes and {limits.ratio:g} times its own size"
        return UnsafeArchiveError(
            "excessive content in an archive", subject=self.archive, expected=expected,
            found=f"{self.entries:,} entries and {self.bytes:,} bytes so far",
            hint="if you trust it, use root=unetzoo.datasets.data_root(ARCHIVE, max_entries=…, max_bytes=…, "
            "max_ratio=…), or unpack it yourself",
        )  # fmt: skip


def _shortened(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:60] + "…")


def _read(archive: Path, step: Callable[[], T]) -> T:
    """Run a step of reading; decoders may raise anything, which becomes a `DataError`."""
    try:
        return step()
    except UnetzooError:
        raise
    except Exception as error:
        raise DataError("broken archive", subject=archive, found=f"{type(error).__name__}: {error}",
                        hint="download it again") from error  # fmt: skip


def _other_kind(archive: Path, name: str) -> UnsafeArchiveError:
    return UnsafeArchiveError("an archive with entries other than files and folders", subject=archive, hint=_BY_HAND,
                              found=f"a link, a device or a pipe: {_shortened(name)}")  # fmt: skip


def _zip_entries(file: IO[bytes], archive: Path) -> Iterator[ArchivedFile]:
    with zipfile.ZipFile(file) as packed:
        for info in packed.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            name = info.orig_filename  # `filename` is cut at a NUL and depends on the platform
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _other_kind(archive, name)
            if info.flag_bits & 1:
                raise DataError("encrypted archive", subject=archive, found=_shortened(name),
                                hint="unpack it yourself and use the folder")  # fmt: skip
            is_folder = name.endswith("/") or kind == stat.S_IFDIR
            yield ArchivedFile(name, None if is_folder else lambda info=info: packed.open(info), info.file_size)


def _tar_entries(file: IO[bytes], archive: Path, suffix: str) -> Iterator[ArchivedFile]:
    with _TAR[suffix](file) as source:
        stream = _Metered(source, archive)
        packed = tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|", tarinfo=_StrictInfo)
        while info := packed.next():
            packed.members = []  # type: ignore[attr-defined] -- it would keep them all
            if not (info.isdir() or info.isreg()):
                raise _other_kind(archive, info.name)
            if info.isreg():
                stream.left = None  # content is counted elsewhere
                yield ArchivedFile(info.name, lambda info=info: cast(IO[bytes], packed.extractfile(info)), info.size)
            else:
                yield ArchivedFile(info.name, None, 0)
            stream.left = _LARGEST_HEADER
        while stream.read(_CHUNK):  # the checksums of compressed streams are at the end
            pass


class _StrictInfo(tarfile.TarInfo):
    """Strict headers: `tarfile` takes a broken header, or a missing end, for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _StrictInfo:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] -- a block of zeros: the true end
            raise
        except tarfile.HeaderError as error:
            raise ValueError(str(error)) from error


class _Metered:
    """A stream that limits the size of headers, which `tarfile` keeps in memory."""

    def __init__(self, stream: IO[bytes], archive: Path) -> None:
        self._stream, self._archive = stream, archive
        self.left: int | None = _LARGEST_HEADER

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        if self.left is not None:
            self.left -= len(data)
            if self.left < 0:
                raise UnsafeArchiveError("an archive with endless headers", subject=self._archive, hint=_BY_HAND,
                                         expected=f"at most {_LARGEST_HEADER:,} bytes per entry")  # fmt: skip
        return data
