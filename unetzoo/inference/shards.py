"""Divide a prediction among several machines, and collect what they find out about each image."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..errors import ConfigError

FOLDER = "shards"  # of the records, in the folder of the results
T = TypeVar("T")


class Shard(NamedTuple):
    """One of several equal parts of a prediction, counted from 1.

    Examples:
        >>> Shard.of("2/3").take("abcdefg"), Shard.of((2, 3)).rows(100)
        ('be', range(33, 66))
    """

    number: int = 1
    total: int = 1

    @classmethod
    def of(cls, given: str | Sequence[int] | None) -> Shard:
        """Parse `"3/16"` or (3, 16); None is the whole.

        Raises:
            ConfigError: Not a shard.
        """
        if given is None:
            return cls()
        parts = given.split("/") if isinstance(given, str) else [str(number) for number in given]
        if len(parts) == 2 and all(part.isdecimal() for part in parts) and 1 <= int(parts[0]) <= int(parts[1]):
            return cls(int(parts[0]), int(parts[1]))
        raise ConfigError("wrong shard", expected="K/N with 1 ≤ K ≤ N, e.g. 3/16", found=given)

    def take(self, items: Sequence[T]) -> Sequence[T]:
        """Return every `total`-th item, so that neighbors, which are often alike, are divided evenly."""
        return items[self.number - 1 :: self.total]

    def rows(self, height: int) -> range:
        """Return a band of an image's rows."""
        return range((self.number - 1) * height // self.total, self.number * height // self.total)

    def __str__(self) -> str:
        return f"{self.number}-of-{self.total}"


class Records:
    """What is known of each image, one JSON line each. May be used from several threads.

    The records of a shard, or of a run that can be resumed, are kept in `shards/` in the folder of the results;
    others are in a temporary file.

    Args:
        folder: Folder of the results.
        shard: The shard.
        recipe: Everything that determines the results; None for records that are not kept.
        resume: Continue the records of an earlier call with the same recipe.
        only_read: Read the records of a shard that another process may be writing.

    Raises:
        ConfigError: The records belong to another run.
        OSError: The folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        shard: Shard,
        recipe: Mapping[str, Any] | None = None,
        resume: bool = False,
        *,
        only_read: bool = False,
    ) -> None:
        self.folder, self.shard = folder / FOLDER, shard
        self.recipe = json.loads(json.dumps(recipe))
        self.places: dict[int, int] = {}  # where the line of each image starts
        self.finished = False
        self._lock = threading.Lock()
        if recipe is None:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)
            return
        path = self._path(shard.number)
        if only_read:
            self._file = open(path, "rb")
            self._read(path)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "r+b" if resume and path.exists() else "w+b")
        end = self._read(path)
        self._file.truncate(end)  # a kill may have left a part of a line
        if not end:
            self._append(self.recipe)

    def _path(self, number: int) -> Path:
        return self.folder / f"{Shard(number, self.shard.total)}.jsonl"

    def _read(self, path: Path) -> int:
        """Find the complete lines, and return where they end."""
        place, recipe = 0, None
        for line in self._file:
            try:
                content = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                content = None
            if content is None:
                break
            if place == 0:
                recipe = content
            elif "image" in content:
                self.places[content["image"]] = place
            self.finished = "finished" in content
            place += len(line)
        if recipe is not None and recipe != self.recipe:
            other = [key for key in self.recipe if recipe.get(key) != self.recipe[key]]
            self._file.close()
            raise ConfigError(
                "the results belong to another run",
                subject=path,
                found=f"different {', '.join(other)}",
                hint="choose another folder for the results, or start anew without resume",
            )
        return place

    def _append(self, content: Any) -> int:
        with self._lock:
            place = self._file.seek(0, 2)
            self._file.write(json.dumps(content).encode() + b"\n")
            self._file.flush()
        return place

    def add(self, number: int, path: Path, record: Mapping[str, Any]) -> None:
        """Add the record of an image, numbered among all images.

        Raises:
            OSError: The disk is full.
        """
        self.places[number] = self._append({"image": number, "stamp": _stamp(path), **record})

    def knows(self, number: int, path: Path) -> bool:
        """Whether there is a record of an image, whose file has not changed since."""
        return number in self.places and self[number]["stamp"] == _stamp(path)

    def __getitem__(self, number: int) -> dict[str, Any]:
        with self._lock:
            self._file.seek(self.places[number])
            return json.loads(self._file.readline())

    def finish(self) -> None:
        """Note that the shard is complete."""
        if self.recipe is not None:
            self._append({"finished": True})
        self.finished = True

    def close(self) -> None:
        """Close the file; a temporary one is removed."""
        self._file.close()

    def all_shards(self, stack: ExitStack) -> list[Records]:
        """Return the records of all shards of this run, or none if some are not finished.

        Args:
            stack: Closes them.
        """
        found: list[Records] = [self]
        for number in range(1, self.shard.total + 1):
            if number == self.shard.number:
                continue
            with suppress(ConfigError):
                if self._path(number).exists():
                    one = Shard(number, self.shard.total)
                    other = Records(self.folder.parent, one, self.recipe, only_read=True)
                    stack.callback(other.close)
                    found += [other] if other.finished else []
        return found if len(found) == self.shard.total else []


def in_order(shards: Sequence[Records], key: str) -> Iterator[tuple[int, Any]]:
    """Yield the number and one entry of each image's record, in the order of the images."""
    places = sorted((number, place) for place, records in enumerate(shards) for number in records.places)
    return ((number, shards[place][number][key]) for number, place in places)


def _stamp(path: Path) -> list[int] | None:
    """Size and time of a file; None if there is none."""
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return [facts.st_size, facts.st_mtime_ns]
