"""`twin`: a data set in miniature, to try a recipe on without the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..errors import ConfigError
from ..wording import pluralize
from .console import app, err, out


@app.command(epilog="Example: unetzoo twin cityscapes tiny --count 8")
def twin(
    layout: Annotated[
        str, typer.Argument(metavar="LAYOUT", help="Name of a layout. Default: list all layouts and faults.")
    ] = "",
    folder: Annotated[Path | None, typer.Argument(metavar="OUT", help="A new or empty folder.")] = None,
    faults: Annotated[
        list[str] | None, typer.Option("--fault", metavar="CODE", help="Plant a fault. May be repeated.")
    ] = None,
    count: Annotated[int | None, typer.Option(metavar="N", help="Number of samples.")] = None,
    size: Annotated[int | None, typer.Option(metavar="N", help="Height of the label maps in pixels.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the drawings and of the faults' places.")] = 0,
) -> None:
    """Write a data set's layout in miniature, with drawn images: to try a recipe, or `doctor`, without the data."""
    from ..twins import LAYOUTS, plant, write

    if not layout:
        _print_layouts()
        return
    if folder is None:
        raise ConfigError("no folder for the twin", subject=layout, hint=f"unetzoo twin {layout} OUT")
    write(layout, folder, count=count, size=size, seed=seed)
    for fault in faults or []:
        touched = plant(folder, layout, fault, seed)
        more = f" and {pluralize(len(touched) - 1, 'more file')}" if len(touched) > 1 else ""
        err.print(f"{fault}: {touched[0]}{more}", soft_wrap=True)
    out.print(f"{LAYOUTS[layout].about}: in {folder}", soft_wrap=True)
    if recipe := LAYOUTS[layout].recipe:
        options = {"root": str(folder), **LAYOUTS[layout].options}
        sets = " ".join(f"--set data.{name}={value if isinstance(value, str) else json.dumps(value)}"
                        for name, value in options.items())  # fmt: skip
        out.print(f"try it: unetzoo train {recipe} --fast {sets}", soft_wrap=True)


def _print_layouts() -> None:
    from ..twins import FAULTS, LAYOUTS

    layouts = Table("layout", "description", box=None)
    for name, layout in LAYOUTS.items():
        layouts.add_row(name, layout.about)
    faults = Table("fault", "description", box=None)
    for code, fault in FAULTS.items():
        faults.add_row(code, fault.about)
    out.print(layouts)
    out.print()
    out.print(faults)
