"""Read run folders of finished, unfinished, or interrupted runs."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..training.collapse import reported_states
from ..training.folders import FOLDS
from ..training.logs import read_jsonl
from ..training.recipe import saved_recipe


@dataclass(frozen=True)
class SavedRun:
    """Contents of a run folder.

    Args:
        folder: The folder.
        name: Name to display.
        recipe: The resolved recipe.
        history: One row per epoch.
        planned: Number of epochs in the recipe; None if it counts steps.
        finished: Whether the run has ended, including by early stopping.
        parameters: Number of parameters of the network; None if unknown.
        classes: Names of the classes; empty if unknown.
        collapsed: Description of what the predictions have collapsed to; empty if they have not.
        torn: Whether the last line of the log is cut off.
        intervals: 95% intervals of the best network's scores.
        images: Rows of `images.csv` by name; empty if the run has not ended, or they cannot be read.
        pooled: Of folds: scores of all images, each predicted by the network that was not trained on it.
    """

    folder: Path
    name: str
    recipe: Mapping[str, Any]
    history: list[dict[str, float]]
    planned: int | None
    finished: bool
    parameters: int | None
    classes: tuple[str, ...]
    collapsed: str
    torn: bool
    intervals: Mapping[str, Sequence[float]] = field(default_factory=dict)
    images: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    pooled: Mapping[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Total time of all epochs, evaluation included."""
        return math.fsum(value for row in self.history if math.isfinite(value := row.get("seconds", math.nan)))

    def part(self, section: str, key: str = "name") -> Any:
        """Return a value of the recipe, or None if it is not set."""
        table = self.recipe.get(section)
        return table.get(key) if isinstance(table, Mapping) else None

    def values(self, name: str) -> list[float]:
        """Return the values of a score, one per epoch."""
        return [row.get(name, math.nan) for row in self.history]


def read_run(folder: str | Path) -> SavedRun:
    """Read a run folder.

    Raises:
        ConfigError: The folder is not a run folder, or its recipe cannot be read, even from a checkpoint.
        DataError: The log is damaged.
    """
    folder = Path(folder)
    if (folder / FOLDS).is_file():
        return _read_folds(folder)
    recipe = saved_recipe(folder)
    log = read_jsonl(folder / "metrics.jsonl") if (folder / "metrics.jsonl").exists() else None
    if log and any(number < log.lines for number in log.broken):
        raise DataError(
            "not a log", subject=folder / "metrics.jsonl", expected="one JSON object per line",
            found=f"something else in line {log.broken[0]}",
        )  # fmt: skip
    history = [{name: _value(value) for name, value in row.items()} for row in log.rows] if log else []
    names = _json(folder / "labels.json").get("names")
    scores = _json(folder / "scores.json")
    finished = bool(history) and scores.get("epochs") == len(history)
    parameters = _json(folder / "environment.json").get("parameters")
    return SavedRun(
        folder=folder,
        name=folder.resolve().name,
        recipe=recipe,
        history=history,
        planned=_planned(recipe),
        finished=finished,
        parameters=parameters if isinstance(parameters, int) else None,
        classes=tuple(map(str, names)) if isinstance(names, list) else (),
        collapsed=_collapsed(folder, len(history)),
        torn=bool(log and log.broken),
        intervals=(scores.get("intervals") or {}) if finished else {},
        images=_images(folder / "images.csv") if finished else {},  # else of an earlier end of the run
    )


def _read_folds(folder: Path) -> SavedRun:
    """Read all folds as one run: mean curves, pooled scores, and the scores of all images."""
    runs = [read_run(run) for run in sorted(folder.glob("fold-*")) if (run / "recipe.json").exists()]
    if not runs:
        raise DataError("no fold is trained yet", subject=folder, hint="train them with --resume")
    scores, first = _json(folder / "scores.json"), runs[0]
    history = [
        {name: math.fsum(row.get(name, math.nan) for row in rows) / len(rows) for name in rows[0]}
        for rows in zip(*(run.history for run in runs), strict=False)
    ]
    data = {key: value for key, value in dict(first.recipe.get("data") or {}).items() if key != "fold"}
    pooled = {name: _value(value) for name, value in (scores.get("pooled") or {}).items()}
    return replace(
        first,
        folder=folder,
        name=folder.resolve().name,
        recipe={**first.recipe, "data": data},
        history=history,
        finished=bool(pooled) and all(run.finished for run in runs),
        collapsed=", ".join(dict.fromkeys(run.collapsed for run in runs if run.collapsed)),
        torn=any(run.torn for run in runs),
        intervals=scores.get("intervals") or {},
        images=_images(folder / "images.csv") if pooled else {},
        pooled=pooled,
    )


def _planned(recipe: Mapping[str, Any]) -> int | None:
    train = recipe.get("train")
    train = train if isinstance(train, Mapping) else {}
    stages = train.get("stages")
    tables = stages if isinstance(stages, list) and stages else [train]
    lengths = [table.get("epochs") for table in tables if isinstance(table, Mapping)]
    known = [length for length in lengths if isinstance(length, int)]
    return sum(known) if len(known) == len(tables) else None


def _collapsed(folder: Path, epochs: int) -> str:
    try:
        states = reported_states(read_jsonl(folder / "events.jsonl").rows, epochs)
    except DataError:  # there were no events
        return ""
    return ", ".join(state for state in states.values() if state)


def _images(path: Path) -> dict[str, dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {row["name"]: row for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, csv.Error):
        return {}


def _json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; empty if it cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _value(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
