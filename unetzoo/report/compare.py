"""Compare runs: loss and score curves in one figure, scores and differing settings in one table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError, did_you_mean
from ..io import write_json
from ..training.logs import columns_of, plain
from ..training.resume import flat
from ..wording import pluralize
from .curves import ASIDE, COUNTS, Chart, is_better_smaller
from .image_scores import FEWEST, Paired
from .plots import figure, save
from .runs import SavedRun

IRRELEVANT = (
    "name",
    "train",
    "val",
    "root",
    "cache",
    "border_weights",
    "repeat",
    "balance",
)  # settings that do not affect scores


@dataclass(frozen=True)
class Standing:
    """The values of one run for the score of a comparison.

    Args:
        run: The run.
        best: The best value; NaN if there is none.
        epoch: Epoch of the best value, counted from 1; 0 if there is none.
        last: Value of the last epoch.
        metric: The score.
    """

    run: SavedRun
    best: float
    epoch: int
    last: float
    metric: str = ""

    @classmethod
    def of(cls, run: SavedRun, metric: str, *, smaller: bool) -> Standing:
        """Rate a run by a score; of folds, by the pooled one."""
        values = run.values(metric)
        if math.isfinite(pooled := run.pooled.get(metric, math.nan)):
            return cls(run, pooled, 0, values[-1] if values else math.nan, metric)
        finite = [(value, -place) for place, value in enumerate(values) if math.isfinite(value)]
        if not finite:
            return cls(run, math.nan, 0, math.nan)
        best, place = min(finite, key=lambda e: (e[0], -e[1])) if smaller else max(finite)
        return cls(run, best, 1 - place, values[-1], metric)

    @property
    def interval(self) -> Sequence[float] | None:
        """The 95% interval of the best value, if the run has one."""
        return self.run.intervals.get(self.metric)

    @property
    def state(self) -> str:
        """The progress of the run, as text."""
        seen = len(self.run.history)
        planned = f"{seen} of {pluralize(self.run.planned, 'epoch')}" if self.run.planned else pluralize(seen, "epoch")
        done = "finished" if self.run.finished else f"unfinished, {planned}"
        return done + (f", collapsed to {self.run.collapsed}" if self.run.collapsed else "")


@dataclass(frozen=True)
class Comparison:
    """A comparison of runs.

    Args:
        metric: The score by which runs are compared.
        standings: One per run, in the given order.
        differences: Settings in which the recipes differ, with one value per run; None if not set.
        warnings: Reasons why the scores may not be comparable.
        paired: The first run against each other run on the same images, by the name of the other.
    """

    metric: str
    standings: list[Standing]
    differences: dict[str, list[Any]]
    warnings: list[str]
    paired: dict[str, Paired] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison and its curves as JSON-serializable values."""
        return {
            "metric": self.metric,
            "warnings": self.warnings,
            "runs": [self._described(standing) for standing in self.standings],
            "differences": self.differences,
            "paired": {name: plain(asdict(paired)) for name, paired in self.paired.items()},
        }

    def charts(self) -> list[Chart]:
        """Return charts of loss and score of all runs, with one color per run and dashed lines for training."""
        runs = [standing.run for standing in self.standings]
        losses: dict[str, list[float]] = {}
        colors: dict[str, int] = {}
        for place, run in enumerate(runs):
            for split in ("train", "val"):
                if any(map(math.isfinite, values := run.values(f"{split}/loss"))):
                    losses[f"{run.name} ({split})"], colors[f"{run.name} ({split})"] = values, place
        dashed = frozenset(name for name in losses if name.endswith("(train)"))
        scores = Chart(self.metric, {run.name: run.values(self.metric) for run in runs})
        return [Chart("Loss", losses, colors=colors, dashed=dashed), scores]

    def write(self, folder: Path) -> None:
        """Write `comparison.png` and `comparison.json`.

        Raises:
            DataError: The folder cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save(figure(self.charts()), folder / "comparison.png", dpi=130)
            write_json(folder / "comparison.json", self.to_dict())
        except OSError as error:
            raise DataError("cannot write the comparison", subject=folder, found=str(error)) from error

    def _described(self, standing: Standing) -> dict[str, Any]:
        run = standing.run
        curves = {name: run.values(name) for name in dict.fromkeys(["train/loss", "val/loss", self.metric])}
        return plain(
            {
                "name": run.name,
                "folder": str(run.folder),
                "model": run.part("model"),
                "dataset": run.part("data"),
                "parameters": run.parameters,
                "epochs": len(run.history),
                "planned_epochs": run.planned,
                "finished": run.finished,
                "collapsed": run.collapsed or None,
                "seconds": run.seconds,
                "best": standing.best,
                "best_epoch": standing.epoch or None,
                "last": standing.last,
                "interval": standing.interval,
            }
        ) | {"curves": {name: [plain({"": v})[""] for v in values] for name, values in curves.items()}}


def compare(runs: Sequence[SavedRun], metric: str | None = None) -> Comparison:
    """Compare runs.

    Args:
        runs: One or more runs. Runs with equal names are shown with more of their paths.
        metric: Score to compare by. Default: the score monitored by most runs, if all runs have it.

    Raises:
        ConfigError: No run has this score, or no run has an epoch.
    """
    known = columns_of(row for run in runs for row in run.history)
    if not known:
        raise ConfigError(
            "nothing to compare", found="no epoch in " + ", ".join(run.name for run in runs), hint="train longer first"
        )
    if metric is not None and metric not in known:
        raise ConfigError(f"no run has the score {metric!r}", hint=did_you_mean(metric, known, "score"))
    metric = metric or _shared_metric(runs, known)
    modes = {run.part("train", "mode") for run in runs if run.part("train", "monitor") == metric} - {None}
    smaller = modes == {"min"} or (modes != {"max"} and is_better_smaller(metric))
    runs = _with_unique_names(runs)
    standings = [Standing.of(run, metric, smaller=smaller) for run in runs]
    paired = _paired(runs, _image_score(metric))
    few = [
        f"{runs[0].name} and {name}: the interval of the difference is unreliable with {paired.units} images or groups"
        for name, paired in paired.items()
        if paired.units < FEWEST
    ]
    return Comparison(metric, standings, _differences(runs), _warnings(runs, metric) + few, paired)


def _image_score(metric: str) -> str:
    return metric if metric == "mdice" or metric.startswith(("iou/", "f1/")) else "miou"


def _paired(runs: Sequence[SavedRun], score: str) -> dict[str, Paired]:
    """Compare the first run with each other run that was scored on the same images."""
    first, *others = runs
    names = sorted(first.images)
    groups = [row["group"] for name in names if (row := first.images[name]).get("group")]
    found: dict[str, Paired] = {}
    for other in others:
        same_data = first.part("data") == other.part("data")
        if names and same_data and first.images.keys() == other.images.keys():
            ours, theirs = ([_number(run.images[name].get(score)) for name in names] for run in (first, other))
            found[other.name] = Paired.of(ours, theirs, groups if len(groups) == len(names) else ())
    return found


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _shared_metric(runs: Sequence[SavedRun], known: Sequence[str]) -> str:
    """Return the score monitored by most runs, else mIoU, else the first score."""
    begun = [run for run in runs if run.history]
    shared = [name for name in known if all(any(name in row for row in run.history) for run in begun)]
    monitors = Counter(str(run.part("train", "monitor")) for run in runs).most_common()
    scores = [name for name in shared if "/" not in name and name not in ASIDE + COUNTS]
    chosen = [*(name for name, _ in monitors if name in shared), *(n for n in ("miou", *scores) if n in shared)]
    return next(iter([*chosen, "val/loss", "train/loss"]))


def _differences(runs: Sequence[SavedRun]) -> dict[str, list[Any]]:
    tables = [flat(run.recipe) for run in runs]
    rows = {
        key: [table.get(key) for table in tables] for key in dict.fromkeys(key for table in tables for key in table)
    }
    return {key: values for key, values in sorted(rows.items()) if any(value != values[0] for value in values)}


def _warnings(runs: Sequence[SavedRun], metric: str) -> list[str]:
    warnings: list[str] = []
    datasets = {run.name: str(run.part("data")) for run in runs}
    if len(set(datasets.values())) > 1:
        warnings.append("different datasets, so scores cannot be compared: " + _listed(datasets))
    elif len({run.classes for run in runs if run.classes}) > 1:
        warnings.append(
            "different classes, so scores cannot be compared: " + _listed({r.name: len(r.classes) for r in runs})
        )
    else:
        warnings += _differing_validation(runs)
    for run in runs:
        if run.torn:
            warnings.append(f"{run.name}: the last line of the log is cut off and was left out")
        if run.history and not any(math.isfinite(value) for value in run.values(metric)):
            warnings.append(f"{run.name}: has no {metric}")
        if not run.history:
            warnings.append(f"{run.name}: has no epoch yet")
    return warnings


def _differing_validation(runs: Sequence[SavedRun]) -> list[str]:
    """Return a warning if settings of the validation data differ, except for its location."""
    tables = [_of_validation(run) for run in runs]
    keys = sorted({key for table in tables for key in table})
    differing = [key for key in keys if any(table.get(key) != tables[0].get(key) for table in tables)]
    return [f"validation data differ in {', '.join(differing)}: compare the scores with care"] if differing else []


def _of_validation(run: SavedRun) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for section in ("data", "transform"):
        table = run.recipe.get(section)
        table = dict(table) if isinstance(table, Mapping) else {}
        own = table.get("val")
        table |= own if isinstance(own, Mapping) else {}
        found |= {f"{section}.{key}": value for key, value in table.items() if key not in IRRELEVANT}
    return found


def _with_unique_names(runs: Sequence[SavedRun]) -> list[SavedRun]:
    """Make names unique by adding as many parent folders as needed."""
    parts = [run.folder.resolve().parts for run in runs]
    depths = range(1, max(map(len, parts)) + 1)
    depth = next(n for n in depths if len({own[-n:] for own in parts}) == len({*parts}))
    return [replace(run, name="/".join(own[-depth:])) for run, own in zip(runs, parts, strict=True)]


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in values.items())
