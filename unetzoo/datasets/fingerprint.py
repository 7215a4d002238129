"""A digest of everything that the samples of a dataset depend on: options, code, decoding libraries and files.

Values that cannot be compared reliably are refused, since a silently wrong cache is worse than none.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import enum
import importlib.metadata
import importlib.util
import inspect
import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError
from .listing import summary
from .store import draft_of

READERS = ("file_dataset", "depth_files", "geometry", "weights", "cachefile")  # modules that any dataset may use
LIBRARIES = ("numpy", "pillow", "tifffile", "torch")
SETTLED = 2_000_000_000  # ns, the coarsest file system clock: a younger file may still change without a new time
Stat = tuple[int, int, int, int, int]


def digest(tag: str, *parts: bytes) -> bytes:
    """An unambiguous digest of a tag and its parts, 16 bytes.

    Examples:
        >>> digest("a", b"bc") == digest("a", b"b", b"c")
        False
    """
    lengths = ",".join(str(len(part)) for part in parts)
    return blake2b(b"".join((f"{tag}\0{lengths}\0".encode(), *parts)), digest_size=16).digest()


def of_dataset(dataset: Any) -> bytes:
    """Digest of the class, options and code of a dataset, without its transform.

    Options are what the dataset pickles: `__getstate__`, or all attributes.

    Raises:
        ConfigError: An option that is not a plain value, or code that cannot be read.
    """
    state = dataset.__getstate__()
    if isinstance(state, dict):
        state = {name: value for name, value in state.items() if name != "transform"}
    cls = type(dataset)
    return digest("dataset", _name(cls).encode(), of_value(state, cls.__name__), of_code(cls))


def of_value(value: Any, subject: str) -> bytes:
    """Digest of a plain value: a number, string, path, array or dataclass, or a container of them.

    Args:
        value: The value.
        subject: Its name in errors.

    Raises:
        ConfigError: Another type.
    """
    kind = type(value).__name__
    if isinstance(value, enum.Enum):
        return digest("enum", _name(type(value)).encode(), value.name.encode())
    if value is None or isinstance(value, bool | int | float | complex | str | range):
        return digest(kind, repr(value).encode("utf-8", "surrogatepass"))
    if isinstance(value, bytes):
        return digest(kind, value)
    if isinstance(value, os.PathLike):
        return digest("path", os.fsencode(os.path.abspath(value)))
    if isinstance(value, np.ndarray | np.generic) and not np.asarray(value).dtype.hasobject:
        array = np.asarray(value)
        return digest("array", repr((array.dtype.descr, array.shape)).encode(), array.tobytes())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return digest("dataclass", _name(type(value)).encode(), of_value(fields, subject))
    if isinstance(value, Mapping):
        pairs = ((of_value(key, subject), of_value(inner, f"{subject}.{key}")) for key, inner in value.items())
        return digest(kind, *(part for pair in pairs for part in pair))  # the order may decide that of samples
    if isinstance(value, Set):
        return digest("set", *sorted(of_value(inner, subject) for inner in value))
    if isinstance(value, list | tuple):
        return digest(kind, *(of_value(inner, f"{subject}[{i}]") for i, inner in enumerate(value)))
    if all(hasattr(value, name) for name in ("labels", "__len__", "__getitem__")):  # a wrapped dataset
        return digest("inner", of_dataset(value), of_value(getattr(value, "transform", None), f"{subject}.transform"))
    raise ConfigError(
        "changes of this option cannot be detected", subject=subject,
        expected="numbers, strings, paths, arrays, dataclasses, or containers of them", found=_name(type(value)),
        hint="use plain values, or omit it from __getstate__ if samples do not depend on it",
    )  # fmt: skip


def of_code(cls: type) -> bytes:
    """Digest of the code of a class and its bases, of everything this code imports from its own package, of our modules
    that read and resize files, and of the versions of the decoding libraries.

    Raises:
        ConfigError: The source code is not available.
    """
    modules = {f"{__package__}.{name}" for name in READERS}
    files: set[Path] = set()
    texts: list[bytes] = []
    for base in cls.__mro__:
        if base.__module__ in ("builtins", "abc", "typing"):
            continue
        file = getattr(sys.modules.get(base.__module__), "__file__", None)
        if file is not None and file.endswith(".py"):
            modules.add(base.__module__)
            files.add(Path(file))
            continue
        try:
            texts.append(inspect.getsource(base).encode())
        except (OSError, TypeError) as error:
            raise ConfigError(
                "changes of this code cannot be detected", subject=_name(base), expected="its source code",
                found=str(error), hint="define the class in a file",
            ) from error  # fmt: skip
    files |= _imported(modules)
    texts += [file.read_bytes() for file in sorted(files)]
    versions = [f"{name} {importlib.metadata.version(name)}".encode() for name in LIBRARIES]
    return digest("code", *texts, *versions)


def _imported(modules: set[str]) -> set[Path]:
    """The files of modules and of their direct and indirect imports from the same top-level packages."""
    files: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        file = None if name in files or name == "__main__" else _file_of(name)
        if file is not None:
            files[name] = file
            package = name if file.name == "__init__.py" else name.rpartition(".")[0]
            waiting += [other for other in _imports(file, package) if other.partition(".")[0] == name.partition(".")[0]]
    return set(files.values())


def _imports(file: Path, package: str) -> Iterator[str]:
    """The modules that a file imports; `from package import module` counts as that module, if it is one."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = importlib.util.resolve_name("." * node.level + base, package)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if _file_of(inner) is not None else base


