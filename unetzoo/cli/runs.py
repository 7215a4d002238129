"""Runs: `train`, `evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .console import Sets, app, err, out


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, its file, or a run folder.")],
    sets: Sets = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Run folder; runs/<recipe> by default.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Its fast variant: minutes on a CPU, on few samples.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Train a recipe and score its best network."""
    from ..training import train as run

    result = run(recipe, sets or [], out=folder, fast=fast, resume=resume, progress=not quiet, say=err.print)
    _print_scores(result.scores, result.baseline)
    out.print(f"\nsee {result.out / 'report.html'}", soft_wrap=True)
    out.print(f"weights, scores and more images are in {result.out}", soft_wrap=True)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    report: Annotated[
        Path | None,
        typer.Option(help="Folder for scores.json, data.json, confusion.json, confusion.png and classes.png."),
    ] = None,
) -> None:
    """Score a run's best network on its validation data, or on other data by --set, e.g. data.val.split=test."""
    from ..training import evaluate as score

    def say(text: str) -> None:
        (err if as_json else out).print(text, soft_wrap=True)

    scores = score(run, sets or [], progress=False, report=report, say=say)
    if as_json:
        out.print_json(json.dumps(scores))
    else:
        _print_scores(scores, {})


def _print_scores(scores: dict[str, float], baseline: dict[str, float]) -> None:
    """Scores of the whole beside the baseline's, averages over classes, then a row a class."""
    from ..metrics.report import tables

    for number, table in enumerate(tables(scores, baseline)):
        if number:
            out.print()
        out.print(table)
