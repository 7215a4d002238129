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
    from ..report.compare import Comparison, Standing

INTERVAL = "95% interval"


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
    rows = [_row(standing, metric) for standing in comparison.standings]
    columns = [name for name in rows[0] if name != INTERVAL or any(row[name] != "–" for row in rows)]
    scores = Table(*columns, box=None)
    for row in rows:
        scores.add_row(*(row[name] for name in columns))
    out.print(scores)
    for name, paired in comparison.paired.items():
        out.print(
            f"{rows[0]['run']} is better than {name} on {paired.better:.0%} of {paired.images} images, "
            f"{100 * paired.difference:+.1f} [{100 * paired.low:.1f}, {100 * paired.high:.1f}] percentage points",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    if comparison.differences:
        differing = Table("differs", *(standing.run.name for standing in comparison.standings), box=None)
        for key, values in comparison.differences.items():
            differing.add_row(key, *("–" if value is None else _shown(value) for value in values))
        out.print()
        out.print(differing)


def _row(standing: Standing, metric: str) -> dict[str, str]:
    run = standing.run
    return {
        "run": run.name,
        "model": str(run.part("model")),
        "parameters": f"{run.parameters:,}" if run.parameters is not None else "–",
        "epochs": str(len(run.history)),
        f"best {metric}": format_score(standing.best),
        INTERVAL: " … ".join(map(format_score, standing.interval)) if standing.interval else "–",
        "at epoch": str(standing.epoch or "–"),
        f"last {metric}": format_score(standing.last),
        "time": str(timedelta(seconds=round(run.seconds))),
        "state": standing.state,
    }


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
