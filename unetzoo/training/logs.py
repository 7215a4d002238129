"""The log of a run, a row an epoch: JSONL and CSV beside each other, and TensorBoard where it is asked for."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError

Row = dict[str, float]
Image = NDArray[np.uint8]


class Log(Protocol):
    """What a Trainer tells of its run while it trains; give it such objects as `logs=`."""

    def begin(self, step: int) -> None:
        """The run begins, or goes on after so many optimizer steps: what was told of later ones no longer counts."""

    def row(self, row: Mapping[str, float], step: int) -> None:
        """The scores of one more epoch."""

    def images(self, images: Mapping[str, Image], step: int) -> None:
        """Samples beside their predictions, uint8 (H, W, 3), by name."""

    def say(self, event: str, text: str, step: int) -> None:
        """Something a reader should know."""

    def close(self) -> None:
        """The run ends."""


class TensorBoard:
    """Scalars, images and warnings of a run for TensorBoard, over optimizer steps.

    Args:
        folder: Where the event files are written; made when the run begins.

    Raises:
        ConfigError: TensorBoard is not installed.

    Examples:
        >>> TensorBoard("runs/demo/tensorboard").folder.name
        'tensorboard'
    """

    def __init__(self, folder: str | Path) -> None:
        if find_spec("tensorboard") is None:
            raise ConfigError(
                "TensorBoard is not installed",
                subject="train.tensorboard",
                hint="pip install unetzoo[log], or --set train.tensorboard=false",
            )
        self.folder = Path(folder)
        self._writer: Any = None

    def begin(self, step: int) -> None:
        """Open the event file; what a killed run told of steps after `step` is hidden."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self.folder), purge_step=step + 1 if step else None)

    def row(self, row: Mapping[str, float], step: int) -> None:
        """Every score that is a number."""
        for name, value in row.items():
            if math.isfinite(value):
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def images(self, images: Mapping[str, Image], step: int) -> None:
        """Under `samples/<name>`."""
        for name, image in images.items():
            self._writer.add_image(f"samples/{name}", image, step, dataformats="HWC")

    def say(self, event: str, text: str, step: int) -> None:
        """As a text."""
        self._writer.add_text(event, text.replace("\n", "  \n"), step)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def columns_of(rows: Iterable[Mapping[str, float]]) -> list[str]:
    """The names in rows, in the order in which they first appear: a later one never moves the others.

    Examples:
        >>> columns_of([{"epoch": 1, "miou": 0.5}, {"epoch": 2, "iou/car": 0.1, "miou": 0.6}])
        ['epoch', 'miou', 'iou/car']
    """
    return list(dict.fromkeys(name for row in rows for name in row))


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON has it: what is not a finite number becomes None.

    Examples:
        >>> plain({"miou": 0.5, "iou/car": float("nan")})
        {'miou': 0.5, 'iou/car': None}
    """
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in row.items()}


def as_jsonl(rows: Sequence[Mapping[str, float]]) -> str:
    """A line a row; a score that is not defined is null."""
    return "".join(json.dumps(plain(row)) + "\n" for row in rows)


def as_csv(rows: Sequence[Mapping[str, float]]) -> str:
    r"""A header and a line a row; empty where a row lacks a column, `nan` where a score is not defined.

    Examples:
        >>> as_csv([{"epoch": 1.0}, {"epoch": 2.0, "iou/car": float("nan")}])
        'epoch,iou/car\n1.0,\n2.0,nan\n'
    """
    text = io.StringIO()
    table = csv.DictWriter(text, columns_of(rows), restval="", lineterminator="\n")
    if rows:
        table.writeheader()
    table.writerows(rows)
    return text.getvalue()


class Written(NamedTuple):
    """What was read of a log.

    Args:
        rows: The whole rows; values that are null are NaN.
        broken: Numbers of the lines that are no JSON objects: a last line that a killed writer cut off, for one.
        lines: How many lines there are.
    """

    rows: list[dict[str, Any]]
    broken: list[int]
    lines: int


def read_jsonl(path: str | Path) -> Written:
    """Read a log that `as_jsonl`, or anything that appends JSON objects line by line, wrote.

    Raises:
        DataError: A file that cannot be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError("cannot read the log", subject=path, found=str(error)) from error
    lines = text.removesuffix("\n").split("\n") if text else []
    rows: list[dict[str, Any]] = []
    broken: list[int] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append({name: math.nan if value is None else value for name, value in row.items()})
        else:
            broken.append(number)
    return Written(rows, broken, len(lines))
