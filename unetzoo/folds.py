"""Cross-validation: a run per fold, the scores of all folds together, and their networks as an ensemble.

    runs/cells-folds/
      folds.json     number of folds, and the threshold and cleanup that are best for the predictions below
      recipe.json    the recipe of all folds
      fold-1/ …      the runs, each with the counts (out-of-fold.json) and label maps (out-of-fold/) of its validation
      scores.json    pooled scores with intervals, and the scores of each fold
      images.csv     scores of every image by the network that was not trained on it

`unetzoo.load` opens the folder as an ensemble.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .bundle import ModelBundle
from .cleaning import Cleaning, best_candidate
from .errors import CheckpointError, ConfigError
from .held_out import is_binary, is_predicted, predict_held_out, read_held_out
from .inference.ensemble import ensemble
from .io import write_json
from .labels import LabelSpec
from .registry import DATASETS, keywords
from .report.image_scores import ImageScores
from .report.runs import read_run
from .training.batch_size import with_batch_size
from .training.folders import FOLDS
from .training.logs import plain
from .training.ranges import with_range
from .training.recipe import Recipe, load, saved_recipe
from .training.resume import check_same
from .training.run import evaluate, make_dataset, make_metrics, train
from .training.sections import Metric
from .training.trained import load_run

OF_TRUTH = ("iou", "f1", "precision", "sensitivity")  # scores of a class that needs pixels of it


@dataclass(frozen=True)
class FoldsResult:
    """Result of a cross-validation.

    Args:
        out: Its folder.
        scores: Scores of all images, each predicted by the network that was not trained on it; empty until all folds
            are trained.
        by_fold: Scores of each fold that is trained, by its number.
        intervals: 95% intervals of the pooled scores.
        missing: Numbers of the folds that are not trained yet.
        absent: Classes without a pixel in the validation images of a fold, by its number; their scores are NaN there.
    """

    out: Path
    scores: dict[str, float]
    by_fold: dict[int, dict[str, float]]
    intervals: dict[str, tuple[float, float]]
    missing: tuple[int, ...] = ()
    absent: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    def spread(self, score: str) -> tuple[float, float]:
        """Mean and standard deviation of a score over the folds in which it is defined."""
        values = [value for row in self.by_fold.values() if math.isfinite(value := row.get(score, math.nan))]
        return (
            statistics.mean(values) if values else math.nan,
            statistics.stdev(values) if len(values) > 1 else math.nan,
        )


def train_folds(
    source: str | Path | Recipe,
    folds: int,
    sets: Sequence[str] = (),
    *,
    only: int | None = None,
    out: str | Path | None = None,
    fast: bool = False,
    resume: bool = False,
    progress: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> FoldsResult:
    """Train a recipe once per fold, each validated on another part of the data, and score all predictions together.

    Args:
        source: As for `unetzoo.train`, or a folder of folds; the dataset must take `fold`.
        folds: Number of folds.
        sets: Overrides, `section.key=value`.
        only: Train only this fold, 1, 2, …, e.g. to train each on a separate machine. If all write to the same
            folder, the last one to finish pools the scores.
        out: Folder. Default: that of `source` if it is continued, or `runs/<recipe>-folds`.
        fast: Train the recipe's fast variant.
        resume: Keep finished folds, and continue an unfinished one from its last checkpoint.
        progress: Show progress bars.
        say: Called with lines of text.

    Raises:
        ConfigError: The recipe is invalid, `folds` or `only` is wrong, or the folder holds something else.
        DataError: More folds than groups, or faulty data.
    """
    if folds < 2 or not (only is None or 1 <= only <= folds):
        found = folds if only is None else f"{only}/{folds}"
        raise ConfigError("wrong folds", expected="at least 2 folds", found=found, hint="5 is usual")
    dataset = load(source, sets, fast=fast).data.name
    if "fold" not in keywords(DATASETS.get(dataset)):
        others = ", ".join(name for name in DATASETS.names() if "fold" in keywords(DATASETS.get(name)))
        raise ConfigError("the dataset has no folds", subject=dataset, expected=f"one that takes `fold`: {others}")
    recipe = with_range(load(source, [*sets, f"data.fold=1/{folds}"], fast=fast))  # one range for all folds
    recipe.data.build("train")  # raises if the data cannot be divided, before anything is written
    folder = _folder(source, out, fast=fast, resume=resume)
    given = recipe
    recipe = with_batch_size(given, folder, lambda: make_dataset(given, "train", progress=False), resume=True)
    _claim(folder, folds, recipe, shared=resume or only is not None)
    for number in range(1, folds + 1) if only is None else (only,):
        run = folder / f"fold-{number}"
        if is_predicted(run):
            if not resume:
                raise ConfigError("the fold is trained already", subject=run, hint="--resume, or give another --out")
            continue
        say(f"fold {number} of {folds}")
        begun = (run / "recipe.json").exists()
        if not (begun and read_run(run).finished):
            one = load(recipe, [f"data.fold={number}/{folds}"])
            train(one, out=run, resume=resume and begun, progress=progress, say=say)
        predict_held_out(run, progress=progress)
    return pooled(folder)


def _folder(source: str | Path | Recipe, out: str | Path | None, *, fast: bool, resume: bool) -> Path:
    if out is not None:
        return Path(out)
    if isinstance(source, Recipe):
        return Path("runs", f"{source.data.name}-folds")
    if resume and (Path(source) / FOLDS).is_file():
        return Path(source)
    return Path("runs", Path(source).stem + ("-fast" if fast else "") + "-folds")


def _claim(folder: Path, folds: int, recipe: Recipe, *, shared: bool) -> None:
    """Mark the folder, or check that it is of the same recipe and number of folds."""
    known, table = _marked(folder), recipe.to_dict()
    del table["data"]["fold"]
    if known is None and any((folder / name).exists() for name in ("recipe.json", "best")):
        raise ConfigError("the folder holds a run", subject=folder, hint="give another --out")
    if known is None or not any(folder.glob("fold-*")):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "recipe.json", table)
        write_json(folder / FOLDS, {"folds": folds, "threshold": None, "cleaning": None})
        return
    if known["folds"] != folds:
        raise ConfigError("a folder of another number of folds", subject=folder, expected=folds, found=known["folds"],
                          hint="give another --out")  # fmt: skip
    if not shared:
        raise ConfigError(
            "the folder holds a cross-validation", subject=folder, hint="--resume it, or give another --out"
        )
    check_same(saved_recipe(folder), table, folder)


def _marked(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / FOLDS).read_text(encoding="utf-8"))
        return {"folds": int(found["folds"]), "threshold": found["threshold"], "cleaning": found["cleaning"]}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError("cannot read the folds", subject=folder / FOLDS, found=str(error),
                              hint="restore the file from a copy") from error  # fmt: skip


def pooled(folder: Path) -> FoldsResult:
    """Pool the scores of all folds, once each is trained, and write `scores.json` and `images.csv`.

    Counts are summed over the folds, so that scores are those of all predictions together.

    Raises:
        ConfigError: Not a folder of folds.
        CheckpointError: A file is damaged.
    """
    known = _marked(folder)
    if known is None:
        raise ConfigError("not a folder of folds", subject=folder, expected=FOLDS, hint="unetzoo train … --folds N")
    runs = {number: folder / f"fold-{number}" for number in range(1, known["folds"] + 1)}
    missing = tuple(number for number, run in runs.items() if not is_predicted(run))
    found = {number: read_held_out(run) for number, run in runs.items() if number not in missing}
    absent = {number: names for number, one in found.items() if (names := _absent(one["images"]))}
    by_fold = {number: _defined(one["scores"], absent.get(number, ())) for number, one in found.items()}
    if missing:
        return FoldsResult(folder, {}, by_fold, {}, missing, absent)
    first = runs[1]
    labels = LabelSpec.from_dict(json.loads((first / "labels.json").read_text(encoding="utf-8")))
    scores = _summed_scores(first, labels, [one["states"] for one in found.values()])
    images = _all_images([one["images"] for one in found.values()])
    intervals = {} if images is None else images.intervals()
    if images is not None:
        images.write(folder / "images.csv")
    threshold = scores.get("best_threshold", math.nan)
    counts = np.sum([one["cleanups"] for one in found.values()], 0)
    cleaning = best_candidate(counts) if counts.ndim == 3 else None
    best = {"threshold": threshold if 0 < threshold < 1 else None, "cleaning": cleaning and cleaning.to_dict()}
    write_json(folder / FOLDS, known | best)
    content = {
        "pooled": plain(scores),
        "intervals": {name: ends for name, ends in intervals.items() if np.isfinite(ends).all()},
        "folds": {str(number): plain(row) for number, row in by_fold.items()},
    }
    write_json(folder / "scores.json", content)
    return FoldsResult(folder, scores, by_fold, intervals, (), absent)


def evaluate_folds(folder: Path, sets: Sequence[str], **options: Any) -> dict[str, float]:
    """Score the ensemble of all folds on data that none of its networks has seen.

    Args:
        folder: The folder of the folds.
        sets: Overrides that select the data, e.g. `data.val.split=test`.
        options: As for `unetzoo.evaluate`.

    Raises:
        ConfigError: No other data is selected: each validation image has trained the networks of the other folds.
        CheckpointError: A fold is not trained yet, or its files are damaged.
    """
    if not any(assignment.strip().startswith("data.") for assignment in sets):
        raise ConfigError("the networks have seen these images", subject=folder, expected="other data",
                          found="the validation images of the folds",
                          hint="--set data.val.split=test; the pooled scores are in scores.json")  # fmt: skip
    return evaluate(folder, sets, net=load_folds(folder).model, **options)


def _summed_scores(run: Path, labels: LabelSpec, states: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The scores of the metrics whose states are the sums over all folds."""
    recipe = load(run)
    if is_binary(recipe, labels):
        recipe.metrics["mask"] = [*recipe.metrics_of("mask"), Metric(name="sweep")]
    scores: dict[str, float] = {}
    for head, metric in make_metrics(recipe, labels).items():
        if head in states[0]:
            total = metric.state()
            for state in states:
                total = {name: value + torch.tensor(state[head][name]).to(value) for name, value in total.items()}
            metric.load_state(total)
            named = metric.compute()
            scores |= named if head == "mask" else {f"{head}/{name}": value for name, value in named.items()}
    return scores


