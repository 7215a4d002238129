"""The bands of rows that the shards of `predict_to` write, and joining them and their objects to the whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from .. import io
from ..errors import ConfigError
from .joining import ObjectJoiner, strips
from .resumable_writer import Layer, ResumableWriter, check_free
from .shards import Shard

Rows = Callable[[int, int], np.ndarray]  # from one row to another
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
        try:
            same = json.loads(self._note(shard).read_text(encoding="utf-8")) == self.identity
        except (OSError, ValueError):
            return False
        return same and all(part_of(path, shard).exists() for path in self.paths.values())

    def finish(self, writer: ResumableWriter) -> None:
        """Give a complete band its names.

        Raises:
            ConfigError: As for `ResumableWriter.finish`.
        """
        if self.in_parts:
            with io.disk_errors(self.paths["classes"].parent, ConfigError, what="cannot write the results"):
                io.write_json(self._note(self.shard), self.identity)
        writer.finish()

    def join(self, layers: Mapping[str, Layer]) -> None:
        """Write the targets and remove the bands, if all of them are complete.

        Raises:
            ConfigError: The disk is full, or objects are too large for the memory. Resuming any shard continues.
        """
        if not self.in_parts:
            return
        shards = [self.shard._replace(number=number) for number in range(1, self.shard.total + 1)]
        lock = FileLock(part_of(self.paths["classes"], self.shard._replace(number=0)).with_suffix(".lock"))
        with lock:
            if all(self.is_complete(shard.number) for shard in shards):
                self._join(layers, shards)
        Path(lock.lock_file).unlink(missing_ok=True)

    def _join(self, layers: Mapping[str, Layer], shards: Sequence[Shard]) -> None:
        height, width = layers["classes"].shape
        parts = [
            (rows, {name: np.load(part_of(path, shard), mmap_mode="r") for name, path in self.paths.items()})
            for shard in shards if len(rows := shard.rows(height))
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
        for shard in shards:
            for path in (*(part_of(path, shard) for path in self.paths.values()), self._note(shard)):
                path.unlink(missing_ok=True)

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
    io.write_text(path, text)
