"""`export`: write a run's network as one file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from ..errors import ConfigError
from .console import Networks, Thresholds, app, out
from .predict import ensemble_of, threshold_of


@app.command(epilog="Example: unetzoo export runs/cells --to onnx --size 512x512")
def export(
    runs: Networks,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            help="onnx, openvino, or torch for a torch.export program. Default: by the suffix of --out, else onnx.",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="File to write. Default: MODEL.onnx, .openvino or .pt2, in the folder of a single run.",
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Fixed height and width of images. Default: any.")
    ] = None,
    threshold: Thresholds = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="DTYPE",
            help="Type of input images: uint8, or float32 in [0, 1]. Default: uint8, unless the run has a range.",
        ),
    ] = None,
    verify: Annotated[bool, typer.Option(help="Compare the exported file with the network.")] = True,
    precision: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="fp32 or bf16, for openvino. Default: that of the run.")
    ] = None,
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Quantize to INT8, calibrated and scored on the run's validation data (openvino)."),
    ] = False,
) -> None:
    """Export preprocessing, network and thresholds as one file that runs without unetzoo."""
    from ..inference import Ensemble
    from ..inference import export as write
    from ..inference.artifact import SUFFIXES
    from ..training import calibration_of

    limit = threshold_of(threshold)
    trained = ensemble_of(runs, threshold=limit)
    if int8 and isinstance(trained.model, Ensemble):
        raise ConfigError("only a single run is quantized", found="an ensemble", hint="leave --int8 out")
    if file is None:
        folder = runs[0] if len(runs) == 1 and runs[0].is_dir() else Path()
        file = folder / f"{trained.name}{'.int8' if int8 else ''}{SUFFIXES.get(to or 'onnx', '')}"
    options = {"size": _size(size), "threshold": limit, "dtype": dtype, "verify": verify}
    calibration = calibration_of(runs[0]) if int8 else None
    made = write(trained, file, to=cast(Any, to), precision=cast(Any, precision), int8=calibration, **options)
    takes = made.info["input"]
    rows, columns = takes["size"] or ("H", "W")
    files = made.path.iterdir() if made.path.is_dir() else [made.path]
    out.print(f"{made.path}: {sum(file.stat().st_size for file in files) / 1e6:.1f} MB", soft_wrap=True)
    out.print(f"input: image {takes['dtype']} (N, {rows}, {columns}, {takes['channels']})")
    out.print(f"outputs: {', '.join(made.info['outputs'])}")
    if made.int8:
        kept = f"; in float32: {', '.join(made.int8.kept)}" if made.int8.kept else ""
        out.print(f"{made.int8.name}: {made.int8.before:.4f} in float32, {made.int8.after:.4f} in int8{kept}")
    if made.parity:
        parity = made.parity
        out.print(f"compared with the network: differences ≤ {parity.error:.1e}, {parity.labels:.2%} equal labels")


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)[x×](\d+)", text.strip().lower())
    if not found:
        raise ConfigError("wrong --size", expected="HEIGHTxWIDTH, e.g. 512x1024", found=repr(text))
    return int(found[1]), int(found[2])
