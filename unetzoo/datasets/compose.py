"""Writing composites to files with the original's names, in parallel and resumable."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image

from .._version import __version__
from ..errors import ConfigError, DataError, RunLockedError
from ..io import disk_errors
from .base import Sample
from .composites import Composites
from .export_files import COMPOSITE, DEPTH, FORMAT, MANIFEST, MASK, SCENE, identities, read_manifest
from .files import PathLike
from .listing import list_folder, shown
from .parallel import pieces, spread

PIECE = 16  # composites per task of a worker process
LEVEL = 3  # of PNG compression; 6 saves another 1…8 % and takes twice as long
LOCK = ".lock"
_TRIED = 12  # composites from which the required space is estimated
_BLOCK = 4096  # files occupy multiples of this on the disk


def write_export(
    data: Composites,
    out: PathLike,
    *,
    jpeg: int | None = None,
    workers: int | None = 0,
    tell: Callable[[int], None] = lambda count: None,
) -> int:
    """Write all samples of a dataset to files, to be read by `CompositesExport` or other programs.

    `fg_bg/`, `fg_bg_mask/` and `fg_bg_depth/` contain one file per sample, named as in the original
    (`fg021flip_bg94_000005`; the last number is the index of the sample, or the position, 01…20, with `length="all"`).
    `bg/` contains one file per scene, or per sample with `jitter`. Images and masks (0 and 255) are PNG and exact.
    Depth is 16-bit PNG and accurate to half a unit. A unit is 1/65,535, times the largest depth of the sources if that
    exceeds 1. In depth with gaps, 0 means a gap, and values below half a unit become one unit. `composites.json`
    records seed, settings, names, version and the unit.

    Files are written atomically. After a kill or a full disk, the same call continues.

    Args:
        data: Composites with 6 channels; the transform is ignored.
        out: A new or empty folder, or an unfinished export with the same arguments.
        jpeg: Write images, and depth in 8 bits, as JPEG of this quality, 1…100, as in the original, which is not exact;
            masks remain PNG.
        workers: Number of worker processes; 0 for none, None for one per CPU. See `spread` about scripts.
        tell: Called with the number of composites finished since the last call.

    Returns:
        The number of composites written by this call.

    Raises:
        ConfigError: Invalid or inconsistent arguments; ambiguous names of sources.
        DataError: A folder with other contents, or an export with other settings or sources; faults of the sources (all
            in one error); a full disk; missing permissions.
        RunLockedError: Another process is writing this export.
    """
    _check(data, jpeg)
    folder = Path(out)
    with _locked(folder):
        manifest = _manifest(data, jpeg, _check_folder(folder))
        _check_space(data, jpeg, folder)
        _put(folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False).encode())
        _prepare(folder)
        writer = _Writer(data, folder, jpeg, manifest["depth"]["unit"], manifest["depth"]["gaps"])
        if not data.jitter:
            for number in data.backgrounds:
                writer.write_scene(number)
        written = 0
        todo = pieces(range(len(data)), PIECE)
        for piece, count in zip(todo, spread(writer, todo, workers), strict=True):
            tell(len(piece))
            written += count
    return written


def export_size(data: Composites, jpeg: int | None = None) -> int:
    """Estimate the disk space of an export in bytes, from some of its samples.

    Args:
        data: The dataset.
        jpeg: As in `write_export`.

    Examples:
        >>> data = Composites(size=32, length=500)
        >>> export_size(data) == 500 * 3 * 4096  # small files occupy one block each
        True
    """
    _check(data, jpeg)
    tried = [len(data) * i // _TRIED for i in range(min(_TRIED, len(data)))]
    if not tried:
        return 0
    total = 0
    for index in tried:
        sample = data.load(index)
        writer = _Writer(data, Path(), jpeg, _unit(float(sample["depth"].max()), jpeg), "valid" in sample)
        files = writer.encode(sample, scene=data.jitter)
        total += sum(-(-len(content) // _BLOCK) * _BLOCK for _, content in files.values())
    return total * len(data) // len(tried)


class _Writer(NamedTuple):
    """Creates and writes composites, a group of indices at a time."""

    data: Composites
    folder: Path
    jpeg: int | None
    unit: float
    gaps: bool

    def __call__(self, piece: Sequence[int]) -> int:
        """Write the missing composites, and return their number."""
        written = 0
        for index in piece:
            stem = self.data.stem(index)
            if self._path(COMPOSITE, stem).exists():
                continue
            files = self.encode(self.data.load(index), scene=self.data.jitter)
            for kind in sorted(files, key=lambda kind: kind == COMPOSITE):  # written last, when the others exist
                _put(self._path(kind, stem), files[kind][1])
            written += 1
        return written

    def encode(self, sample: Sample, *, scene: bool) -> dict[str, tuple[str, bytes]]:
        """Suffix and content of the files of a sample."""
        files = {
            COMPOSITE: self._image(sample["image"][..., :3]),
            MASK: (".png", _png(sample["mask"] * np.uint8(255))),
            DEPTH: self._depth(sample),
        }
        return {**files, SCENE: self._image(sample["image"][..., 3:])} if scene else files

    def write_scene(self, number: int) -> None:
        """Write a scene."""
        path = self._path(SCENE, self.data.background_names[number])
        if not path.exists():
            _put(path, self._image(self.data.scene(number))[1])

    def _path(self, kind: str, stem: str) -> Path:
        lossy = self.jpeg is not None and kind != MASK
        return self.folder / kind / f"{stem}{'.jpg' if lossy else '.png'}"

    def _image(self, image: np.ndarray) -> tuple[str, bytes]:
        return (".png", _png(image)) if self.jpeg is None else (".jpg", _jpeg(image, self.jpeg))

    def _depth(self, sample: Sample) -> tuple[str, bytes]:
        coded = np.rint(sample["depth"].astype(np.float64) / self.unit)
        if self.gaps:
            coded = np.where(sample["valid"], np.maximum(coded, 1), 0)
        if self.jpeg is None:
            return ".png", _png(coded.astype(np.uint16))
        return ".jpg", _jpeg(coded.astype(np.uint8), self.jpeg)


def _png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(file, "PNG", compress_level=LEVEL)
    return file.getvalue()


def _jpeg(array: np.ndarray, quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(file, "JPEG", quality=quality)
    return file.getvalue()


def _unit(farthest: float, jpeg: int | None) -> float:
    return max(1.0, farthest) / (65535 if jpeg is None else 255)


def _check(data: Composites, jpeg: int | None) -> None:
    if not isinstance(data, Composites) or data.channels != 6:
        raise ConfigError("cannot be exported", subject=data, expected="Composites with 6 channels", hint="channels=6")
    if jpeg is None:
        return
    if not isinstance(jpeg, int) or not 1 <= jpeg <= 100:
        raise ConfigError("wrong jpeg", expected="a quality in 1…100, or None", found=repr(jpeg), hint="try 90")
    if data.depth_source != "layered":
        raise ConfigError("depth with gaps cannot be JPEG", subject=data, hint="omit jpeg or depth")


def _check_folder(folder: Path) -> dict[str, Any]:
    """The manifest of an unfinished export; empty for an empty folder."""
    manifest = read_manifest(folder)
    found = sorted(path.name for path in list_folder(folder) if path.name != LOCK and not path.name.endswith(".tmp"))
    if found and not manifest:
        raise DataError("the folder has other contents", subject=folder, expected="an empty folder or an export",
                        found=shown(found), hint="choose another folder")  # fmt: skip
    return manifest


def _manifest(data: Composites, jpeg: int | None, begun: dict[str, Any]) -> dict[str, Any]:
    """The manifest, after a check that an unfinished export has the same."""
    _check_names(data)
    content = hashlib.sha256()
    for path in data.sources():
        with _our_errors(path, "cannot read"):
            content.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    measured = data.depth_source != "layered"
    manifest = {
        "format": FORMAT, "unetzoo": __version__, "count": len(data), "split": data.split, "seed": data.seed,
        "size": data.size, "positions": data.positions, "every": data.length == "all", "flip": data.flip,
        "jitter": data.jitter, "images": "png" if jpeg is None else f"jpeg {jpeg}",
        "depth": {"source": data.depth_source, "unit": _unit(data.check(), jpeg), "gaps": measured},
        "sources": content.hexdigest() if data.sources() else "drawn",
        "foregrounds": data.foreground_names, "backgrounds": data.background_names,
    }  # fmt: skip
    differing = [key for key in manifest if begun and begun.get(key) != manifest[key]]
    if differing:
        there, here = (", ".join(f"{key} {_short(told.get(key))}" for key in differing) for told in (begun, manifest))
        raise DataError("the folder contains an export with other settings", expected=here, found=there,
                        hint="use the same settings to continue it, or choose another folder")  # fmt: skip
    return manifest


def _short(value: object) -> str:
    return repr(value) if len(repr(value)) <= 40 else f"{repr(value)[:20]}…"


def _check_names(data: Composites) -> None:
    """Check that cut-out and scene can be recovered from every name."""
    scenes = set(data.background_names)
    for fg in data.foreground_names:
        for bg in data.background_names:
            if any(identities(f"{fg}{flip}_{bg}_01", scenes) != (fg, bg) for flip in ("", "flip")):
                raise ConfigError("ambiguous names", subject=f"{fg} in {bg}", hint="rename one of the two files")


def _prepare(folder: Path) -> None:
    """Create the folders, and remove partial files of a killed call."""
    with _our_errors(folder):
        for kind in (COMPOSITE, MASK, DEPTH, SCENE):
            (folder / kind).mkdir(exist_ok=True)
            for debris in (folder / kind).glob(".*.tmp"):
                debris.unlink()


def _check_space(data: Composites, jpeg: int | None, folder: Path) -> None:
    with _our_errors(folder):
        done = len(os.listdir(folder / COMPOSITE)) if (folder / COMPOSITE).exists() else 0
        free = shutil.disk_usage(folder).free
    needed = export_size(data, jpeg) * max(len(data) - done, 0) // max(len(data), 1)
    if needed > free:
        raise DataError("not enough space", subject=folder, expected=f"about {gigabytes(needed)}",
                        found=f"{gigabytes(free)} free", hint="free some, or write fewer composites")  # fmt: skip


def gigabytes(count: int) -> str:
    """Format a number of bytes.

    Examples:
        >>> gigabytes(31_400_000_000), gigabytes(12_288)
        ('31.4 GB', '0.0123 MB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with _our_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise RunLockedError("another process is writing this export", subject=folder,
                                 hint="wait until it is done, or stop it") from error  # fmt: skip
    try:
        yield
    finally:
        lock.release()


def _our_errors(subject: Path, what: str = "cannot write") -> contextlib.AbstractContextManager[None]:
    return disk_errors(subject, what=what, full="free some space, then run the same call again: it continues")


def _put(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # `_prepare` removes it after a kill
    with _our_errors(path):
        try:
            aside.write_bytes(content)
            os.replace(aside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                aside.unlink()
            raise
