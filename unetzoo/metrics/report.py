"""Reports of scores: tables for the terminal, and JSON files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from rich.table import Table
from rich.text import Text

from .saved import write_json
from .scores import FORMULAS

OF_CLASSES = (*FORMULAS, "hausdorff", "hd95", "assd", "nsd", "images", "missed", "invented")
AVERAGES = ("micro", "macro", "weighted", "one_vs_rest", "defined")


def tables(scores: Mapping[str, float], baseline: Mapping[str, float] | None = None) -> list[Table]:
    """Build tables of flat scores: overall scores, averages over classes, and one row per class.

    Args:
        scores: Result of a metric's `compute` or the Trainer's `evaluate`.
        baseline: Scores to show next to the overall scores and the IoU of each class.

    Examples:
        >>> [table.row_count for table in tables({"miou": 0.5, "micro/iou": 0.6, "iou/road": 0.7, "iou/car": 0.3})]
        [1, 1, 2]
    """
    whole: dict[str, float] = {}
    averages: dict[str, dict[str, float]] = {}
    classes: dict[str, dict[str, float]] = {}
    for key, value in scores.items():
        kind, _, name = key.partition("/")
        part, _, of = name.partition("/")
        if kind in OF_CLASSES and name:
            classes.setdefault(name, {})[kind] = value
            whole |= {key: value} if baseline and kind == "iou" else {}
        elif kind == "image" and of:
            classes.setdefault(of, {})[f"image {part}"] = value
        elif kind in AVERAGES and name in FORMULAS:
            averages.setdefault(kind, {})[name] = value
        else:
            whole[key] = value
    first = Table("score", "network", *(["baseline"] if baseline else []), box=None)
    for key, value in whole.items():
        beside = [_shown(key, baseline[key]) if key in baseline else ""] if baseline else []
        first.add_row(Text(key), _shown(key, value), *beside)
    return [first, *(_table(what, rows) for what, rows in (("average", averages), ("class", classes)) if rows)]


def write_scores(scores: dict[str, float], folder: str | Path) -> dict[str, float]:
    """Write scores.json and return the scores.

    Raises:
        DataError: A folder that cannot be written to.
    """
    plain = {key: value if math.isfinite(value) else None for key, value in scores.items()}
    write_json(Path(folder) / "scores.json", plain)
    return scores


def _table(what: str, rows: Mapping[str, Mapping[str, float]]) -> Table:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    table = Table(what, box=None)
    for column in columns:
        table.add_column(Text(column))
    for name, row in rows.items():
        cells = (
            _shown(name if name == "defined" else column, row[column]) if column in row else "" for column in columns
        )
        table.add_row(Text(name), *cells)
    return table


def _shown(key: str, value: float) -> str:
    counts = ("defined", "count", "images", "missed", "invented", "pixels")
    if any(word in key.replace("_", "/").split("/") for word in counts):
        return f"{value:,.0f}"
    return "–" if math.isnan(value) else f"{value:.4f}"
