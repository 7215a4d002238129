"""`compare`: several runs in one figure and one table."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ..errors import ConfigError, UnetzooError
from ..wording import format_score
from .console import AsJson, app, complain, out

if TYPE_CHECKING:
    from ..report.compare import Comparison


@app.command(epilog="Example: unetzoo compare runs/unet runs/r2unet --metric miou")
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders.")],
    folder: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="Folder for comparison.png and comparison.json.")
    ] = Path("comparison"),
    metric: Annotated[
        str | None,
        typer.Option(metavar="SCORE", help="Score to compare by. Default: the one that chose the best epochs."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare runs: losses and scores in one figure, scores and differing settings in a table."""
    from ..report.compare import compare as compared
    from ..report.runs import read_run

    found, failures = [], []
    for path in {run.resolve(): run for run in runs}.values():
        try:
            found.append(read_run(path))
        except UnetzooError as error:
            failures.append(error)
    if not found:
        raise failures[0]
    comparison = compared(found, metric)
    comparison.write(folder)
    if as_json:
        out.print_json(json.dumps(comparison.to_dict()))
    else:
        _print(comparison)
        out.print(f"\nsee {folder / 'comparison.png'}", soft_wrap=True)
    for warning in comparison.warnings:
        complain(warning, "warning", "yellow")
    for error in failures:
        complain(error)
    if failures:
        raise typer.Exit(ConfigError.exit_code)


def _print(comparison: Comparison) -> None:
    metric = comparison.metric
    columns = ("run", "model", "parameters", "epochs", f"best {metric}", "at epoch", f"last {metric}", "time", "state")
    scores = Table(*columns, box=None)
    for standing in comparison.standings:
        run = standing.run
        scores.add_row(
            run.name,
            str(run.part("model")),
            f"{run.parameters:,}" if run.parameters is not None else "–",
            str(len(run.history)),
            format_score(standing.best),
            str(standing.epoch or "–"),
            format_score(standing.last),
            str(timedelta(seconds=round(run.seconds))),
            standing.state,
        )
    out.print(scores)
    if comparison.differences:
        differing = Table("differs", *(standing.run.name for standing in comparison.standings), box=None)
        for key, values in comparison.differences.items():
            differing.add_row(key, *("–" if value is None else _shown(value) for value in values))
        out.print()
        out.print(differing)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
