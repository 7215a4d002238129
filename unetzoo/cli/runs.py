"""Runs: `plan`, `train`, `evaluate`."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ..errors import ConfigError, DataError
from ..registry import RECIPES
from ..wording import format_score, pluralize
from .console import AsJson, DataArguments, Device, Quiet, Run, Sets, app, complain, err, out
from .predict import usable_device
from .sources import kind_of

DEVICE_VARIABLE = "ACCELERATE_TORCH_DEVICE"
PLAN = "plan.toml"  # in the run folder


@app.command(epilog="Example: unetzoo train data/cells --minutes 20")
def train(
    source: Annotated[
        str, typer.Argument(metavar="DATA|RECIPE", help="A folder of data, a recipe's name or file, or a run folder.")
    ],
    sets: Sets = None,
    folder: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Run folder. Default: runs/NAME.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(metavar="N", help="Time to train on a folder of data, or per fold. Default: 30.")
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Train the fast variant of the recipe: few samples, minutes on a CPU.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the newest checkpoint.")] = False,
    folds: Annotated[
        int | None, typer.Option(metavar="N", help="Train N networks, each validated on another N-th of the data.")
    ] = None,
    fold: Annotated[
        str | None, typer.Option(metavar="K/N", help="Train only the k-th of n folds, e.g. each on its own machine.")
    ] = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Train a recipe, or plan one for a folder of data, and evaluate the best network."""
    from ..training import train as run
    from ..training.folders import new_run_folder

    if folds is not None and fold is not None:
        raise ConfigError("--folds trains all folds, --fold one of them", hint="leave one out")
    recipe, in_folds = source, folds is not None or fold is not None
    if kind_of(source) == "data":
        name = Path(source).resolve().stem + ("-folds" if in_folds else "")
        folder = folder or (Path("runs", name) if resume or in_folds else new_run_folder(name))
        recipe = str(folder / PLAN)
        if not (resume or in_folds) or not Path(recipe).exists():  # all folds follow one plan
            _plan(source, minutes or 30, Path(recipe), quiet=quiet)
    elif minutes is not None:
        raise ConfigError("--minutes is for folders of data", subject=source,
                          hint="a recipe has its length: --set train.epochs=10")  # fmt: skip
    options: dict[str, Any] = {"out": folder, "fast": fast, "resume": resume, "progress": not quiet, "say": err.print}
    if in_folds:
        return _train_folds(recipe, folds, fold, sets or [], device, options)
    with _trainer_on(device):
        result = run(recipe, sets or [], **options)
    _print_scores(result.scores, result.baseline)
    out.print(f"\nsee {result.out / 'report.html'}", soft_wrap=True)
    out.print(f"weights, scores and more images are in {result.out}", soft_wrap=True)


def _train_folds(
    recipe: str, folds: int | None, fold: str | None, sets: list[str], device: str, options: dict[str, Any]
) -> None:
    """Train all folds, or one, and print the scores of all predictions once every fold is trained."""
    from ..datasets.base import check_fold
    from ..folds import train_folds
    from ..report.curves import COUNTS

    number, count = check_fold(fold) if fold is not None else (None, folds or 0)
    with _trainer_on(device):
        result = train_folds(recipe, count, sets, only=number, **options)
    for name in dict.fromkeys(name for names in result.absent.values() for name in names):
        lacking = [str(fold) for fold, names in result.absent.items() if name in names]
        unlearned = "; the network of the other fold was trained without it" if len(lacking) == count - 1 else ""
        complain(f"{name} has no pixel in the validation images of {pluralize(len(lacking), 'fold')} "
                 f"({', '.join(lacking)}), where its scores are undefined{unlearned}", "warning", "yellow")  # fmt: skip
    if result.missing:
        left = ", ".join(map(str, result.missing))
        out.print(f"folds not trained yet: {left} (--resume, or --fold K/{count} --out {result.out})", soft_wrap=True)
        return
    _print_scores(result.scores, {})
    table = Table("over the folds", "mean", "standard deviation", box=None)
    for name in result.scores:
        mean, deviation = result.spread(name)
        if "/" not in name and name not in COUNTS:
            table.add_row(name, format_score(mean), format_score(deviation))
    out.print()
    out.print(table)
    out.print(f"\nscores, label maps and networks are in {result.out}", soft_wrap=True)
    out.print(f"predict with all of them: unetzoo predict {shlex.quote(str(result.out))} IMAGES OUT", soft_wrap=True)


