"""Data: `compose`, `stats`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ..errors import ConfigError
from ..registry import DATASETS, missing_keywords
from ..wording import pluralize
from .console import app, err, out

Workers = Annotated[int | None, typer.Option(help="Processes; one a CPU by default, 0 for none beside this one.")]
Options = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of the dataset; may be repeated.")
]


@app.command()
def compose(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="An empty or new folder, or one begun before.")],
    root: Annotated[Path | None, typer.Option(help="A folder with fg/ and bg/; drawings by default.")] = None,
    count: Annotated[int, typer.Option(help="How many composites.")] = 1000,
    every: Annotated[
        bool, typer.Option("--all", help="Every cut-out in every scene, at the grid's 20 places, mirrored or not.")
    ] = False,
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "all",
    seed: Annotated[int, typer.Option(help="Seed of the combinations.")] = 0,
    size: Annotated[int, typer.Option(help="Side of the square images.")] = 192,
    positions: Annotated[str, typer.Option(help="random or grid.")] = "random",
    jpeg: Annotated[
        int | None, typer.Option(help="Write images and depth as JPEG of this quality, like the original; not exact.")
    ] = None,
    sets: Options = None,
    workers: Workers = None,
) -> None:
    """Write composites with their masks and depth as files, in the original's naming; goes on after a kill."""
    from ..datasets import write_export
    from ..datasets.compose import export_size, gigabytes
    from ..training.recipe import parse_sets

    which = {"length": "all", "positions": "grid"} if every else {"length": count, "positions": positions}
    options = {"split": split, "size": size, "seed": seed, **which, **({} if root is None else {"root": root})}
    data = _build("composites", {**options, **parse_sets(sets or [])})
    room = gigabytes(export_size(data, jpeg))
    err.print(f"{pluralize(len(data), 'composite')}, about {room}; depth {data.depth_source}")
    with _progress("composing", len(data)) as tell:
        written = write_export(data, folder, jpeg=jpeg, workers=workers, tell=tell)
    out.print(f"{pluralize(len(data), 'composite')} in {folder}, {written:,} of them new", soft_wrap=True)


@app.command()
def stats(
    dataset: Annotated[str, typer.Argument(help="A dataset's name; see `unetzoo list --kind datasets`.")],
    sets: Options = None,
    split: Annotated[str | None, typer.Option(help="A split; the dataset's own choice by default.")] = None,
    limit: Annotated[int | None, typer.Option(help="Look at this many samples, spread evenly.")] = None,
    workers: Workers = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print mean and standard deviation of a dataset's channels and depth, and how much each class covers."""
    from ..datasets import statistics
    from ..training.recipe import parse_sets

    data = _build(dataset, {**({} if split is None else {"split": split}), **parse_sets(sets or [])})
    if limit is not None and limit < 1:
        raise ConfigError("wrong --limit", expected="at least 1", found=limit)
    with _progress("looking", min(len(data), limit or len(data))) as tell:
        found = statistics(data, limit=limit, workers=workers, tell=tell)
    if as_json:
        out.print_json(json.dumps(found.to_dict()))
        return
    table = Table(pluralize(found.samples, "sample"), "mean", "std", "min", "max", box=None)
    for row in (*found.image, *([found.depth] if found.depth else [])):
        table.add_row(row.name, *(f"{value:.4f}" for value in (row.mean, row.std, row.minimum, row.maximum)))
    out.print(table)
    for name, share in found.classes.items():
        out.print(f"{name} covers {share:.2%}")
    out.print(f"\n{found.recipe_line}", soft_wrap=True)


def _build(name: str, options: dict[str, Any]) -> Any:
    if missing := missing_keywords(DATASETS.get(name), options):
        raise ConfigError(f"{name} needs {', '.join(missing)}", hint=f"--set {missing[0]}=…")
    return DATASETS.build(name, **options)


@contextlib.contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich.progress import Progress

    with Progress(console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)
