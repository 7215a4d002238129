"""`list`, `info` and `verify`."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ..errors import ConfigError
from ..registry import REGISTRIES
from .console import Arguments, AsJson, Model, app, err, out

if TYPE_CHECKING:
    from ..models.card import Info


@app.command("list", epilog="Example: unetzoo list '*unet*' --kind models")
def list_names(
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="Shell pattern, e.g. '*unet*'.")] = "*",
    kind: Annotated[str, typer.Option(metavar="KIND", help=f"One of {', '.join(REGISTRIES)}. Default: all.")] = "",
    as_json: AsJson = False,
) -> None:
    """List models, encoders, datasets, losses, metrics, recipes and weights, without importing them."""
    if kind and kind not in REGISTRIES:
        raise ConfigError("unknown kind", found=kind, hint="choose from: " + ", ".join(REGISTRIES))
    names = {k: registry.names(pattern) for k, registry in REGISTRIES.items() if kind in ("", k)}
    if as_json:
        out.print_json(json.dumps(names))
        return
    table = Table("kind", "names", box=None)
    for k, found in names.items():
        table.add_row(k, "  ".join(found) or Text("none", style="dim"))
    out.print(table)


@app.command(epilog="Example: unetzoo info r2unet --set classes=19 --size 256")
def info(
    model: Model,
    sets: Arguments = None,
    size: Annotated[
        int | None, typer.Option(metavar="N", help="Also list parts for images of this size: shapes, FLOPs, memory.")
    ] = None,
    depth: Annotated[int, typer.Option(metavar="N", help="Number of levels of parts.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Show the card of a model: source, deviations from the paper, arguments, sizes, parameters."""
    from ..models.card import info as model_info
    from ..training.recipe import parse_sets
    from ..training.sections import built
    from .draw import print_summary, summarized

    options = parse_sets(sets or [])
    with contextlib.redirect_stdout(sys.stderr):  # output printed by a plugin must not mix with ours
        found = built(f"model {model!r}", model_info, model, **options)
        parts = summarized(model, size, options)
    if as_json:
        plain = found.to_dict() | ({"summary": parts.to_dict()} if parts else {})
        out.print_json(json.dumps(plain, default=repr))  # a plugin's defaults may be anything
        return
    _print_info(found)
    if parts:
        print_summary(parts, depth)


@app.command(epilog="Example: unetzoo verify r2unet")
def verify(
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="Shell pattern of model names.")] = "*",
) -> None:
    """Measure the facts of all cards again on this machine, offline."""
    from ..models.card import verify as measure

    table = Table("model", "fact", "stated", "measured", "")
    failed = 0
    with err.status("measuring"):
        for name, fact, measured in measure(pattern):
            agrees = fact.agrees(measured)
            failed += not agrees
            mark = Text("✓", style="green") if agrees else Text("✗", style="red")
            table.add_row(name, fact.name, _number(fact.stated), _number(measured), mark)
    out.print(table)
    out.print(f"{table.row_count - failed} of {table.row_count} facts hold")
    if failed:
        raise typer.Exit(1)


def _print_info(found: Info) -> None:
    title = f"{found.card.title} · " if found.card else ""
    out.print(Text(f"{title}{found.name}", style="bold"), f" ({found.distribution} {found.version})")
    grid = Table(box=None, show_header=False, padding=(0, 2))
    if found.card:
        card = found.card
        grid.add_row("paper", f"{card.paper} ({card.year})\n{card.authors}; {card.source}; {card.figure}")
        grid.add_row("faithful", card.faithful)
    grid.add_row("parameters", f"{found.parameters:,}")
    grid.add_row("input", found.legal_sizes)
    sizes = (f"{size}² → {'×'.join(map(str, s))}" for size, s in found.output_sizes.items())
    grid.add_row("output", "\n".join(sizes) or "not known")
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


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
