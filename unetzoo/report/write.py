"""A finished run, from the Trainer's hands to the files that a reader opens."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointWriteError, DataError
from ..io import write_text
from ..labels import LabelSpec
from ..training.logs import read_jsonl
from ..training.progress import memory_in_use
from .curves import charts, figure, save
from .images import colors_of
from .page import Facts, page
from .samples import Gallery

if TYPE_CHECKING:
    from ..training.trainer import Trainer


def write(
    trainer: Trainer,
    gallery: Gallery,
    folder: Path,
    *,
    scores: dict[str, float],
    baseline: dict[str, float],
    environment: dict[str, Any],
    command: str = "",
) -> None:
    """Write `curves.png`, `predictions/` and `report.html`.

    Args:
        trainer: After `fit`, its metrics holding the counts of the best network.
        gallery: What the evaluation of the best network showed.
        folder: Of the run.
        scores: Of the best network.
        baseline: Of the dataset's own baseline.
        environment: Versions and machine.
        command: How the run was begun.

    Raises:
        CheckpointWriteError: A folder that cannot be written.
    """
    heads = [head for head in trainer.metrics if head != "mask"]
    metric = trainer.metrics.get("mask")
    confusion = metric.confusion.cpu().numpy() if metric is not None and hasattr(metric, "confusion") else None
    labels = _as_drawn(gallery.labels, several=confusion is not None and confusion.ndim == 3)
    facts = Facts(
        name=folder.name,
        recipe=trainer.record,
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
        events=_events(folder),
        environment=environment,
        commands=_commands(folder, command, trainer.world),
        memory=memory_in_use(),
    )
    try:
        save(figure(charts(trainer.history, heads)), folder / "curves.png")
        gallery.first.write(folder / "predictions", labels)
        write_text(folder / "report.html", page(facts))
    except OSError as error:
        raise CheckpointWriteError(
            "cannot write the report", subject=folder, found=str(error), hint="free some space, then --resume"
        ) from error


def _as_drawn(labels: LabelSpec, *, several: bool) -> LabelSpec:
    return replace(labels, palette=colors_of(labels, multilabel=True)) if several else labels


def _events(folder: Path) -> list[dict[str, Any]]:
    try:
        return read_jsonl(folder / "events.jsonl").rows
    except DataError:  # nothing happened
        return []


def _commands(folder: Path, command: str, processes: int) -> list[str]:
    """How the run was begun, and how to run its resolved recipe again."""
    start = "unetzoo" if processes == 1 else f"torchrun --nproc-per-node={processes} -m unetzoo.cli"
    again = shlex.join(["train", str(folder), "--out", f"{folder}-again"])
    return [*([f"{start} {command}"] if command else []), f"{start} {again}"]
