"""`draw`, and the tree that `info --size` prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ..errors import ConfigError
from .console import Arguments, Model, app, out

if TYPE_CHECKING:
    from ..drawing import Part, Summary


@app.command(epilog="Example: unetzoo draw r2unet --set classes=19 --out r2unet.svg")
def draw(
    model: Model,
    file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="SVG file, or - for stdout. Default: MODEL.svg.")
    ] = None,
    size: Annotated[int | None, typer.Option(metavar="N", help="Height and width of the image. Default: 256.")] = None,
    title: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Heading. Default: the name of the network.")
    ] = None,
    sets: Arguments = None,
) -> None:
    """Draw a network as an SVG figure: levels, channels, sizes, skips, dilation, recurrence."""
    from ..drawing import draw as figure
    from ..training.recipe import parse_sets
    from ..training.sections import built

    file = file or Path(f"{model.replace(':', '-')}.svg")
    if file.suffix != ".svg" and file != Path("-"):
        raise ConfigError("figures are SVG", expected="a file that ends in .svg", found=file)
    svg = built(f"model {model!r}", figure, model, size, title=title, **parse_sets(sets or []))
    if file == Path("-"):
        typer.echo(svg, nl=False)
        return
    try:
        file.write_text(svg, encoding="utf-8")
    except OSError as error:
        raise ConfigError("cannot write the figure", subject=file, found=error.strerror) from error
    out.print(f"wrote {file}", soft_wrap=True)


def summarized(model: str, size: int | None, options: dict[str, Any]) -> Summary | None:
    """The summary of a model for images of this size; None without a size."""
    from ..drawing import summary
    from ..training.sections import built

    return None if size is None else built(f"model {model!r}", summary, model, size, **options)


def print_summary(found: Summary, depth: int) -> None:
    """Print the parts of a network as a tree of `depth` levels, and its costs."""
    table = Table("part", "class", "output", box=None, title="Parts", title_justify="left")
    for column in ("parameters", "FLOPs", "kept for training"):
        table.add_column(column, justify="right")
    for level, part in found.root.walk():
        if level <= depth:
            table.add_row(*_row(level, part))
    out.print(table)
    channels, height, width = found.input
    total = found.root
    out.print(
        f"for one image of {channels}×{height}×{width} in float32: {_count(total.flops)}FLOPs; "
        f"{_bytes(found.inference_bytes)} at most without gradients, {_bytes(total.training_bytes)} kept for training; "
        f"weights {_bytes(found.weight_bytes)}, {found.trainable:,} trainable",
        soft_wrap=True,
    )


def _row(level: int, part: Part) -> list[str | Text]:
    shapes = ["×".join(map(str, shape)) for shape in part.output]
    output = shapes[0] if len(shapes) == 1 else f"{shapes[0]} … {shapes[-1]}" if shapes else ""
    name = Text("  " * level + part.name)
    if part.calls > 1:
        name.append(f"  {part.calls}×", style="bold")
    parameters = f"{part.parameters:,}" if part.parameters else ""
    costs = [_count(part.flops) if part.flops else "", _bytes(part.training_bytes) if part.training_bytes else ""]
    return [name, part.kind, output, parameters, *costs]


def _count(number: float) -> str:
    for unit in ("", "k", "M", "G"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} T"


def _bytes(number: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.3g} {unit}" if number < 1000 else f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.3g} GiB"