def _file_of(module: str) -> Path | None:
    """The source file of a module, found without importing it."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):  # not a module, e.g. a class in one
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None and spec.origin.endswith(".py") else None


class Sources:
    """Contents of the files of a dataset; only files whose size, times or inode changed are read again.

    Args:
        files: The files; duplicates count once.
        receipt: A file that stores digests between runs.

    Raises:
        DataError: Unreadable files, all in one error.
    """

    def __init__(self, files: Iterable[os.PathLike[str]], receipt: Path) -> None:
        self.names = sorted({os.path.abspath(file) for file in files})
        self.receipt = receipt
        self._known = _read_receipt(receipt)

    def digest(self, track: Callable[[Sequence[Any]], Iterable[Any]] = iter) -> bytes:
        """Digest of the current names and contents.

        Args:
            track: Wraps the tasks, to show progress.

        Raises:
            DataError: Unreadable files, all in one error.
        """
        began, faults = time.time_ns(), []
        stats = {name: _attempt(_stat, name, faults) for name in self.names}
        dirty = [n for n, stat in stats.items() if stat and (n not in self._known or self._known[n][0] != stat)]
        chunks = [dirty[start : start + 64] for start in range(0, len(dirty), 64)]
        with ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:  # hashing and reading release the GIL
            jobs = [pool.submit(lambda chunk: [_attempt(_hash, name, faults) for name in chunk], c) for c in chunks]
            try:
                fresh = [found for job in track(jobs) for found in job.result()]
            except BaseException:  # do not wait for the rest after Ctrl-C
                pool.shutdown(cancel_futures=True)
                raise
        if faults:
            raise DataError("unreadable files of the dataset", found=summary(sorted(faults)),
                            hint="build the dataset again, or download the files again")  # fmt: skip
        known = {name: self._known[name] for name in self.names if name in self._known}
        known |= dict(zip(dirty, fresh, strict=True))
        # as in git ("racily clean"): a file written just before it was read may change without a new time
        self._known = {name: (s, d) for name, (s, d) in known.items() if max(s[1], s[2]) + SETTLED < began}
        if dirty:
            _write_receipt(self.receipt, self._known)
        return digest("sources", *(part for name in self.names for part in (os.fsencode(name), known[name][1])))


def _attempt(work: Callable[[str], Any], name: str, faults: list[str]) -> Any:
    try:
        return work(name)
    except OSError as error:
        faults.append(f"{name}: {error.strerror or error}")
        return None


def _stat(name: str) -> Stat:
    stat = os.stat(name)
    size, written, changed, node, device = (
        number % 2**64 for number in (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev)
    )
    return size, written, changed, node, device


def _hash(name: str) -> tuple[Stat, bytes]:
    stat = _stat(name)  # before reading, so that a change in between is noticed next time
    with open(name, "rb") as file:
        return stat, file_digest(file, lambda: blake2b(digest_size=16)).digest()


def _read_receipt(path: Path) -> dict[str, tuple[Stat, bytes]]:
    """The stored digests; empty if the file is missing or broken."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            names = file["names"].tobytes().decode("utf-8", "surrogateescape").split("\0")
            stats, digests = file["stats"].tolist(), file["digests"]
        return {
            name: ((stat[0], stat[1], stat[2], stat[3], stat[4]), number.tobytes())
            for name, stat, number in zip(names, stats, digests, strict=True)
        }
    except Exception:  # NumPy raises anything for a broken file
        return {}


def _write_receipt(path: Path, known: dict[str, tuple[Stat, bytes]]) -> None:
    """Store digests; on failure the files are read again next time."""
    arrays = {
        "names": np.frombuffer("\0".join(known).encode("utf-8", "surrogateescape"), np.uint8),
        "stats": np.array([stat for stat, _ in known.values()], np.uint64).reshape(-1, 5),
        "digests": np.frombuffer(b"".join(d for _, d in known.values()), np.uint8).reshape(-1, 16),
    }
    draft = draft_of(path)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(draft, "wb") as file:
            np.savez(file, **arrays)
        os.replace(draft, path)
    with contextlib.suppress(OSError):
        draft.unlink(missing_ok=True)


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
