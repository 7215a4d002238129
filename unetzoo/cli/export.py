"""`export`: a run's network as one file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from ..errors import ConfigError
from .console import app, out
from .predict import PER_CLASS, threshold_of


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    to: Annotated[
        str | None, typer.Option(help="onnx, or torch for a torch.export program; onnx unless --out says otherwise.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--out", help="The file; RUN/<model>.onnx or .pt2 by default.")] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Height and width of all images; free by default.")
    ] = None,
    threshold: Annotated[
        list[str] | None, typer.Option(help=f"Probability that gives a class: {PER_CLASS}. The run's by default.")
    ] = None,
    dtype: Annotated[str, typer.Option("--input", help="Images' numbers: uint8, or float32 for 0…1.")] = "uint8",
    verify: Annotated[bool, typer.Option(help="Compare the file with the network before it is left.")] = True,
) -> None:
    """Write preparation, network and decision as one file that runs without unetzoo."""
    from ..inference import export as write
    from ..inference.artifact import SUFFIXES
    from ..training import load_run

    trained = load_run(run)
    path = file or run / f"{trained.name}{SUFFIXES.get(to or 'onnx', '')}"
    options = {"size": _size(size), "threshold": threshold_of(threshold), "dtype": dtype, "verify": verify}
    made = write(trained, path, to=cast(Any, to), **options)
    takes = made.info["input"]
    rows, columns = takes["size"] or ("H", "W")
    out.print(f"{made.path}: {made.path.stat().st_size / 1e6:.1f} MB", soft_wrap=True)
    out.print(f"takes image {takes['dtype']} (N, {rows}, {columns}, {takes['channels']})")
    out.print(f"gives {', '.join(made.info['outputs'])}")
    if made.parity:
        parity = made.parity
        out.print(f"compared with the network: differences ≤ {parity.error:.1e}, labels {parity.labels:.2%} equal")


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)[x×](\d+)", text.strip().lower())
    if not found:
        raise ConfigError("wrong --size", expected="HEIGHTxWIDTH, e.g. 512x1024", found=repr(text))
    return int(found[1]), int(found[2])
