"""`doctor`: what is wrong with data, or with what is installed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigError, DataError, PluginError
from ..plugins import IMPORT_LIMIT
from .console import AsJson, Timeout, app, err, out
from .sources import kind_of


@app.command(epilog="Example: unetzoo doctor data/cells --dataset folder --set 'ids=[0, 255]'")
def doctor(
    path: Annotated[
        str | None,
        typer.Argument(
            metavar="PATH", help="A folder of data, or a recipe's name or file. Default: check what is installed."
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="The folder's dataset. Default: recognize it.")
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Argument of the dataset, e.g. 'ids=[0, 255]', or change of the recipe. May be repeated.",
        ),
    ] = None,
    as_json: AsJson = False,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw samples with colored masks into this PNG.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Read only N samples, evenly spread.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Number of reading threads. Default: one per CPU.")
    ] = None,
    timeout: Timeout = IMPORT_LIMIT,
) -> None:
    """Find what is wrong with your data, or with what is installed. Exit code 3 if there are errors."""
    if path is None:
        _look_at_installation(as_json, timeout, dataset, sets, sheet)
        return
    source, arguments = _what_to_audit(path, dataset, sets or [])
    from ..doctor import audit

    with _progress(quiet=as_json) as progress:
        report = audit(source, **arguments, limit=limit, workers=workers, progress=progress, sheet=sheet)
    if as_json:
        out.print_json(json.dumps(report.to_dict()))
    else:
        out.print(report, soft_wrap=True)
        if sheet is not None:
            out.print(f"samples are drawn in {sheet}", soft_wrap=True)
    if report.errors:
        raise typer.Exit(DataError.exit_code)


def _look_at_installation(as_json: bool, timeout: float, *data_options: object) -> None:
    if any(data_options):
        raise ConfigError("nothing to audit", expected="a path", hint="unetzoo doctor PATH --dataset NAME")
    from ..doctor.registries import audit_install

    with err.status("loading every name"):
        report = audit_install(timeout)
    if as_json:
        out.print_json(json.dumps(report.to_dict()))
    else:
        out.print(report, soft_wrap=True)
    if report.errors:
        raise typer.Exit(PluginError.exit_code)


def _what_to_audit(path: str, dataset: str | None, sets: list[str]) -> tuple[Any, dict[str, Any]]:
    """The first argument of `audit` and its keywords."""
    from ..training.recipe import parse_sets

    if kind_of(path) == "data":
        return Path(path), {"dataset": dataset, "options": parse_sets(sets)}
    return _of_recipe(path, dataset, sets)


def _of_recipe(source: str, dataset: str | None, sets: list[str]) -> tuple[Any, dict[str, Any]]:
    """The data of a recipe: its folder with each split's arguments, or its datasets where there is no one folder."""
    from ..registry import DATASETS
    from ..training.recipe import load

    recipe = load(source, sets)
    if dataset not in (None, recipe.data.name):
        raise ConfigError("the recipe has another dataset", subject=source, expected=recipe.data.name, found=dataset,
                          hint="leave --dataset out, or --set data.name=…")  # fmt: skip
    splits = {split: recipe.data.of(split) for split in ("train", "val")}
    roots = {split: options.pop("root", None) for split, options in splits.items()}
    if roots["train"] is not None and roots["train"] == roots["val"]:
        shared = {key: value for key, value in splits["train"].items() if splits["val"].get(key, ...) == value}
        own = {split: {key: value for key, value in options.items() if key not in shared}
               for split, options in splits.items()}  # fmt: skip
        return Path(str(roots["train"])), {"dataset": recipe.data.name, "options": shared, "splits": own}
    parts = {
        split: DATASETS.build(
            recipe.data.name, **options, **({"root": roots[split]} if roots[split] is not None else {})
        )
        for split, options in splits.items()
    }
    return parts, {}


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr, where somebody may be looking."""
    if quiet or not err.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