@app.command(epilog="Example: unetzoo plan data/cells --minutes 20 --out cells.toml")
def plan(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder, an archive or a table of files.")],
    minutes: Annotated[float, typer.Option(metavar="N", help="Time to train.")] = 30,
    file: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Recipe to write. Default: print it.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="The folder's dataset. Default: recognize it.")
    ] = None,
    sets: DataArguments = None,
    timing: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Take the speed of the machine from a planned recipe instead of measuring."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Plan a recipe for a folder of data: every value with its reason."""
    from ..training.recipe import parse_sets

    if not Path(data).exists() and data not in RECIPES:
        raise DataError("no such folder, archive or table", subject=data, hint="check the path")
    if kind_of(data) != "data":
        raise ConfigError("nothing to plan", subject=data, expected="a folder of data", found=f"a {kind_of(data)}",
                          hint=f"unetzoo train {data}")  # fmt: skip
    _plan(data, minutes, file, quiet=quiet, dataset=dataset, options=parse_sets(sets or []), timing=timing)


def _plan(source: str, minutes: float, file: Path | None, *, quiet: bool, timing: Path | None = None,
          **options: Any) -> None:  # fmt: skip
    """Plan, and write the recipe to a file or print it."""
    from ..io import write_text
    from ..planning import Timing, make_plan

    with _trainer_on("auto"), nullcontext() if quiet else err.status("planning") as status:
        tell = (lambda text: None) if status is None else status.update
        made = make_plan(source, minutes, timing=Timing.load(timing) if timing else None, tell=tell, **options)
    if file is None:
        print(made.to_toml(), end="")
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, made.to_toml())
    if not quiet:
        for fact in made.facts:
            err.print(fact, soft_wrap=True)
        err.print(f"the plan is in {file}", soft_wrap=True)


@app.command(epilog="Example: unetzoo evaluate runs/cells --set data.val.split=test --report scores")
def evaluate(
    run: Run,
    sets: Sets = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write scores, confusion matrix and figures into this folder."),
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate a run's best network on its validation data, or on other data by --set."""
    from ..folds import evaluate_folds
    from ..training import evaluate as score_run
    from ..training.folders import FOLDS

    def say(text: str) -> None:
        (err if as_json else out).print(text, soft_wrap=True)

    with _trainer_on(device):
        score = evaluate_folds if (run / FOLDS).is_file() else score_run
        scores = score(run, sets or [], progress=not quiet, report=report, say=say)
    if as_json:
        out.print_json(json.dumps(scores))
    else:
        _print_scores(scores, {})


@contextmanager
def _trainer_on(device: str) -> Iterator[None]:
    """Let Trainers that are built inside the block use a device, through the variable that accelerate reads."""
    if device == "auto":
        yield
        return
    before, os.environ[DEVICE_VARIABLE] = os.environ.get(DEVICE_VARIABLE), str(usable_device(device))
    try:
        yield
    finally:
        del os.environ[DEVICE_VARIABLE]
        if before is not None:
            os.environ[DEVICE_VARIABLE] = before


def _print_scores(scores: dict[str, float], baseline: dict[str, float]) -> None:
    """Overall scores next to the baseline's, averages over classes, then one row per class."""
    from ..metrics.report import tables

    for number, table in enumerate(tables(scores, baseline)):
        if number:
            out.print()
        out.print(table)
