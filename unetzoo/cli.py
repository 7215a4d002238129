"""The command line: parse, call, print. A command imports what it runs, when it runs.

Exit codes: 2 usage or recipe, 3 data, 4 checkpoint, 5 plugin, 6 training, 75 locked, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from . import __version__
from .errors import ConfigError, UnetzooError
from .registry import REGISTRIES

if TYPE_CHECKING:
    from .models.card import Info

app = typer.Typer(
    help="U-Nets from paper to prediction: list, look at, train, evaluate and use them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out, err = Console(highlight=False), Console(stderr=True, highlight=False)

Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe, e.g. --set train.epochs=3; may be repeated."),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_print_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")] = False,
) -> None:
    """U-Nets from paper to prediction."""
    if debug:
        os.environ["UNETZOO_DEBUG"] = "1"


@app.command("list")
def list_names(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, e.g. '*unet*'.")] = "*",
    kind: Annotated[str, typer.Option(help=f"One of {', '.join(REGISTRIES)}; all by default.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List models, datasets, losses, metrics and recipes; imports none of them."""
    if kind and kind not in REGISTRIES:
        raise ConfigError("unknown kind", found=kind, hint="choose from: " + ", ".join(REGISTRIES))
    names = {k: registry.names(pattern) for k, registry in REGISTRIES.items() if kind in ("", k)}
    if as_json:
        out.print_json(json.dumps(names))
        return
    table = Table("kind", "names", box=None)
    for k, found in names.items():
        table.add_row(k, "  ".join(found) or "[dim]none[/dim]")
    out.print(table)


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="A model's name; see `unetzoo list`.")],
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A constructor argument, e.g. classes=19.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a model's card: source, deviations from the paper, arguments, sizes, parameters."""
    from .models.card import info as model_info
    from .training.recipe import parse_sets

    found = model_info(model, **parse_sets(sets or []))
    if as_json:
        out.print_json(json.dumps(found.to_dict()))
    else:
        _print_info(found)


@app.command()
def verify(
    pattern: Annotated[str, typer.Argument(help="Shell pattern of model names.")] = "*",
) -> None:
    """Measure every fact of every card again, on this machine, offline."""
    from .models.card import verify as measure

    table = Table("model", "fact", "stated", "measured", "")
    failed = 0
    with err.status("measuring"):
        for name, fact, measured in measure(pattern):
            agrees = fact.agrees(measured)
            failed += not agrees
            mark = "[green]✓[/green]" if agrees else "[red]✗[/red]"
            table.add_row(name, fact.name, _number(fact.stated), _number(measured), mark)
    out.print(table)
    out.print(f"{table.row_count - failed} of {table.row_count} facts hold")
    if failed:
        raise typer.Exit(1)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, its file, or a run folder.")],
    sets: Sets = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Run folder; runs/<recipe> by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Train a recipe and score its best network."""
    from .training import train as run

    result = run(recipe, sets or [], out=folder, resume=resume, progress=not quiet, say=err.print)
    _print_scores(result.scores, result.baseline)
    out.print(f"\nsee {result.out / 'predictions.png'}", soft_wrap=True)
    out.print(f"weights, scores and more pictures are in {result.out}", soft_wrap=True)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score a run's best network on its validation data, or on other data by --set."""
    from .training import evaluate as score

    scores = score(run, sets or [], progress=False)
    if as_json:
        out.print_json(json.dumps(scores))
    else:
        _print_scores(scores, {})


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    pictures: Annotated[str, typer.Argument(help="A picture, a folder or a glob.")],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the results.")],
    background: Annotated[
        Path | None, typer.Option(help="Folder of backgrounds, by stem, for networks that take picture and background.")
    ] = None,
    tile: Annotated[int | None, typer.Option(help="Predict by exact tiles of this size.")] = None,
) -> None:
    """Predict pictures of any size: index masks, coloured overlays, depth."""
    from .inference import Predictor
    from .training import load_run

    net, labels, prepare = load_run(run)
    predictor = Predictor(net, labels, prepare, tile=tile)
    failures = predictor.predict_files(pictures, folder, background=background)
    for error in failures:
        err.print(f"[red]error:[/red] {error}", soft_wrap=True)
    out.print(f"results are in {folder}", soft_wrap=True)
    if failures:
        raise typer.Exit(3)


def main(args: list[str] | None = None) -> None:
    """Entry point: our errors become one line and an exit code."""
    try:
        app(args)
    except UnetzooError as error:
        if os.environ.get("UNETZOO_DEBUG"):
            raise
        err.print("[red]error:[/red]", end=" ")
        err.print(str(error), markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        err.print("interrupted")
        sys.exit(130)


def _print_info(found: Info) -> None:
    title = f"{found.card.title} · " if found.card else ""
    out.print(f"[bold]{title}{found.name}[/bold]  ({found.distribution} {found.version})")
    grid = Table(box=None, show_header=False, padding=(0, 2))
    if found.card:
        card = found.card
        grid.add_row("paper", f"{card.paper} ({card.year})\n{card.authors}; {card.source}; {card.figure}")
        grid.add_row("faithful", card.faithful)
    grid.add_row("parameters", f"{found.parameters:,}")
    grid.add_row("input", found.legal_sizes)
    grid.add_row("output", "\n".join(f"{size}² → {'×'.join(map(str, s))}" for size, s in found.output_sizes.items()))
    if found.receptive_field:
        grid.add_row("receptive field", f"{found.receptive_field} px; exact tiling needs {found.halo} px of context")
    if found.tags:
        grid.add_row("tags", "\n".join(found.tags))
    grid.add_row("arguments", ", ".join(f"{name}={value!r}" for name, value in found.signature.items()))
    out.print(grid)
    if found.card and found.card.deviations:
        table = Table("the paper", "here", "because", title="Deviations from the paper", title_justify="left")
        for deviation in found.card.deviations:
            table.add_row(deviation.paper, deviation.ours, deviation.reason)
        out.print(table)


def _print_scores(scores: dict[str, float], baseline: dict[str, float]) -> None:
    """Scores of the whole beside the baseline's, then a row a class."""
    kinds = ("iou", "f1", "precision", "sensitivity", "specificity")
    by_class: dict[str, dict[str, float]] = {}
    table = Table("score", "network", *(["baseline"] if baseline else []), box=None)
    for name, value in scores.items():
        kind, slash, which = name.partition("/")
        if kind in kinds and slash:
            by_class.setdefault(which, {})[kind] = value
            if not baseline or kind != "iou":
                continue
        if kind != "micro":
            beside = [f"{baseline[name]:.4f}" if name in baseline else ""] if baseline else []
            table.add_row(name, f"{value:.4f}", *beside)
    out.print(table)
    if by_class:
        rows = Table("class", *kinds, box=None)
        for name, values in by_class.items():
            rows.add_row(name, *(f"{values[kind]:.4f}" if kind in values else "" for kind in kinds))
        out.print()
        out.print(rows)


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    main()
