"""Runs: `train`, `evaluate`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from .console import AsJson, Device, Quiet, Run, Sets, app, err, out
from .predict import usable_device

DEVICE_VARIABLE = "ACCELERATE_TORCH_DEVICE"


@app.command(epilog="Example: unetzoo train isbi2012 --set data.root=data/isbi2012 --out runs/cells")
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Name or file of a recipe, or a run folder.")],
    sets: Sets = None,
    folder: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Run folder. Default: runs/RECIPE.")
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Train the fast variant of the recipe: few samples, minutes on a CPU.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the newest checkpoint.")] = False,
    fold: Annotated[
        str | None, typer.Option(metavar="K/N", help="Validate on the k-th of n folds. Short for --set data.fold=K/N.")
    ] = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Train a recipe and evaluate its best network."""
    from ..training import train as run

    overrides = [*(sets or []), *([f"data.fold={fold}"] if fold else [])]
    with _trainer_on(device):
        result = run(recipe, overrides, out=folder, fast=fast, resume=resume, progress=not quiet, say=err.print)
    _print_scores(result.scores, result.baseline)
    out.print(f"\nsee {result.out / 'report.html'}", soft_wrap=True)
    out.print(f"weights, scores and more images are in {result.out}", soft_wrap=True)


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
    from ..training import evaluate as score

    def say(text: str) -> None:
        (err if as_json else out).print(text, soft_wrap=True)

    with _trainer_on(device):
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
