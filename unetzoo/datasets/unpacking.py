"""Unpacking archives that nobody vouches for: nothing outside the target, nothing but plain files, never too much.

Names are judged before anything is written; sizes are measured while unpacking, never taken from headers. What is not
a plain file or folder (links, devices, pipes) is refused with the whole archive. Archives within the archive stay as
they are.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar, cast

from ..errors import DataError, UnetzooError, UnsafeArchiveError
from .store import our_errors

MAX_ENTRIES = 2_000_000
MAX_BYTES = 500 * 10**9
MAX_RATIO = 200  # unpacked bytes over the archive's own; deflate cannot pass 1,032
SPARED = 64 * 10**6  # unpacked bytes up to which no ratio is judged: a few empty masks compress well

TAR: dict[str, Callable[..., Any] | None] = {
    ".tar": None, ".tar.gz": gzip.open, ".tgz": gzip.open, ".tar.xz": lzma.open, ".txz": lzma.open,
    ".tar.bz2": bz2.open, ".tbz2": bz2.open, ".tbz": bz2.open,
}  # fmt: skip
SUFFIXES = (".zip", *TAR)
_CHUNK = 1 << 20
_LONGEST_NAME, _LONGEST_PATH = 255, 1000  # bytes
_LARGEST_HEADER = 8 * _CHUNK  # what the headers of one entry of a tar may take
_BY_HAND = "fetch it again; if you trust it, unpack it yourself and give the folder"
T = TypeVar("T")


class Limits(NamedTuple):
    """How much an archive may unpack to.

    Args:
        entries: Files and folders.
        size: Bytes in all.
        ratio: Unpacked bytes over the archive's own.
    """

    entries: int = MAX_ENTRIES
    size: int = MAX_BYTES
    ratio: float = MAX_RATIO


class Entry(NamedTuple):
    """A file or folder in an archive: its name, and its content or None for a folder."""

    name: str
    content: Callable[[], IO[bytes]] | None
    size: int


def archive_suffix(path: Path) -> str | None:
    """The ending that makes a path an archive's, or None.

    Examples:
        >>> archive_suffix(Path("Data.TAR.gz")), archive_suffix(Path("data.png"))
        ('.tar.gz', None)
    """
    name = path.name.lower()
    return max((end for end in SUFFIXES if name.endswith(end)), key=len, default=None)


def unpack(
    file: IO[bytes], name: Path, target: Path, limits: Limits, tell: Callable[[int], None] = lambda position: None
) -> None:
    """Unpack an archive into a new folder.

    Args:
        file: The archive, open for reading.
        name: Its path, for its kind and for errors.
        target: The folder to make.
        limits: How much it may be.
        tell: Told now and then how much of the archive has been read.

    Raises:
        UnsafeArchiveError: Entries that would leave the target, or are no plain files and folders, or are too much.
        DataError: A broken, truncated or encrypted archive.
        CacheError: The target cannot be written.
    """
    suffix = archive_suffix(name)
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    tree = _Tree(name, target, limits, size)
    entries = _zip_entries(file, name) if suffix == ".zip" else _tar_entries(file, name, suffix or ".tar")
    with our_errors(target):
        target.mkdir()
    while (entry := _read(name, lambda: next(entries, None))) is not None:
        path = tree.place(entry)
        if entry.content is not None:
            with our_errors(path), open(path, "xb") as out:
                tree.write(entry, out)
        tell(file.tell())
    if not tree.entries:
        raise DataError("empty archive", subject=name, expected="files", found="none", hint="fetch it again")


class _Tree:
    """What has been unpacked so far, and whether more may be."""

    def __init__(self, archive: Path, target: Path, limits: Limits, size: int) -> None:
        self.archive, self.target, self.limits = archive, target, limits
        self.entries = self.bytes = 0
        self._most = min(limits.size, max(SPARED, int(limits.ratio * size)))
        self._seen: dict[str, str | None] = {}  # folded path → a folder's path as written; None for a file

    def place(self, entry: Entry) -> Path:
        """Where an entry goes; its folders are made."""
        parts = self._parts(entry)
        for end in range(1, len(parts)):
            self._claim_folder("/".join(parts[:end]))
        if entry.content is None:
            self._claim_folder("/".join(parts))
        else:
            self._claim("/".join(parts), is_file=True)
        return self.target.joinpath(*parts)

    def write(self, entry: Entry, out: IO[bytes]) -> None:
        """Copy an entry's content."""
        assert entry.content is not None  # folders are not written
        written = 0
        source = _read(self.archive, entry.content)
        while data := _read(self.archive, lambda: source.read(_CHUNK)):
            written += len(data)
            self.bytes += len(data)
            if self.bytes > self._most:
                raise self._too_much()
            out.write(data)
        _read(self.archive, source.close)
        if written != entry.size:
            raise DataError("broken archive", subject=self.archive, expected=f"{entry.size:,} bytes in {entry.name!r}",
                            found=f"{written:,}", hint="fetch it again")  # fmt: skip

    def _parts(self, entry: Entry) -> tuple[str, ...]:
        name = entry.name
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        wrong = None
        if name.startswith("/"):
            wrong = "an absolute path"
        elif re.match(r"[A-Za-z]:", name) or (os.name == "nt" and ":" in name):
            wrong = "a drive"
        elif "\\" in name:
            wrong = "a backslash"
        elif "\0" in name:
            wrong = "a NUL character"
        elif ".." in parts:
            wrong = "a way out (..)"
        elif not parts and entry.content is not None:
            wrong = "nothing"
        elif not _short(name, parts):
            wrong = f"more than {_LONGEST_NAME} bytes, or {_LONGEST_PATH} with its folders"
        if wrong:
            raise UnsafeArchiveError("unsafe name in an archive", subject=self.archive, expected="names below its top",
                                     found=f"{wrong} in {_shortened(name)}", hint=_BY_HAND)  # fmt: skip
        return parts

    def _claim_folder(self, path: str) -> None:
        if path and self._claim(path, is_file=False):
            with our_errors(self.target):
                (self.target / path).mkdir()

    def _claim(self, path: str, *, is_file: bool) -> bool:
        """Whether a path is new. A folder may be named again; a file may not, nor what differs by case alone."""
        folded = unicodedata.normalize("NFC", path).casefold()
        if folded in self._seen:
            if is_file or self._seen[folded] != path:
                raise UnsafeArchiveError("two entries of one name in an archive", subject=self.archive,
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
            "an archive that unpacks to too much", subject=self.archive, expected=expected,
            found=f"{self.entries:,} entries and {self.bytes:,} bytes so far",
            hint="if you trust it, give root=unetzoo.datasets.data_root(ARCHIVE, max_entries=…, max_bytes=…, "
            "max_ratio=…), or unpack it yourself",
        )  # fmt: skip


