"""`predict_to`: predict an image on disk and write label maps to disk, one row of windows at a time."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from ..bundle import ModelBundle, Preprocess
from ..errors import ConfigError
from ..images import Pixels
from ..images.array_source import ImageSource, Sliced
from ..images.georeference import Georeference
from ..images.source import open_source
from ..labels import LabelSpec
from ..modules import evaluation_mode, fingerprint
from ..precision import Precision
from ..terminal import progress_console
from .bands import Bands, part_of
from .decide import Threshold
from .images import PathLike, check_channels, files_for, in_channels_of
from .joining import ObjectJoiner
from .outputs import Outputs
from .planner import Memory, TilingPlan, fit_windows, parse_memory
from .resumable_writer import ResumableWriter, note_of
from .shards import Shard
from .stitching import arriving, overlap, pieces
from .tiling import Tile, batches, predict_windows
from .tta import TTALike, as_tta
from .window_predictor import Heads, WindowPredictor
from .window_reader import WindowReader
from .windows import Blend, WindowPlan, canvas_length

MEMORY = 10**9  # default bytes for windows and buffers
PART = 1024  # columns that are read at once to find missing data
T = TypeVar("T")


class Streamed(NamedTuple):
    """Summary of a `predict_to` call.

    Args:
        tiling: The windows, the batch size, and the memory used in bytes.
        rows: Number of output rows computed by this call; only the remaining rows after `resume`.
        seconds: Duration.
    """

    tiling: TilingPlan
    rows: int
    seconds: float


def predict_to(
    network: nn.Module | ModelBundle,
    source: PathLike | Sliced,
    target: PathLike,
    *,
    depth: PathLike | None = None,
    probabilities: PathLike | None = None,
    instances: PathLike | None = None,
    tile: Tile = "auto",
    blend: Blend = "exact",
    tta: TTALike = None,
    labels: LabelSpec | None = None,
    preprocess: Callable[[np.ndarray], Tensor] | None = None,
    threshold: Threshold = None,
    memory: Memory = None,
    precision: Precision | None = None,
    pixels: Pixels | None = None,
    shard: str | Sequence[int] | None = None,
    resume: bool = False,
    progress: bool = False,
) -> Streamed:
    """Predict an image window by window and write its label map incrementally; neither is ever fully in memory.

    The output is the same as that of `predict` with the same `tile`, `blend` and `tta`. Results are named
    `<target>.part` until they are complete. If the process is interrupted or killed or the disk is full, `resume=True`
    continues after the last finished row of windows.

    Args:
        network: As for `predict`, or a `ModelBundle` (`unetzoo.load`). Labels, preprocessing and threshold
            attached to a trained or loaded network are used unless given here.
        source: A TIFF file with tiles or strips, a `.npy` file, or any object with `shape`, `dtype` and slicing:
            (H, W) or (H, W, C). From a TIFF file the network gets the same pixels as in `Predictor`.
        target: `.npy` (memory-mapped array) or `.tif` (tiled, uncompressed) file for the label map (H, W): uint8, or
            uint16 for more than 256 classes; 0 and 1 for a network with one channel. TIFF files keep the georeference
            of a GeoTIFF; pixels without data get the value 255 (65,535 of uint16), or NaN in the depth.
        depth: `.npy` or `.tif` file for the depth, float32 (H, W), for networks with a depth head.
        probabilities: `.npy` file for the probabilities, float16 (H, W, classes).
        instances: `.npy` or `.tif` file for the number of the object of each pixel, uint32 (H, W), 0 for the
            background; a table of the objects is written beside it as `.csv`. The objects are those of
            `SegmentationResult.objects` for the whole image, in another order.
        tile: As for `predict`.
        blend: As for `predict`.
        tta: As for `predict`, but only flips and quarter turns: other angles and scales need the whole image.
        labels: As for `predict`.
        preprocess: The preprocessing used in validation: array (h, w, C) as in the source, or float32 in 0…1 if
            `pixels` declares a range → float tensor (C, h, w). It
            is called on windows, so it must treat every pixel alike and preserve the size. For a `Preprocess` that
            normalizes by statistics of the image, the image is read once in advance.
        threshold: Probability above which a pixel has a class, as for `Predictor`; by default the most probable class
            wins.
        memory: Memory for windows and buffers, excluding weights, in bytes or as a string such as "2GB". 1 GB by
            default; on a GPU, half of its free memory for windows, and 1 GB on the host.
        precision: As for `Predictor`.
        pixels: As for `Predictor`.
        shard: "3/16" or (3, 16) predicts the third of 16 bands of rows, so that 16 machines share the image. Each band
            is written to `<target>.3-of-16.npy`; the shard that ends last joins them, and removes them.
        resume: Whether to continue an unfinished result.
        progress: Whether to show a progress bar.

    Raises:
        ConfigError: The preprocessing is unknown; the target exists, cannot be written or does not fit on the disk;
            there is an unfinished result without `resume`, or one of a different network, source or setting; the views
            cannot be streamed; objects are too large for the memory, or those of masks with a cleanup; or as for
            `predict`.
        DataError: The source has an unknown format, or is damaged or truncated.
        InputShapeError: The number of channels of the source differs from the network's.

    Examples:
        >>> import tempfile, unetzoo
        >>> net = unetzoo.build("bnunet", classes=3, encoder_channels=(4, 8, 16))
        >>> image = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     streamed = predict_to(net, image, f"{folder}/classes.npy", tile=128, preprocess=unetzoo.Preprocess())
        ...     classes = np.load(f"{folder}/classes.npy")
        >>> classes.shape, classes.dtype, str(streamed.tiling.plan.tile)
        ((300, 200), dtype('uint8'), '(112, 124)')
        >>> bool((classes == unetzoo.predict(net, image).argmax(0).numpy()).mean() > 0.999)
        True
    """
    began, part = time.monotonic(), Shard.of(shard)
    bundle = ModelBundle.of(network).known(labels=labels, preprocess=preprocess, threshold=threshold, pixels=pixels)
    if bundle.mode == "multilabel":
        raise ConfigError(
            "a label map cannot hold several labels per pixel",
            subject=bundle.name,
            hint="unetzoo.predict in parts, or a network of exclusive classes",
        )
    by_border = bundle.objects is not None and bundle.objects.border
    if instances is not None and not by_border and bundle.cleaning is not None and bundle.cleaning.to_dict():
        raise ConfigError(
            "objects of cleaned masks need the whole image",
            subject=bundle.name,
            found=bundle.cleaning,
            hint="unetzoo predict --write instances, or a bundle with cleaning=None",
        )
    net, labels, threshold = bundle.model, bundle.labels, bundle.threshold
    precision = bundle.predicting_precision() if precision is None else precision
    predictor = WindowPredictor(net, as_tta(tta), labels, precision=precision)
    if not predictor.exact:
        raise ConfigError(
            "other angles and scales need the whole image",
            found=f"tta={tta!r}",
            hint='mirrorings and quarter turns: tta="flips" or "d4"',
        )
    channels = in_channels_of(net)
    declared = bundle.pixels if bundle.pixels and channels in (None, bundle.pixels.channels) else channels
    with files_for(declared), open_source(source, declared) as image, evaluation_mode(net):
        assert bundle.preprocess is not None
        reader = WindowReader(image, bundle.preprocess)
        heads = _probed(predictor, reader)
        wanted = {"classes": target, "depth": depth, "probabilities": probabilities, "instances": instances}
        paths = {name: Path(path) for name, path in wanted.items() if path is not None}
        place = Georeference.of(source) if isinstance(source, str | os.PathLike) else None
        outputs = Outputs(net, heads, paths, threshold, labels, place, gaps=image.has_gaps, rule=bundle.objects)
        tile = _noted_tile(outputs.paths["classes"], part) if resume and tile in (None, "auto") else tile
        tiling = _tiling(predictor, image, outputs, tile, blend, memory)
        image.cache(tiling.plan.tile[0])
        recipe = {
            "network": fingerprint(net),
            "source": [list(image.shape), str(image.dtype), *_stamp(source)],
            "preprocess": _preprocessing(reader.preprocess, image),
            "pixels": declared.to_dict() if isinstance(declared, Pixels) else declared,
            "labels": None if labels is None else labels.to_dict(),
            "tile": list(tiling.plan.tile),
            "blend": blend,
            "tta": repr(predictor.tta),
            "precision": predictor.precision,
            "threshold": repr(threshold),
            "objects": repr(bundle.objects),
            "outputs": {name: str(path.resolve()) for name, path in outputs.paths.items()},
        }
        objects = None
        if instances is not None:
            limit = MEMORY if memory is None else parse_memory(memory)
            objects = ObjectJoiner(outputs.labels.names, outputs.rule, limit)
        bands, layers = Bands(part, outputs.paths, recipe, objects), outputs.layers(tiling.plan)
        rows, computed = part.rows(tiling.plan.rows.output), 0
        if not (resume and bands.in_parts and (bands.is_complete(part.number) or bands.are_joined())):
            writer = ResumableWriter(bands.layers(layers), {**recipe, "shard": part}, resume)
            computed = len(rows) - writer.done
            if computed:
                _run(predictor, reader, tiling, blend, outputs, writer, rows, progress)
            bands.finish(writer)
        bands.join(layers)
    return Streamed(tiling, computed, time.monotonic() - began)


def _run(
    predictor: WindowPredictor,
    reader: WindowReader,
    tiling: TilingPlan,
    blend: Blend,
    outputs: Outputs,
    writer: ResumableWriter,
    rows_to_write: range,
    progress: bool,
) -> None:
    plan, top, bottom = tiling.plan, rows_to_write.start, rows_to_write.stop
    needed = [i for i, s in enumerate(plan.rows.spans) if s.keep.stop > top + writer.done and s.keep.start < bottom]
    width = plan.columns.output
    bands: dict[str, np.ndarray] = {}
    chosen = itertools.islice(plan.windows(needed[0]), len(needed) * len(plan.columns.spans))
    windows = ahead(batches(chosen, reader.cut(plan), tiling.batch, pinned=predictor.on_gpu))
    columns = (
        TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TextColumn("windows"), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    shown = Progress(*columns, console=progress_console(), disable=not progress)
    with shown as bar:
        task = bar.add_task("", total=len(needed) * len(plan.columns.spans))
        outputs_of_windows = predict_windows(predictor, plan, windows, predictor.views, blend)
        parts = (piece._replace(heads=outputs.values(piece.heads)) for piece in pieces(plan, outputs_of_windows, blend))
        for rows, across, values in arriving(parts) if predictor.on_gpu else parts:
            bar.advance(task)
            start, stop = max(rows.start, top + writer.done), min(rows.stop, bottom)
            if start >= stop:
                continue
            taken = slice(start - rows.start, stop - rows.start)
            for name, array in outputs.arrays(tuple(value[taken] for value in values)).items():
                if across.start == 0:
                    bands[name] = np.empty((stop - start, width, *array.shape[2:]), array.dtype)
                bands[name][:, across.start : across.stop] = array
            if across.stop == width:
                if outputs.fills:
                    outputs.without_missing(bands, _missing(reader.source, start, stop))
                writer.write(start - top, bands)
    assert writer.done == bottom - top


def _missing(image: ImageSource, top: int, bottom: int) -> np.ndarray:
    """Where rows of an image have no data, bool (h, W); read in parts, to limit memory."""
    width = image.shape[1]
    found = np.zeros((bottom - top, width), bool)
    for left in range(0, width, PART):
        right = min(left + PART, width)
        missing = image.missing(image.read(top, bottom, left, right), top, left)
        found[:, left:right] = missing if missing is not None else False
    return found


def ahead(items: Iterable[T]) -> Iterator[T]:
    """Prefetch items: each is computed in another thread while the previous one is used."""
    source = iter(items)
    end = object()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, source, end)
        while (item := waiting.result()) is not end:
            waiting = pool.submit(next, source, end)
            yield item  # pyright: ignore[reportReturnType]


def _probed(predictor: WindowPredictor, reader: WindowReader) -> Heads:
    """Predict a small input, and check that the network accepts this image."""
    corner = reader.corner()
    check_channels(predictor.net, corner)
    side = canvas_length(predictor.geometry, 1)
    return predictor.predict(
        torch.zeros(1, len(corner), side, side, dtype=torch.float32, device="cpu"), predictor.views[:1]
    )


def _tiling(
    predictor: WindowPredictor, image: ImageSource, outputs: Outputs, tile: Tile, blend: Blend, memory: Memory
) -> TilingPlan:
    size = image.shape[:2]
    pixel = image.shape[2] * (image.dtype.itemsize + 4)

    def buffers(plan: WindowPlan) -> int:
        summed = overlap(plan.rows) * plan.columns.output * outputs.all_channels * 4 if blend != "exact" else 0
        window = 3 * plan.tile[0] * plan.tile[1] * pixel  # one being read, one preprocessed, one in the network
        return plan.rows.window * outputs.row_bytes(plan) + summed + window + image.cache_bytes(plan.tile[0])

    limit = memory if memory is not None or predictor.on_gpu else MEMORY
    room = MEMORY if predictor.on_gpu else None
    return fit_windows(predictor, image.shape[2], size, tile, blend, limit, buffers, room)


def _noted_tile(path: Path, shard: Shard) -> Tile:
    """Return the tile of an unfinished result."""
    for name in (path, part_of(path, shard)):
        try:
            height, width = json.loads(note_of(name).read_text())["recipe"]["tile"]
            return int(height), int(width)
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return "auto"


def _preprocessing(preprocess: Callable[[np.ndarray], Tensor], image: ImageSource) -> Any:
    """Identify a preprocessing by its settings or, for a function, by a hash of its output for a ramp of values."""
    if isinstance(preprocess, Preprocess):
        return preprocess.to_dict()
    height, width, channels = 64, 64, image.shape[2]
    ramp = np.linspace(0, 1, height * width * channels).reshape(height, width, channels)
    scale = np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1
    prepared = preprocess((ramp * scale).astype(image.dtype))
    return hashlib.sha256(prepared.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def _stamp(source: Any) -> list[Any]:
    if not isinstance(source, str | os.PathLike):
        return []
    facts = os.stat(source)
    return [str(Path(source).resolve()), facts.st_size, facts.st_mtime_ns]
