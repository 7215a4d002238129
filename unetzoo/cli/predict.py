"""`predict`: run a trained network on images."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError, DataError, did_you_mean
from ..registry import WEIGHTS
from ..wording import pluralize
from .console import (
    NUMBERS,
    PER_CLASS,
    TTA,
    Blend,
    Device,
    Precision,
    Quiet,
    ShardOption,
    Thresholds,
    app,
    complain,
    err,
    out,
)

if TYPE_CHECKING:
    import torch

    from ..bundle import ModelBundle
    from ..inference.decide import Threshold


@app.command(epilog="Example: unetzoo predict runs/cells images masks --write mask,overlay")
def predict(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="A run folder, a folder of folds, the name of shipped weights, or an exported file (.onnx, .openvino, "
            ".pt2). Several are an ensemble: their probabilities are averaged.",
        ),
    ],
    images: Annotated[
        str,
        typer.Argument(
            metavar="IMAGES", help="An image, a folder, a glob pattern, or - to read a list of files from stdin."
        ),
    ],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the results.")],
    background: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Backgrounds with the same file stems, for networks that take image and background."
        ),
    ] = None,
    write: Annotated[
        str | None,
        typer.Option(
            metavar="KINDS",
            help="Comma-separated outputs: mask, color, overlay, depth, depth_color, geotiff, json; or all. Objects: "
            "instances (label image, table, outlines). For labeling tools, COCO JSON of all images: coco (polygons) or "
            "coco_rle (run lengths). uncertainty: a table of all images, the most uncertain first.",
            show_default="mask,overlay,depth,geotiff,json",
        ),
    ] = None,
    tile: Annotated[
        int | None, typer.Option(metavar="SIZE", help="Predict by tiles of this size, context included.")
    ] = None,
    blend: Blend = "exact",
    tta: TTA = None,
    precision: Precision = None,
    engine: Annotated[
        str, typer.Option(metavar="ENGINE", help="torch; or openvino or onnx, both on the CPU.")
    ] = "torch",
    device: Device = "auto",
    threshold: Thresholds = None,
    largest_component: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS", help="Keep only the largest region of a class, or of all. May be repeated."),
    ] = None,
    min_area: Annotated[
        list[str] | None, typer.Option(metavar=NUMBERS, help=f"Drop regions with fewer pixels: {PER_CLASS}.")
    ] = None,
    fill_holes: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS", help="Fill background holes in a class, or in all. May be repeated."),
    ] = None,
    workers: Annotated[int, typer.Option(metavar="N", help="Number of reading threads, and of writing threads.")] = 2,
    unsure: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            help="Write 255, or the ignore value of the labels, where no class has this probability; also "
            "writes uncertainty.csv.",
        ),
    ] = None,
    shard: ShardOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip images that a call with --resume or --shard has predicted.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Predict images of any size: class masks, colors, overlays, depth, and areas as JSON."""
    from ..inference import Cleaning, Predictor, load_artifact
    from ..inference.results import DEFAULT_PRODUCTS
    from ..loading import is_artifact

    exported = [run for run in runs if is_artifact(run)]
    if exported and len(runs) > 1:
        raise ConfigError("an exported file in an ensemble", subject=exported[0], hint="give run folders")
    on_cpu = engine != "torch" or bool(exported)
    if on_cpu and device not in ("auto", "cpu"):
        raise ConfigError("exported files and other engines run on the CPU", found=f"--device {device}")
    limit = threshold_of(threshold)
    cleaning = None  # that of the network
    if not (largest_component is min_area is fill_holes is None):
        cleaning = Cleaning(largest_component or (), areas_of(min_area), fill_holes or ())
    predictor = Predictor(
        load_artifact(exported[0]) if exported else ensemble_of(runs, "cpu" if on_cpu else device, limit),
        tile=tile,
        blend=blend,  # pyright: ignore[reportArgumentType] -- checked where it is used
        tta=tta,
        precision=precision,  # pyright: ignore[reportArgumentType] -- checked where it is used
        engine=engine,  # pyright: ignore[reportArgumentType] -- checked where it is used
        threshold=limit,
        unsure=unsure,
        cleaning=cleaning,
    )
    outcomes: list[DataError | None] = []  # one per image
    try:
        with _progress(outcomes, shown=not quiet) as seen:
            predictor.predict_files(
                _listed(images),
                folder,
                background=background,
                products=(*DEFAULT_PRODUCTS, *(["uncertainty"] if unsure else [])) if write is None else write,
                workers=workers,
                shard=shard,
                resume=resume,
                seen=seen,
            )
    finally:  # a full disk or Ctrl-C ends it later than images that could not be read
        failures = [error for error in outcomes if error is not None]
        for error in failures:
            complain(error)
    if len(failures) < len(outcomes) or not outcomes:  # all were predicted before
        out.print(f"results are in {folder}", soft_wrap=True)
    if failures:
        err.print(f"{len(failures)} of {pluralize(len(outcomes), 'image')} could not be predicted")
        raise typer.Exit(DataError.exit_code)


