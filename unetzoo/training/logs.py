"""The log of a run, one row per epoch, as JSONL and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DataError


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
    """One line per row; a score that is not defined is null."""
    return "".join(json.dumps(plain(row)) + "\n" for row in rows)


def as_csv(rows: Sequence[Mapping[str, float]]) -> str:
    r"""A header and one line per row; empty where a row lacks a column, `nan` where a score is not defined.

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
