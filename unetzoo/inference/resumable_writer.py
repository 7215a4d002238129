"""Write `.npy` arrays and tiled TIFF files of a fixed size band by band, so that an interrupted run can be resumed.

A file is named `<target>.part` until it is complete. Values are written, not memory-mapped: on a full disk a write
raises an error, while a memory map would kill the process.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile

from .. import io
from ..errors import ConfigError

TILE = 512
SUFFIXES = (".npy", ".tif", ".tiff")


class Layer(NamedTuple):
    """A file to write.

    Args:
        path: The file; its suffix decides the format: `.npy`, `.tif` or `.tiff`.
        shape: (H, W) or (H, W, C); for TIFF files only (H, W).
        dtype: Type of the values.
        tags: Further tags of a TIFF file, as `extratags` of tifffile.
        source: Type of the values that it is computed from, if these are not the values themselves.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    tags: tuple[Any, ...] = ()
    source: np.dtype | None = None

    @property
    def partial(self) -> Path:
        """Its name until it is complete."""
        return self.path.with_name(self.path.name + ".part")


class ResumableWriter:
    """Fills files from the top and records the progress; files get their names when they are complete.

    Args:
        layers: The files, by content.
        recipe: Everything that determines the content; files of another recipe are never continued.
        resume: Continue an unfinished result, if there is one.

    Raises:
        ConfigError: An existing file; an unfinished result without `resume`, or of another recipe; a full disk.
    """

    def __init__(self, layers: Mapping[str, Layer], recipe: Mapping[str, Any], resume: bool) -> None:
        self.layers = dict(layers)
        self.recipe = json.loads(json.dumps(recipe))
        first = next(iter(self.layers.values()))
        self.note = note_of(first.path)
        self.left = dict(layers)  # files without their final names
        try:
            unfinished = self._unfinished()
            if resume and not unfinished:
                self._check_absent()
            self.done = self._done(resume) if unfinished else 0
            self._check_free()
        except OSError as error:  # a name that is too long, a folder without permission
            hint = "choose another name, or another folder"
            raise ConfigError("cannot write the results", subject=first.path, found=str(error), hint=hint) from error
        if not self.done:
            self._create()
        self.places = {name: _place(layer) for name, layer in self.left.items()}

    def write(self, start: int, bands: Mapping[str, np.ndarray]) -> None:
        """Write rows from `start` on to each layer; they are on disk before they are recorded as done.

        Raises:
            ConfigError: The disk is full or gone; finished rows are kept.
        """
        try:
            for name, band in bands.items():
                with open(self.layers[name].partial, "r+b", buffering=0) as file:
                    self.places[name].write(file, start, np.ascontiguousarray(band))
                    os.fsync(file.fileno())
            self.done = start + len(next(iter(bands.values())))
            self._write_note()
        except OSError as error:
            raise self._unwritable(error) from error

    def finish(self) -> None:
        """Rename the files to their final names.

        Raises:
            ConfigError: A name has been taken, or renaming fails; finished rows are kept.
        """
        self._check_free()
        try:
            for layer in self.left.values():
                io.DISK.rename(layer.partial, layer.path)
                io.DISK.sync(layer.path.parent)
            self.note.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> ConfigError:
        return ConfigError(
            "cannot write the results",
            subject=self.note.parent,
            found=str(error),
            hint="make room, then continue with resume=True (unetzoo stream --resume); finished rows are kept",
        )

    def _check_absent(self) -> None:
        """Refuse to resume complete files: nothing in them shows which run wrote them."""
        if all(layer.path.exists() for layer in self.layers.values()):
            raise ConfigError(
                "the target exists already",
                subject=self.note.parent,
                expected="an unfinished result (.part)",
                found=", ".join(layer.path.name for layer in self.layers.values()) + " under their final names",
                hint="if an earlier run wrote them, they are complete; otherwise delete them, or choose other names",
            )

    def _check_free(self) -> None:
        for layer in self.left.values():
            check_free(layer.path)

    def _unfinished(self) -> list[Path]:
        """Files of an interrupted call; a note without any of its files is ignored."""
        partial = [layer.partial for layer in self.layers.values() if layer.partial.exists()]
        noted = self.note.exists() and (partial or any(layer.path.exists() for layer in self.layers.values()))
        return [*partial, *([self.note] if noted else [])]

    def _done(self, resume: bool) -> int:
        if not resume:
            raise ConfigError(
                "there is an unfinished result",
                subject=self.note.parent,
                found=", ".join(path.name for path in self._unfinished()),
                hint="continue it with resume=True (unetzoo stream --resume), or delete it",
            )
        try:
            note = json.loads(self.note.read_text())
            done, recipe, sizes = int(note["rows"]), note["recipe"], dict(note["bytes"])
        except (OSError, ValueError, TypeError, KeyError):
            return 0  # interrupted before the first rows were recorded
        if recipe != self.recipe:
            other = [key for key in self.recipe if not isinstance(recipe, dict) or recipe.get(key) != self.recipe[key]]
            raise ConfigError(
                "the unfinished result belongs to another run",
                subject=self.note.with_suffix(""),
                found=f"another {', '.join(other)}",
                hint="continue with the same network, source and options, or delete it",
            )
        height = next(iter(self.layers.values())).shape[0]
        left = self.layers
        if done == height:  # it may have been interrupted between two renames
            left = {name: layer for name, layer in left.items() if layer.partial.exists() or not layer.path.exists()}
        if not 0 <= done <= height or any(_size(layer.partial) != sizes.get(name) for name, layer in left.items()):
            return 0
        self.left = left
        return done

    def _create(self) -> None:
        made: list[Path] = []
        try:
            for layer in self.layers.values():
                made.append(layer.partial)
                _empty(layer)
        except OSError as error:
            for path in made:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            raise ConfigError(
                "cannot write the results",
                subject=made[-1],
                expected=f"room for {sum(_bytes(layer) for layer in self.layers.values()) / 1e6:,.1f} MB",
                found=str(error),
                hint="make room, or choose another folder",
            ) from error

    def _write_note(self) -> None:
        sizes = {name: _size(layer.partial) for name, layer in self.left.items()}
        note = {"rows": self.done, "recipe": self.recipe, "bytes": sizes}
        partial = self.note.with_name(self.note.name + "~")  # one name, so that a kill leaves at most one file
        io.DISK.write(partial, io.as_json(note).encode())
        io.DISK.rename(partial, self.note)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.exists() else None


