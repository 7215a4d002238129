"""Data that still lie in an archive: unpacked once, kept by content, used by everyone. Nobody vouches for archives.

Names are judged before anything is written, and sizes are measured while unpacking, never taken from headers. Links,
devices and pipes are refused with the whole archive; archives within it stay as they are.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import json
import lzma
import os
import re
import stat
import tarfile
import time
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar, cast

from ..errors import DataError, UnetzooError, UnsafeArchiveError
from ..io import write_json
from ..terminal import progress_console
from .files import PathLike
from .store import building, cache_root, our_errors

MAX_ENTRIES = 2_000_000
MAX_BYTES = 500 * 10**9
MAX_RATIO = 200  # unpacked bytes over the archive's own; deflate cannot pass 1,032
SPARED = 64 * 10**6  # unpacked bytes up to which no ratio is judged: a few empty masks compress well
_TAR: dict[str, Callable[..., Any]] = {
    ".tar": lambda file: contextlib.nullcontext(file), ".tar.gz": gzip.open, ".tgz": gzip.open, ".tar.xz": lzma.open,
    ".txz": lzma.open, ".tar.bz2": bz2.open, ".tbz2": bz2.open, ".tbz": bz2.open,
}  # fmt: skip
_CHUNK = 1 << 20
_LARGEST_HEADER = 8 * _CHUNK  # what the headers of one entry of a tar may take
_SETTLED = 2 * 10**9  # ns: a file younger than the coarsest clock of a file system may yet change unseen
_NOISE = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")  # what systems add of their own accord
_CHECKED: set[Path] = set()  # unpacked folders whose contents this process has compared
T = TypeVar("T")
_BY_HAND = "fetch it again; if you trust it, unpack it yourself and give the folder"


class Limits(NamedTuple):
    """How much an archive may unpack to: files and folders, bytes, bytes over the archive's own."""

    entries: int = MAX_ENTRIES
    size: int = MAX_BYTES
    ratio: float = MAX_RATIO


class ArchivedFile(NamedTuple):
    """A file or folder in an archive: its name, and its content, or None for a folder."""

    name: str
    content: Callable[[], IO[bytes]] | None
    size: int


def archive_suffix(path: Path) -> str | None:
    """The ending that makes a path an archive's, or None.

    Examples:
        >>> archive_suffix(Path("Data.TAR.gz")), archive_suffix(Path("data.png"))
        ('.tar.gz', None)
    """
    return max((end for end in (".zip", *_TAR) if path.name.lower().endswith(end)), key=len, default=None)


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
    folder = cache_root() / "archives"
    key = _remembered(path, folder)
    target = folder / _folder_name(path, key) if key else None
    if target is None or not _is_whole(target):
        target = _unpacked(path, folder, Limits(max_entries, max_bytes, max_ratio), quiet=not progress)
    with our_errors(target):
        inside = [entry for entry in target.iterdir() if entry.name not in _NOISE]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else target


def _unpacked(path: Path, folder: Path, limits: Limits, *, quiet: bool) -> Path:
    """The folder that an archive unpacks to; one handle reads it, so that it cannot be exchanged meanwhile."""
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
                    raise DataError("the archive changes while it is read", subject=path,
                                    hint="wait until it is complete")  # fmt: skip
                _write_note(_contents_note(target), {"contents": _contents(place)})
    if time.time_ns() - before["mtime"] > _SETTLED:
        _write_note(_archive_note(path, folder), {**before, "sha256": key})
    return target


def _digest(file: IO[bytes], path: Path) -> str:
    try:
        return hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore[reportArgumentType] -- it is a file
    except OSError as error:
        raise DataError("cannot read the archive", subject=path, found=str(error), hint="fetch it again") from error


def _folder_name(path: Path, key: str) -> str:
    """The folder of an archive: legible, and its content's own."""
    suffix = archive_suffix(path) or ""
    plain = re.sub(r"[^\w.-]+", "_", path.name[: len(path.name) - len(suffix)], flags=re.ASCII)[:60].strip(".")
    return f"{plain or 'archive'}-{key[:32]}"


def _stat(found: os.stat_result) -> dict[str, Any]:
    return {"size": found.st_size, "mtime": found.st_mtime_ns, "inode": found.st_ino, "device": found.st_dev}


def _archive_note(path: Path, folder: Path) -> Path:
    """Where the key of an archive at this path is kept."""
    return folder / "known" / (hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:32] + ".json")


def _contents_note(target: Path) -> Path:
    """Where it is kept what an unpacked folder held."""
    return target.parent / "known" / f"{target.name}.json"


def _write_note(note: Path, content: dict[str, Any]) -> None:
    with our_errors(note):
        note.parent.mkdir(exist_ok=True)
        write_json(note, content)


def _remembered(path: Path, folder: Path) -> str | None:
    """The key of an archive that is what it was when it was last read, by its size, time and place on the disk."""
    try:
        known = json.loads(_archive_note(path, folder).read_text())
        key = known.pop("sha256")
        return key if known == _stat(os.stat(path)) and re.fullmatch("[0-9a-f]{64}", key) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # nothing noted, or nothing legible: it is read again


