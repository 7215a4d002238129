"""The bands of rows that the shards of `predict_to` write, and joining them and their objects to the whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from .. import io
from ..errors import ConfigError
from .joining import ObjectJoiner, strips
from .resumable_writer import Layer, ResumableWriter, check_free, note_of
from .shards import Shard

Rows = Callable[[int, int], np.ndarray]  # from one row to another
JOINED = {"joined": True}  # in the note of the first band
FULL = "make room, then continue with resume=True (unetzoo stream --resume)"


class Bands:
    """Where a shard writes its rows: to the targets if it is the whole, else to `<target>.3-of-16.npy`.

    Objects need the whole image, so that one shard then also writes a band, `<target>.1-of-1.npy`. A band is complete
    once `<target>.3-of-16.json`, which identifies the run, and its arrays have these names.

    Args:
        shard: The shard.
        paths: The targets, by content.
        recipe: Everything that determines the content.
        objects: How objects are found, if there is a target for "instances".
    """

    def __init__(
        self, shard: Shard, paths: Mapping[str, Path], recipe: Mapping[str, Any], objects: ObjectJoiner | None = None
    ) -> None:
        self.shard, self.paths, self.objects = shard, dict(paths), objects
        self.in_parts = shard.total > 1 or objects is not None
        shape, dtype, *stamp = recipe["source"]
        free = {"outputs", *(["tile"] if recipe["blend"] == "exact" else [])}  # may differ between machines
        shared = {key: value for key, value in recipe.items() if key not in free}
        self.identity = json.loads(json.dumps(shared | {"source": [shape, dtype, *stamp[1:]], "shards": shard.total}))

    def layers(self, layers: Mapping[str, Layer]) -> dict[str, Layer]:
        """Return the files of the shard.

        Raises:
            ConfigError: A target exists already, or cannot be written; the band is complete.
        """
        if not self.in_parts:
            return dict(layers)
        if self.is_complete(self.shard.number):
            raise ConfigError("there is an unfinished result", subject=self.paths["classes"].parent,
                              found=self._note(self.shard).name,
                              hint="continue it with resume=True (unetzoo stream --resume), or delete it")  # fmt: skip
        for layer in layers.values():
            check_free(layer.path)
        if self.objects is not None and table_of(self.paths["instances"]).exists():
            raise ConfigError("the target exists already", subject=table_of(self.paths["instances"]),
                              hint="delete it, or choose another name")  # fmt: skip
        rows = len(self.shard.rows(next(iter(layers.values())).shape[0]))
        return {
            name: Layer(part_of(layer.path, self.shard), (rows, *layer.shape[1:]), layer.source or layer.dtype)
            for name, layer in layers.items()
        }

    def is_complete(self, number: int) -> bool:
        """Whether a shard of the same run is complete."""
        shard = self.shard._replace(number=number)
        return self._noted(shard) == self.identity and all(part_of(p, shard).exists() for p in self.paths.values())

    def are_joined(self) -> bool:
        """Whether the targets of this run are complete, but the bands may not all be removed."""
        return self._noted(self.shard._replace(number=1)) == self.identity | JOINED

    def finish(self, writer: ResumableWriter) -> None:
        """Give a complete band its names.

        Raises:
            ConfigError: As for `ResumableWriter.finish`.
        """
        if self.in_parts:
            with io.disk_errors(self.paths["classes"].parent, ConfigError, what="cannot write the results"):
                _write(self._note(self.shard), io.as_json(self.identity))
        writer.finish()

    def join(self, layers: Mapping[str, Layer]) -> None:
        """Write the targets and remove the bands, if all of them are complete.

        Raises:
            ConfigError: The disk is full, or objects are too large for the memory. Resuming any shard continues.
        """
        if not self.in_parts:
            return
        lock = FileLock(part_of(self.paths["classes"], self.shard._replace(number=0)).with_suffix(".lock"))
        with lock:
            if all(self.is_complete(shard.number) for shard in self._shards()):
                self._join(layers)
            joined = self.are_joined()
            if joined:
                for shard in self._shards():
                    for path in self.paths.values():
                        part_of(path, shard).unlink(missing_ok=True)
        Path(lock.lock_file).unlink(missing_ok=True)
        if joined:
            for shard in reversed(self._shards()):  # so that an interruption can be resumed
                note_of(part_of(self.paths["classes"], shard)).unlink(missing_ok=True)
                self._note(shard).unlink(missing_ok=True)

    def _join(self, layers: Mapping[str, Layer]) -> None:
        height, width = layers["classes"].shape
        parts = [
            (rows, {name: np.load(part_of(path, shard), mmap_mode="r") for name, path in self.paths.items()})
            for shard in self._shards() if len(rows := shard.rows(height))
        ]  # fmt: skip

        def read(name: str, start: int, stop: int) -> np.ndarray:
            inside = [(rows, arrays[name]) for rows, arrays in parts if rows.start < stop and rows.stop > start]
            return np.concatenate([band[max(start - r.start, 0) : stop - r.start] for r, band in inside])

        writer = ResumableWriter(layers, self.identity, resume=True)
        with ExitStack() as stack:
            reads: dict[str, Rows] = {name: partial(read, name) for name in layers}
            if self.objects is not None:
                path = self.paths["instances"]
                with io.disk_errors(path, ConfigError, what="cannot write the results", full=FULL):
                    found = self.objects.join(read, (height, width), stack, path.parent)
                    write_table(table_of(path), found.table)
                reads["instances"] = found.numbers
            for start, stop in strips(height, width):
                if stop > writer.done:
                    writer.write(start, {name: rows(start, stop) for name, rows in reads.items()})
        writer.finish()
        _write(self._note(self.shard._replace(number=1)), io.as_json(self.identity | JOINED))

    def _shards(self) -> list[Shard]:
        return [self.shard._replace(number=number) for number in range(1, self.shard.total + 1)]

    def _noted(self, shard: Shard) -> Any:
        try:
            return json.loads(self._note(shard).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _note(self, shard: Shard) -> Path:
        return part_of(self.paths["classes"], shard).with_suffix(".json")


def part_of(path: Path, shard: Shard) -> Path:
    """Return the file of a shard's rows of a target.

    Examples:
        >>> part_of(Path("classes.tif"), Shard(3, 16)).name
        'classes.tif.3-of-16.npy'
    """
    return path.with_name(f"{path.name}.{shard}.npy")


def table_of(path: Path) -> Path:
    """Return the file of the table of the objects in a label image."""
    return path.with_suffix(".csv")


def write_table(path: Path, text: str) -> None:
    """Write the table of objects, unless an interrupted call has.

    Raises:
        ConfigError: There is another file of that name.
    """
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise ConfigError("the target exists already", subject=path, hint="move it, then continue with resume=True")
    _write(path, text)


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".part")  # one name, so that a kill leaves at most one file
    io.DISK.write(partial, text.encode())
    io.DISK.rename(partial, path)
    io.DISK.sync(path.parent)