def note_of(path: Path) -> Path:
    """Return the file that records the progress of a result."""
    return path.with_name(path.name + ".part.json")


def check_free(path: Path) -> None:
    """Check that a result can be written here.

    Raises:
        ConfigError: Unknown suffix, existing file, missing folder.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            "cannot write this file type",
            subject=path,
            expected=", ".join(SUFFIXES),
            found=path.suffix or "no suffix",
        )
    if path.exists():
        raise ConfigError("the target exists already", subject=path, hint="delete it, or choose another name")
    if not path.parent.is_dir():
        raise ConfigError("no such folder", subject=path.parent, hint="create it, or choose another")


class _Rows(NamedTuple):
    """Row-major layout."""

    offset: int
    row: int

    def write(self, file: Any, start: int, band: np.ndarray) -> None:
        _put(file, self.offset + start * self.row, band)


class _Tiles(NamedTuple):
    """Layout in square tiles."""

    offsets: tuple[int, ...]
    across: int

    def write(self, file: Any, start: int, band: np.ndarray) -> None:
        stop, width = start + len(band), band.shape[1]
        for y in range(start // TILE, -(-stop // TILE)):
            top, bottom = max(start, y * TILE), min(stop, (y + 1) * TILE)
            for x in range(self.across):
                part = band[top - start : bottom - start, x * TILE : (x + 1) * TILE]
                if part.shape[1] < TILE:
                    part = np.pad(part, ((0, 0), (0, TILE - width % TILE)))
                place = self.offsets[y * self.across + x] + (top - y * TILE) * TILE * band.itemsize
                _put(file, place, np.ascontiguousarray(part))


def _put(file: Any, place: int, values: np.ndarray) -> None:
    file.seek(place)
    left = values.data.cast("B")
    while left:
        left = left[file.write(left) :]


def _empty(layer: Layer) -> None:
    """Create a file of the final size, with its space reserved."""
    if layer.path.suffix.lower() == ".npy":
        with open(layer.partial, "wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(layer.dtype), "fortran_order": False, "shape": layer.shape}
            np.lib.format.write_array_header_2_0(file, header)
            file.truncate(file.tell() + _bytes(layer))
    else:
        with tifffile.TiffWriter(layer.partial, bigtiff=_bytes(layer) > 2**31) as file:
            file.write(
                None, shape=layer.shape, dtype=layer.dtype, tile=(TILE, TILE), photometric="minisblack", metadata=None,
                extratags=layer.tags,
            )  # fmt: skip
    with open(layer.partial, "r+b") as file:
        reserve(file.fileno())


def reserve(file: int) -> None:
    """Reserve the space of a file, given by its descriptor, where the system can.

    Raises:
        OSError: The disk is full.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file, 0, os.fstat(file).st_size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # not supported by the file system
            raise


def _place(layer: Layer) -> _Rows | _Tiles:
    if layer.path.suffix.lower() == ".npy":
        row = int(np.prod(layer.shape[1:])) * layer.dtype.itemsize
        return _Rows(layer.partial.stat().st_size - layer.shape[0] * row, row)
    with tifffile.TiffFile(layer.partial) as file:
        return _Tiles(tuple(file.pages.first.dataoffsets), -(-layer.shape[1] // TILE))


def _bytes(layer: Layer) -> int:
    return int(np.prod(layer.shape, dtype=np.int64)) * layer.dtype.itemsize
