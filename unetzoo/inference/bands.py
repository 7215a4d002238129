"""The bands of rows that the shards of `predict_to` write, and joining them to the whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from .. import io
from ..errors import ConfigError
from .resumable_writer import Layer, ResumableWriter, check_free
from .shards import Shard

ROWS = 512  # that are copied at once


class Bands:
    """Where a shard writes its rows: to the targets if it is the whole, else to `<target>.3-of-16.npy`.

    A band is complete once `<target>.3-of-16.json`, which identifies the run, and its arrays have these names.

    Args:
        shard: The shard.
        paths: The targets, by content.
        recipe: Everything that determines the content.
    """

    def __init__(self, shard: Shard, paths: Mapping[str, Path], recipe: Mapping[str, Any]) -> None:
        self.shard, self.paths = shard, dict(paths)
        shape, dtype, *stamp = recipe["source"]
        free = {"outputs", *(["tile"] if recipe["blend"] == "exact" else [])}  # may differ between machines
        shared = {key: value for key, value in recipe.items() if key not in free}
        self.identity = json.loads(json.dumps(shared | {"source": [shape, dtype, *stamp[1:]], "shards": shard.total}))

    def layers(self, layers: Mapping[str, Layer]) -> dict[str, Layer]:
        """Return the files of the shard.

        Raises:
            ConfigError: A target exists already, or cannot be written.
        """
        if self.shard.total == 1:
            return dict(layers)
        for layer in layers.values():
            check_free(layer.path)
        rows = len(self.shard.rows(next(iter(layers.values())).shape[0]))
        return {
            name: Layer(part_of(layer.path, self.shard), (rows, *layer.shape[1:]), layer.dtype)
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
        if self.shard.total > 1:
            with io.disk_errors(self.paths["classes"].parent, ConfigError, what="cannot write the results"):
                io.write_json(self._note(self.shard), self.identity)
        writer.finish()

    def join(self, layers: Mapping[str, Layer]) -> None:
        """Write the targets and remove the bands, if all of them are complete.

        Raises:
            ConfigError: The disk is full. Resuming any shard continues.
        """
        shards = [self.shard._replace(number=number) for number in range(1, self.shard.total + 1)]
        if len(shards) == 1:
            return
        lock = FileLock(part_of(self.paths["classes"], self.shard._replace(number=0)).with_suffix(".lock"))
        with lock:
            if not all(self.is_complete(shard.number) for shard in shards):
                return
            writer = ResumableWriter(layers, self.identity, resume=True)
            for shard in shards:
                rows = shard.rows(next(iter(layers.values())).shape[0])
                parts = {
                    name: np.load(part_of(layer.path, shard), mmap_mode="r")
                    for name, layer in layers.items() if len(rows)
                }  # fmt: skip
                for start in range(max(rows.start, writer.done), rows.stop, ROWS):
                    taken = slice(start - rows.start, min(start + ROWS, rows.stop) - rows.start)
                    writer.write(start, {name: part[taken] for name, part in parts.items()})
            writer.finish()
            for shard in shards:
                for path in (*(part_of(path, shard) for path in self.paths.values()), self._note(shard)):
                    path.unlink(missing_ok=True)
        Path(lock.lock_file).unlink(missing_ok=True)

    def _note(self, shard: Shard) -> Path:
        return part_of(self.paths["classes"], shard).with_suffix(".json")


def part_of(path: Path, shard: Shard) -> Path:
    """Return the file of a shard's rows of a target; the target itself if the shard is the whole.

    Examples:
        >>> part_of(Path("classes.tif"), Shard(3, 16)).name
        'classes.tif.3-of-16.npy'
    """
    return path if shard.total == 1 else path.with_name(f"{path.name}.{shard}.npy")
