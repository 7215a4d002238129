"""`stream`: one large image through a trained network, from disk to disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import app, out
from .predict import moved, threshold_of


@app.command()
def stream(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    source: Annotated[Path, typer.Argument(help="An image in a tiled .tif, or a .npy array (H, W[, C]).")],
    target: Annotated[Path, typer.Argument(help="Class map to write: .tif (tiled) or .npy.")],
    depth: Annotated[Path | None, typer.Option(help="Also write the depth: .tif or .npy.")] = None,
    probabilities: Annotated[Path | None, typer.Option(help="Also write the probabilities: .npy.")] = None,
    tile: Annotated[
        int | None, typer.Option(help="Windows of this size, context included; by default what fits into --memory.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="What windows and buffers may take, e.g. 2GB; 1 GB by default.")
    ] = None,
    blend: Annotated[str, typer.Option(help="How windows meet: exact, constant or gaussian.")] = "exact",
    tta: Annotated[str | None, typer.Option(help="Test-time augmentation: flips or d4.")] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(help="Probability that gives a class: one number, or CLASS=NUMBER. The run's by default."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps; auto takes a GPU where there is one.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished result.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Predict an image of any size, gigapixels too, in bounded memory."""
    from ..inference import predict_to
    from ..training import load_run

    trained = load_run(run)
    streamed = predict_to(
        trained._replace(model=moved(trained.model, device)),
        source,
        target,
        depth=depth,
        probabilities=probabilities,
        tile="auto" if tile is None else tile,
        blend=blend,  # pyright: ignore[reportArgumentType] -- checked where it is used
        tta=tta,
        threshold=threshold_of(threshold),
        memory=memory,
        resume=resume,
        progress=not quiet,
    )
    out.print(f"{streamed.fit}; {streamed.seconds:.0f} s")
    out.print(f"the classes are in {target}", soft_wrap=True)
