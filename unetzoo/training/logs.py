"""Read and write the log of a run, one row per epoch, as JSONL and CSV."""

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
    """Return the names in rows in order of first appearance, so that later names never move earlier ones.

    Examples:
        >>> columns_of([{"epoch": 1, "miou": 0.5}, {"epoch": 2, "iou/car": 0.1, "miou": 0.6}])
        ['epoch', 'miou', 'iou/car']
    """
    return list(dict.fromkeys(name for row in rows for name in row))


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a row for JSON: numbers that are not finite become None.

    Examples:
        >>> plain({"miou": 0.5, "iou/car": float("nan")})
        {'miou': 0.5, 'iou/car': None}
    """
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in row.items()}


def as_jsonl(rows: Sequence[Mapping[str, float]]) -> str:
    """Format rows as JSON, one line per row; undefined scores are null."""
    return "".join(json.dumps(plain(row)) + "\n" for row in rows)


def as_csv(rows: Sequence[Mapping[str, float]]) -> str:
    r"""Format rows as CSV with a header. Missing values are empty, undefined scores are `nan`.

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
    """Content of a log.

    Args:
        rows: The complete rows; null values are NaN.
        broken: Numbers of the lines that are not JSON objects, such as a last line cut off when the writer was killed.
        lines: Number of lines.
    """

    rows: list[dict[str, Any]]
    broken: list[int]
    lines: int


def read_jsonl(path: str | Path) -> Written:
    """Read a log of one JSON object per line, as written by `as_jsonl`.

    Raises:
        DataError: The file cannot be read.
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
