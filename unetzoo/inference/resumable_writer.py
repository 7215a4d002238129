"""Outputs on disk, written as they are ready: `.npy` arrays and tiled TIFF files of a fixed size.

A file has the name `<target>.part` until it is complete. Values are written, not mapped: a disk that fills is an
error that can be told, where a memory map would end the process.
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
    """One file to be written.

    Args:
        path: Where; the suffix says what: `.npy`, `.tif` or `.tiff`.
        shape: (H, W) or (H, W, C); TIFF files take (H, W) only.
        dtype: Of its values.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def partial(self) -> Path:
        """Its name until it is complete."""
        return self.path.with_name(self.path.name + ".part")


class ResumableWriter:
    """Files that are filled from the top, with a note of how far; they appear under their names when complete.

    Args:
        layers: The files by what they hold.
        recipe: What makes them: the files of another recipe are never continued.
        resume: Go on where an unfinished result ends; without one, begin.

    Raises:
        ConfigError: A file that is there; an unfinished result without `resume`, or of another recipe; no room.
    """

    def __init__(self, layers: Mapping[str, Layer], recipe: Mapping[str, Any], resume: bool) -> None:
        self.layers = dict(layers)
        self.recipe = json.loads(json.dumps(recipe))
        first = next(iter(self.layers.values()))
        self.note = first.path.with_name(first.path.name + ".part.json")
        self.left = dict(layers)  # those that do not have their final names yet
        try:
            unfinished = self._unfinished()
            if resume and not unfinished:
                self._check_absent()
            self.done = self._done(resume) if unfinished else 0
            self._check_free()
        except OSError as error:  # a name that is too long, a folder that may not be looked into
            hint = "choose another name, or another folder"
            raise ConfigError("cannot write the results", subject=first.path, found=str(error), hint=hint) from error
        if not self.done:
            self._create()
        self.places = {name: _place(layer) for name, layer in self.left.items()}

    def write(self, start: int, bands: Mapping[str, np.ndarray]) -> None:
        """Rows from `start` on, of each layer; they are on disk before they are noted as done.

        Raises:
            ConfigError: The disk is full or gone; what is done is kept.
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
        """Give the files their names.

        Raises:
            ConfigError: One of the names was taken meanwhile; the disk refuses. What is done is kept.
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
            hint="make room, then go on with resume=True (unetzoo stream --resume); what is done is kept",
        )

    def _check_absent(self) -> None:
        """Refuse to resume what has its name: it was complete, if it is ours; the files do not say whose they are."""
        if all(layer.path.exists() for layer in self.layers.values()):
            raise ConfigError(
                "the target is there already",
                subject=self.note.parent,
                expected="an unfinished result (.part)",
                found=", ".join(layer.path.name for layer in self.layers.values()) + " under their own names",
                hint="if an earlier run wrote them they are complete; else delete them, or choose other names",
            )

    def _check_free(self) -> None:
        for layer in self.left.values():
            check_free(layer.path)

    def _unfinished(self) -> list[Path]:
        """What an earlier call has left; a note of files that were deleted says nothing."""
        partial = [layer.partial for layer in self.layers.values() if layer.partial.exists()]
        noted = self.note.exists() and (partial or any(layer.path.exists() for layer in self.layers.values()))
        return [*partial, *([self.note] if noted else [])]

    def _done(self, resume: bool) -> int:
        if not resume:
            raise ConfigError(
                "an unfinished result is there",
                subject=self.note.parent,
                found=", ".join(path.name for path in self._unfinished()),
                hint="go on with resume=True (unetzoo stream --resume), or delete it",
            )
        try:
            note = json.loads(self.note.read_text())
            done, recipe, sizes = int(note["rows"]), note["recipe"], dict(note["bytes"])
        except (OSError, ValueError, TypeError, KeyError):
            return 0  # ended before the first rows were noted
        if recipe != self.recipe:
            other = [key for key in self.recipe if not isinstance(recipe, dict) or recipe.get(key) != self.recipe[key]]
            raise ConfigError(
                "the unfinished result is of another kind",
                subject=self.note.with_suffix(""),
                found=f"another {', '.join(other)}",
                hint="go on with the same network, source and options, or delete it",
            )
        height = next(iter(self.layers.values())).shape[0]
        left = self.layers
        if done == height:  # it may have ended between one name and the next
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


def check_free(path: Path) -> None:
    """Whether a result may be written here.

    Raises:
        ConfigError: Another kind of file, something of that name, no such folder.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            "cannot write this kind of file",
            subject=path,
            expected=", ".join(SUFFIXES),
            found=path.suffix or "no suffix",
        )
    if path.exists():
        raise ConfigError("the target is there already", subject=path, hint="delete it, or choose another name")
    if not path.parent.is_dir():
        raise ConfigError("no such folder", subject=path.parent, hint="make it, or choose another")


class _Rows(NamedTuple):
    """Values in rows, one after the other."""

    offset: int
    row: int

    def write(self, file: Any, start: int, band: np.ndarray) -> None:
        _put(file, self.offset + start * self.row, band)


class _Tiles(NamedTuple):
    """Values in square tiles, each at its place."""

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
    """A file of the final size, with room for it taken."""
    if layer.path.suffix.lower() == ".npy":
        with open(layer.partial, "wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(layer.dtype), "fortran_order": False, "shape": layer.shape}
            np.lib.format.write_array_header_2_0(file, header)
            file.truncate(file.tell() + _bytes(layer))
    else:
        with tifffile.TiffWriter(layer.partial, bigtiff=_bytes(layer) > 2**31) as file:
            file.write(
                None, shape=layer.shape, dtype=layer.dtype, tile=(TILE, TILE), photometric="minisblack", metadata=None
            )
    if hasattr(os, "posix_fallocate"):
        with open(layer.partial, "r+b") as file:
            _reserve(file.fileno())


def _reserve(file: int) -> None:
    try:
        os.posix_fallocate(file, 0, os.fstat(file).st_size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # file systems that cannot
            raise


def _place(layer: Layer) -> _Rows | _Tiles:
    if layer.path.suffix.lower() == ".npy":
        row = int(np.prod(layer.shape[1:])) * layer.dtype.itemsize
        return _Rows(layer.partial.stat().st_size - layer.shape[0] * row, row)
    with tifffile.TiffFile(layer.partial) as file:
        return _Tiles(tuple(file.pages.first.dataoffsets), -(-layer.shape[1] // TILE))


def _bytes(layer: Layer) -> int:
    return int(np.prod(layer.shape, dtype=np.int64)) * layer.dtype.itemsize
