"""Write the report of a finished run: `report.html`, `curves.png` and `predictions/`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointWriteError, DataError
from ..io import write_text
from ..labels import LabelSpec
from ..training.logs import read_jsonl
from ..training.progress import memory_in_use
from .curves import charts
from .gallery import Gallery
from .image_scores import ImageScores
from .images import colors_of
from .page import Report, render
from .plots import figure, save

if TYPE_CHECKING:
    from ..training.trainer import Trainer

FILES = {
    "best/": "weights of the best epoch; load them with unetzoo.load and the run folder",
    "checkpoints/": "checkpoints to resume training with --resume",
    "predictions/": "the first samples with their predictions, and the predicted class indices",
    "predictions.png": "some of these predictions on one sheet",
    "scores.json": "all scores",
    "images.csv": "scores of every image, worst first",
    "metrics.csv": "losses and scores per epoch",
    "tensorboard/": "the same for TensorBoard",
    "trackers.json": "id and last step of each tracker's run, which a resumed run continues",
}


def write(
    trainer: Trainer,
    gallery: Gallery,
    folder: Path,
    *,
    scores: dict[str, float],
    baseline: dict[str, float],
    environment: dict[str, Any],
    command: str = "",
    images: ImageScores | None = None,
) -> None:
    """Write `curves.png`, `images.csv`, `predictions/` and `report.html`.

    Args:
        trainer: The Trainer after `fit`, with the counts of the best network in its metrics.
        gallery: Samples of the evaluation of the best network.
        folder: The run folder.
        scores: Scores of the best network.
        baseline: Scores of the dataset's baseline.
        environment: Versions and machine.
        command: The command that started the run, without `unetzoo`.
        images: Counts of every image of the best network.

    Raises:
        CheckpointWriteError: The folder cannot be written.
    """
    heads = [head for head in trainer.metrics if head != "mask"]
    metric = trainer.metrics.get("mask")
    confusion = metric.confusion.cpu().numpy() if metric is not None and hasattr(metric, "confusion") else None
    labels = _as_drawn(gallery.labels, several=confusion is not None and confusion.ndim == 3)
    try:
        save(figure(charts(trainer.history, heads)), folder / "curves.png")
        gallery.first.write(folder / "predictions", labels)
        if images is not None:
            images.write(folder / "images.csv")
        report = Report(
            name=folder.name,
            recipe=without_paths(trainer.record),
            labels=labels,
            history=trainer.history,
            monitor=trainer.monitor,
            best_epoch=trainer.best.epoch,
            scores=scores,
            baseline=baseline,
            heads=heads,
            confusion=confusion,
            classes=metric.names if metric is not None and confusion is not None else (),
            ranked=gallery.ranked,
            events=without_paths(_events(folder)),
            environment=environment,
            commands=_commands(folder, command, trainer.world),
            files={name: what for name, what in FILES.items() if (folder / name).exists()},
            memory=memory_in_use(),
            intervals=images.intervals() if images is not None else {},
            caution=images.warning if images is not None else "",
        )
        write_text(folder / "report.html", render(report))
    except OSError as error:
        raise CheckpointWriteError(
            "cannot write the report", subject=folder, found=str(error), hint="free some space, then --resume"
        ) from error


def without_paths(value: Any) -> Any:
    """Shorten absolute paths in a value, so that a report can be shared.

    Paths become relative to the working directory; of paths outside it, only the last part is kept.

    Examples:
        >>> without_paths({"root": "/home/ann/cells", "size": 64, "ids": ["a/b"]})
        {'root': '…/cells', 'size': 64, 'ids': ['a/b']}
    """
    if isinstance(value, Mapping):
        return {key: without_paths(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(inner) for inner in value]
    if not isinstance(value, str | os.PathLike):
        return value
    text, here = os.fspath(value), f"{Path.cwd()}{os.sep}"
    text = text.replace(here, "")
    return f"…/{Path(text).name}" if Path(text).is_absolute() else text


def _as_drawn(labels: LabelSpec, *, several: bool) -> LabelSpec:
    return replace(labels, palette=colors_of(labels, multilabel=True)) if several else labels


def _events(folder: Path) -> list[dict[str, Any]]:
    try:
        return read_jsonl(folder / "events.jsonl").rows
    except DataError:  # there were no events
        return []


def _commands(folder: Path, command: str, processes: int) -> dict[str, list[str]]:
    """Return commands that use the network and train it again.

    They are relative to the working directory, or to the parent of a run folder outside it.
    """
    run = str(without_paths(folder))
    run = folder.name if run.startswith("…") else run
    start = "unetzoo" if processes == 1 else f"torchrun --nproc-per-node={processes} -m unetzoo.cli"
    first = [f"{start} {_portable(command)}"] if command else []
    again = f"{start} {shlex.join(['train', run, '--out', f'{run}-again'])}"
    return {
        "Use it": [f"unetzoo predict {shlex.quote(run)} IMAGES OUT", f"unetzoo evaluate {shlex.quote(run)}"],
        "Train it again": [*first, again],
    }


def _portable(command: str) -> str:
    words = []
    for word in shlex.split(command):
        key, sign, value = word.rpartition("=")
        words.append(f"{key}{sign}{without_paths(value)}")
    return shlex.join(words)