def _contents(folder: Path) -> str:
    """Names, sizes and times of all files in a folder, as one number."""
    state = hashlib.sha256()
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            found = os.stat(os.path.join(place, name))
            told = f"{os.path.relpath(place, folder)}/{name}\0{found.st_size}\0{found.st_mtime_ns}\n"
            state.update(told.encode("utf-8", "surrogateescape"))
    return state.hexdigest()


def _is_whole(target: Path) -> bool:
    """Whether an unpacked folder is there, with the contents it was unpacked with; they are compared once a process."""
    if target in _CHECKED:
        return target.is_dir()
    try:
        whole = target.is_dir() and json.loads(_contents_note(target).read_text())["contents"] == _contents(target)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if whole:
        _CHECKED.add(target)
    return whole


def unpack(file: IO[bytes], archive: Path, target: Path, limits: Limits) -> None:
    """Unpack an archive into a new folder.

    Args:
        file: The archive, open for reading.
        archive: Its path, for its kind and for errors.
        target: The folder to make.
        limits: How much it may be.

    Raises:
        UnsafeArchiveError: Entries that would leave the target, or are no plain files and folders, or are too much.
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
        raise DataError("empty archive", subject=archive, expected="files", found="none", hint="fetch it again")


class _Tree:
    """What has been unpacked so far, and whether more may be."""

    def __init__(self, archive: Path, limits: Limits, size: int) -> None:
        self.archive, self.limits = archive, limits
        self.entries = self.bytes = 0
        self._most = min(limits.size, max(SPARED, int(limits.ratio * size)))
        self._seen: dict[str, str | None] = {}  # folded path → a folder's path as written; None for a file

    def claim(self, entry: ArchivedFile) -> list[str]:
        """The folders that an entry needs and that are new; a name that is taken, or leads elsewhere, is refused."""
        parts = [part for part in entry.name.split("/") if part not in ("", ".")]
        sizes = [len(part.encode("utf-8", "surrogateescape")) for part in parts]
        if (
            re.match(r"/|[A-Za-z]:", entry.name) or re.search(r"[\\\0]", entry.name) or ".." in parts
            or (os.name == "nt" and ":" in entry.name) or (not parts and entry.content is not None)
            or len(entry.name) > 1000 or sum(sizes) > 1000 or max(sizes, default=0) > 255
        ):  # fmt: skip
            raise UnsafeArchiveError(
                "unsafe name in an archive", subject=self.archive, found=_shortened(entry.name), hint=_BY_HAND,
                expected="names below its top, of at most 255 bytes, and 1,000 with their folders",
            )  # fmt: skip
        paths = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
        folders = paths if entry.content is None else paths[:-1]
        new = [path for path in folders if self._is_new(path, is_file=False)]
        if entry.content is not None:
            self._is_new(paths[-1], is_file=True)
        return new

    def copy(self, entry: ArchivedFile, out: IO[bytes]) -> None:
        """Copy an entry's content."""
        assert entry.content is not None  # folders are not written
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
                            found=f"{self.bytes - before:,}", hint="fetch it again")  # fmt: skip

    def _is_new(self, path: str, *, is_file: bool) -> bool:
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


def _other_kind(archive: Path, name: str) -> UnsafeArchiveError:
    return UnsafeArchiveError("an archive with more than files and folders", subject=archive, hint=_BY_HAND,
                              found=f"a link, a device or a pipe: {_shortened(name)}")  # fmt: skip


def _zip_entries(file: IO[bytes], archive: Path) -> Iterator[ArchivedFile]:
    with zipfile.ZipFile(file) as packed:
        for info in packed.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            name = info.orig_filename  # `filename` is cut at a NUL, and changed by platform
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _other_kind(archive, name)
            if info.flag_bits & 1:
                raise DataError("encrypted archive", subject=archive, found=_shortened(name),
                                hint="unpack it yourself and give the folder")  # fmt: skip
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
                stream.left = None  # of the content, only what is too much counts
                yield ArchivedFile(info.name, lambda info=info: cast(IO[bytes], packed.extractfile(info)), info.size)
            else:
                yield ArchivedFile(info.name, None, 0)
            stream.left = _LARGEST_HEADER
        while stream.read(_CHUNK):  # checksums of compressed streams come last
            pass


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
    """A stream that stops `tarfile` when it reads endless headers, which it keeps in memory."""

    def __init__(self, stream: IO[bytes], archive: Path) -> None:
        self._stream, self._archive = stream, archive
        self.left: int | None = _LARGEST_HEADER

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        if self.left is not None:
            self.left -= len(data)
            if self.left < 0:
                raise UnsafeArchiveError("an archive with endless headers", subject=self._archive, hint=_BY_HAND,
                                         expected=f"at most {_LARGEST_HEADER:,} bytes an entry")  # fmt: skip
        return data
