"""`stream`: run a trained network on one large image, from disk to disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import TTA, Blend, Device, Networks, Precision, Quiet, ShardOption, Thresholds, app, out
from .predict import ensemble_of, threshold_of


@app.command(epilog="Example: unetzoo stream runs/cells slide.tif classes.tif --memory 2GB")
def stream(
    runs: Networks,
    source: Annotated[
        Path, typer.Argument(metavar="IMAGE", help="A tiled .tif, or a .npy array of shape (H, W) or (H, W, C).")
    ],
    target: Annotated[Path, typer.Argument(metavar="CLASSES", help="Class map to write: .tif (tiled) or .npy.")],
    depth: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the depth: .tif or .npy.")] = None,
    probabilities: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the probabilities: .npy.")
    ] = None,
    instances: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the objects: a label image, .tif or .npy, and a table, .csv."),
    ] = None,
    tile: Annotated[
        int | None, typer.Option(metavar="SIZE", help="Tile size, context included. Default: what fits into --memory.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory for tiles and buffers, e.g. 2GB. Default: 1GB.")
    ] = None,
    blend: Blend = "exact",
    tta: TTA = None,
    threshold: Thresholds = None,
    precision: Precision = None,
    device: Device = "auto",
    shard: ShardOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an unfinished result.")] = False,
    quiet: Quiet = False,
) -> None:
    """Predict one large image, up to gigapixels, from disk to disk in bounded memory."""
    from ..inference import predict_to

    limit = threshold_of(threshold)
    streamed = predict_to(
        ensemble_of(runs, device, limit),
        source,
        target,
        depth=depth,
        probabilities=probabilities,
        instances=instances,
        tile="auto" if tile is None else tile,
        blend=blend,  # pyright: ignore[reportArgumentType] -- checked where it is used
        tta=tta,
        precision=precision,  # pyright: ignore[reportArgumentType] -- checked where it is used
        threshold=limit,
        memory=memory,
        shard=shard,
        resume=resume,
        progress=not quiet,
    )
    out.print(f"{streamed.tiling}; {streamed.seconds:.0f} s")
    written = target.exists()
    out.print(f"the classes are in {target}" if written else f"shard {shard} of {target} is done", soft_wrap=True)
    if instances is not None and written:
        out.print(f"the objects are in {instances} and {instances.with_suffix('.csv')}", soft_wrap=True)