def _short(name: str, parts: tuple[str, ...]) -> bool:
    sizes = [len(part.encode("utf-8", "surrogateescape")) for part in parts]
    return len(name) <= _LONGEST_PATH and max(sizes, default=0) <= _LONGEST_NAME and sum(sizes) <= _LONGEST_PATH


def _shortened(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:60] + "…")


def _read(archive: Path, step: Callable[[], T]) -> T:
    """A step of reading, whose every failure becomes ours: decoders raise whatever they please."""
    try:
        return step()
    except UnetzooError:
        raise
    except Exception as error:
        raise DataError("broken archive", subject=archive, found=f"{type(error).__name__}: {error}",
                        hint="fetch it again") from error  # fmt: skip


def _refuse_kind(archive: Path, name: str, kind: str) -> UnsafeArchiveError:
    return UnsafeArchiveError("an archive with more than files and folders", subject=archive,
                              found=f"{kind}: {_shortened(name)}", hint=_BY_HAND)  # fmt: skip


def _zip_entries(file: IO[bytes], archive: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(file) as packed:
        for info in packed.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            name = info.orig_filename  # `filename` is cut at a NUL, and changed by platform
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refuse_kind(archive, name, "a link" if kind == stat.S_IFLNK else "a device or pipe")
            if info.flag_bits & 1:
                raise DataError("encrypted archive", subject=archive, found=_shortened(name),
                                hint="unpack it yourself and give the folder")  # fmt: skip
            if name.endswith("/") or kind == stat.S_IFDIR:
                yield Entry(name, None, 0)
            else:
                yield Entry(name, lambda info=info: packed.open(info), info.file_size)


def _tar_entries(file: IO[bytes], archive: Path, suffix: str) -> Iterator[Entry]:
    opened = TAR[suffix]
    with nullcontext(file) if opened is None else closing(opened(file)) as source:
        stream = _Metered(source, archive)
        with stream.metered(_LARGEST_HEADER):
            packed = tarfile.open(
                fileobj=cast(IO[bytes], stream), mode="r|", tarinfo=_StrictInfo
            )  # it reads the first header
        while True:
            with stream.metered(_LARGEST_HEADER):
                info = packed.next()
            if info is None:
                break
            packed.members = []  # type: ignore[attr-defined] -- it would keep them all
            if info.isdir():
                yield Entry(info.name, None, 0)
            elif info.isreg():
                yield Entry(info.name, lambda info=info: _content(packed, info), info.size)
            else:
                kind = "a link" if info.issym() or info.islnk() else "a device, a pipe or the like"
                raise _refuse_kind(archive, info.name, kind)
        with stream.metered(_LARGEST_HEADER):
            while stream.read(_CHUNK):  # checksums of compressed streams come last
                pass


def _content(packed: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    content = packed.extractfile(info)
    assert content is not None  # regular files have content
    return content


class _StrictInfo(tarfile.TarInfo):
    """Headers that are what they should be: `tarfile` takes a broken one, and a missing end, for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _StrictInfo:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] -- a block of zeros: the true end
            raise
        except tarfile.HeaderError as error:
            raise ValueError(str(error)) from error


class _Metered:
    """A stream that stops a reader which wants more than it has leave for.

    `tarfile` reads the headers of an entry into memory whatever size they claim.
    """

    def __init__(self, stream: IO[bytes], archive: Path) -> None:
        self._stream, self._archive = stream, archive
        self._left: int | None = None

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise UnsafeArchiveError("an archive with endless headers", subject=self._archive, hint=_BY_HAND,
                                         expected=f"at most {_LARGEST_HEADER:,} bytes an entry")  # fmt: skip
        return data

    @contextmanager
    def metered(self, size: int) -> Iterator[None]:
        """Within the block no more than `size` bytes may be read."""
        self._left = size
        try:
            yield
        finally:
            self._left = None