def _all_images(parts: Sequence[Any]) -> ImageScores | None:
    if any(part is None for part in parts):
        return None
    counts = np.concatenate([np.array(part["counts"], np.int64) for part in parts])
    names, groups = ([name for part in parts for name in part[key]] for key in ("names", "groups"))
    return ImageScores(names, parts[0]["classes"], counts, groups)


def _absent(images: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Names of the classes without a pixel in the truth of any image."""
    if images is None:
        return ()
    right, _, missed = np.array(images["counts"], np.int64).sum(0).T
    return tuple(name for name, pixels in zip(images["classes"], right + missed, strict=True) if not pixels)


def _defined(row: Mapping[str, float | None], absent: Sequence[str]) -> dict[str, float]:
    """Return the scores as numbers; those of absent classes are undefined.

    Otherwise a class would count as 0 in the mean over folds as soon as one pixel of it is predicted.
    """
    unknown = {f"{score}/{name}" for score in OF_TRUTH for name in absent}
    return {name: math.nan if value is None or name in unknown else value for name, value in row.items()}


def load_folds(folder: Path) -> ModelBundle:
    """Open the networks of all folds as an ensemble, with the threshold and cleanup best for the held-out predictions.

    Raises:
        CheckpointError: A fold is not trained yet, or its files are damaged.
        ConfigError: Not a folder of folds.
    """
    result = pooled(folder)
    if result.missing:
        raise CheckpointError(
            "folds are not trained yet", subject=folder, found=", ".join(f"fold-{number}" for number in result.missing),
            hint="train them with --resume, or load one fold",
        )  # fmt: skip
    known = _marked(folder) or {}
    bundle = ensemble([load_run(folder / f"fold-{number}") for number in result.by_fold], known["threshold"])
    return bundle._replace(cleaning=known["cleaning"] and Cleaning(**known["cleaning"]))
