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
from .console import AsJson, Quiet, app, err, out

Workers = Annotated[
    int | None,
    typer.Option(metavar="N", help="Number of processes; 0 for none besides this one. Default: one per CPU."),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Argument of the dataset, e.g. classes=2. May be repeated."),
]


@app.command(epilog="Example: unetzoo compose scenes --count 200 --size 128")
def compose(
    folder: Annotated[
        Path, typer.Argument(metavar="OUT", help="A new or empty folder, or one that an earlier call began to fill.")
    ],
    root: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A folder with fg/ and bg/. Default: drawn images.")
    ] = None,
    count: Annotated[int, typer.Option(metavar="N", help="Number of composites.")] = 1000,
    every: Annotated[
        bool, typer.Option("--all", help="Every cut-out in every scene, at 20 places of a grid, mirrored or not.")
    ] = False,
    split: Annotated[str, typer.Option(metavar="SPLIT", help="train, val, test or all.")] = "all",
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the combinations.")] = 0,
    size: Annotated[int, typer.Option(metavar="N", help="Side of the square images.")] = 192,
    positions: Annotated[str, typer.Option(metavar="WHERE", help="random or grid.")] = "random",
    jpeg: Annotated[
        int | None,
        typer.Option(
            metavar="QUALITY", help="Write images and depth as JPEG of this quality, as the original data are; lossy."
        ),
    ] = None,
    sets: Options = None,
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Write composites with their masks and depth as files, named as the original data. Continues after a kill."""
    from ..datasets import write_export
    from ..datasets.compose import export_size, gigabytes
    from ..training.recipe import parse_sets

    which = {"length": "all", "positions": "grid"} if every else {"length": count, "positions": positions}
    options = {"split": split, "size": size, "seed": seed, **which, **({} if root is None else {"root": root})}
    data = _build("composites", {**options, **parse_sets(sets or [])})
    space = gigabytes(export_size(data, jpeg))
    err.print(f"{pluralize(len(data), 'composite')}, about {space}; depth {data.depth_source}")
    with _progress("composing", len(data), shown=not quiet) as advance:
        written = write_export(data, folder, jpeg=jpeg, workers=workers, tell=advance)
    out.print(f"{pluralize(len(data), 'composite')} in {folder}, {written:,} of them new", soft_wrap=True)


@app.command(epilog="Example: unetzoo stats isbi2012 --set root=data/isbi2012")
def stats(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="Name of a dataset; see `unetzoo list --kind datasets`.")
    ],
    sets: Options = None,
    split: Annotated[str | None, typer.Option(metavar="SPLIT", help="Split. Default: the dataset's own.")] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="Read only N samples, evenly spread.")] = None,
    workers: Workers = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Print mean and standard deviation of a dataset's channels and depth, the share of each class, and with the
    option range=percentile the range of values to declare.
    """
    from ..datasets import statistics
    from ..datasets.stats import clipping
    from ..training.recipe import parse_sets

    data = _build(dataset, {**({} if split is None else {"split": split}), **parse_sets(sets or [])})
    if limit is not None and limit < 1:
        raise ConfigError("wrong --limit", expected="at least 1", found=limit)
    with _progress("reading", min(len(data), limit or len(data)), shown=not quiet) as advance:
        found = statistics(data, limit=limit, workers=workers, tell=advance)
    if as_json:
        out.print_json(json.dumps(found.to_dict()))
        return
    table = Table(pluralize(found.samples, "sample"), "mean", "std", "min", "max", box=None)
    for row in (*found.image, *([found.depth] if found.depth else [])):
        table.add_row(row.name, *(f"{value:.4f}" for value in (row.mean, row.std, row.minimum, row.maximum)))
    out.print(table)
    for name, share in found.classes.items():
        out.print(f"{name} covers {share:.2%}")
    if outside := clipping(data):
        err.print(f"warning: {outside}", soft_wrap=True, markup=False)
    out.print(f"\n{found.recipe_line}", soft_wrap=True, markup=False)


def _build(name: str, options: dict[str, Any]) -> Any:
    if missing := missing_keywords(DATASETS.get(name), options):
        raise ConfigError("missing arguments", subject=name, found=", ".join(missing), hint=f"--set {missing[0]}=…")
    return DATASETS.build(name, **options)


@contextlib.contextmanager
def _progress(what: str, total: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
    from rich.progress import Progress

    with Progress(console=err, transient=True, disable=not (shown and err.is_terminal)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)