def usable_device(device: str) -> torch.device:
    """The device of that name; of "auto" a GPU if there is one.

    Raises:
        ConfigError: No such device, or none that can be used here.
    """
    import torch

    if device == "auto":
        device = str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else "cpu"
    try:
        return torch.zeros(1, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # what torch raises differs by device
        found = str(error).splitlines()[0]
        raise ConfigError("unusable device", subject=device, found=found, hint="--device cpu") from error


def network_of(run: Path, device: str = "cpu") -> ModelBundle:
    """The network of a run, of a saved network's folder or of shipped weights, on a device; see `usable_device`.

    Raises:
        ConfigError: No such folder or shipped weights, or an exported file.
        CheckpointError: The folder has no network, or its files are damaged.
    """
    from ..bundle import ModelBundle
    from ..loading import load

    if not run.exists() and str(run) not in WEIGHTS:
        shipped = did_you_mean(str(run), WEIGHTS.names(), "shipped network")
        raise ConfigError("no such run", subject=run, expected="a run folder, a saved network, or shipped weights",
                          hint=f"check the path, or {shipped}")  # fmt: skip
    trained = load(run)
    if not isinstance(trained, ModelBundle):
        raise ConfigError("an exported file in place of a network", subject=run,
                          hint="give the run folder; exported files work with predict")  # fmt: skip
    return trained._replace(model=trained.model.to(usable_device(device)))


def ensemble_of(runs: list[Path], device: str = "cpu", threshold: Threshold = None) -> ModelBundle:
    """The network of one run, or the ensemble of several.

    Raises:
        ConfigError: As for `network_of`, or the networks do not go together.
        CheckpointError: As for `network_of`.
    """
    from ..inference import ensemble

    networks = [network_of(run, device) for run in runs]
    return networks[0] if len(networks) == 1 else ensemble(networks, threshold)


def threshold_of(given: list[str] | None) -> Threshold:
    """`--threshold 0.4`, or `--threshold car=0.4 --threshold bus=0.3`."""
    return _numbers("--threshold", given, float) if given else None


def areas_of(given: list[str] | None) -> int | dict[str, int]:
    """`--min-area 50`, or `--min-area car=50`."""
    return _numbers("--min-area", given, int) if given else 0


def _numbers(option: str, given: list[str], kind: Callable[[str], Any]) -> Any:
    """Parse one number, or numbers by class.

    Raises:
        ConfigError: No number; one for all together with others.
    """
    table: dict[str, Any] = {}
    for text in given:
        name, _, number = text.rpartition("=")
        try:
            table[name] = kind(number)
        except ValueError as error:
            raise ConfigError(f"wrong {option}", expected=PER_CLASS, found=repr(text)) from error
    if "" in table and len(given) > 1:
        raise ConfigError(f"wrong {option}", expected=PER_CLASS, found=", ".join(given))
    return table.get("", table)


def _listed(images: str) -> str | list[str]:
    if images != "-":
        return images
    given = sys.stdin.buffer.read()
    if b"\0" in given:
        hint = "find without -print0, git without -z"
        raise DataError(
            "not a list of files", subject="stdin", expected="one path per line", found="NUL bytes", hint=hint
        )
    listed = [os.fsdecode(line) for line in given.splitlines() if line.strip()]
    if not listed:
        raise DataError("no images", subject="stdin", expected="one path per line", found="nothing")
    return listed


@contextmanager
def _progress(
    outcomes: list[DataError | None], *, shown: bool
) -> Iterator[Callable[[int, int, DataError | None], None]]:
    """A progress bar over the images with the number of failures; `outcomes` gets one entry per image."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TextColumn("left"))
    with Progress(
        *columns, TimeRemainingColumn(), console=err, disable=not (shown and err.is_terminal), transient=True
    ) as bar:
        task = bar.add_task("predicting", total=None)

        def seen(done: int, total: int, error: DataError | None) -> None:
            outcomes.append(error)
            failed = len(outcomes) - outcomes.count(None)
            description = f"predicting, {failed} failed" if failed else "predicting"
            bar.update(task, completed=done, total=total, description=description)

        yield seen
