"""Predictions of a fold's network for its validation images, which did not train it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import gather_object

from .cleaning import candidate_counts
from .errors import CheckpointError
from .io import write_json
from .labels import LabelSpec
from .report.gallery import Gallery, LabelMaps
from .training.data import declared_groups
from .training.logs import plain
from .training.recipe import Recipe, load
from .training.run import make_dataset, make_trainer
from .training.sections import Metric
from .training.trained import best_network

HELD_OUT = "out-of-fold"


def is_predicted(run: Path) -> bool:
    """Whether the predictions of a fold are complete."""
    return (run / f"{HELD_OUT}.json").is_file()


def predict_held_out(run: Path, *, progress: bool = True) -> None:
    """Score a fold's best network on its validation images; keep counts and label maps beside the run."""
    recipe = load(run)
    recipe.train.log, recipe.train.callbacks = [], []
    dataset: Any = make_dataset(recipe, "val", progress=progress)
    if is_binary(recipe, dataset.labels):
        recipe.metrics["mask"] = [*recipe.metrics_of("mask"), Metric(name="sweep")]
    trainer = make_trainer(recipe, dataset.labels, net=best_network(run, recipe), progress=progress)
    gallery, maps = Gallery(dataset.labels, trainer.metrics, most=0), LabelMaps(run / HELD_OUT, dataset.labels)

    cleanups: list[Any] = []  # counts of each image

    def seen(output: Any, batch: dict[str, Any]) -> None:
        gallery.add(output, batch)
        for index, masks in enumerate(maps.add(output, batch, trainer.metrics.get("mask"))):
            if "prediction" not in masks:
                continue
            counted = masks["truth"] != dataset.labels.ignore_index
            if "weight" in batch:
                counted &= batch["weight"][index].cpu().numpy().reshape(counted.shape[-2:]) > 0
            cleanups.append(candidate_counts(masks["prediction"], masks["truth"], counted, dataset.labels))

    scores = trainer.evaluate(dataset, seen)
    gallery.gather()
    images = gallery.image_scores(declared_groups(dataset))
    cleanups = gather_object(cleanups)
    states = {head: metric.state() for head, metric in trainer.metrics.items() if hasattr(metric, "state")}
    if trainer.accelerator.is_main_process:
        content = {
            "scores": plain(scores),
            "cleanups": np.sum(cleanups, 0).tolist(),
            "states": {h: {name: value.tolist() for name, value in state.items()} for h, state in states.items()},
            "images": None if images is None else {
                "names": list(images.names), "groups": list(images.groups), "counts": images.counts.tolist(),
                "classes": list(images.classes),
            },
        }  # fmt: skip
        write_json(run / f"{HELD_OUT}.json", content)
    trainer.accelerator.wait_for_everyone()


def read_held_out(run: Path) -> dict[str, Any]:
    """Read the scores and counts of a fold.

    Raises:
        CheckpointError: The file is damaged.
    """
    path = run / f"{HELD_OUT}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: found[name] for name in ("scores", "states", "images", "cleanups")}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError("cannot read the scores of a fold", subject=path, found=str(error),
                              hint="delete the file, and train with --resume") from error  # fmt: skip


def is_binary(recipe: Recipe, labels: LabelSpec) -> bool:
    """Whether the masks of a recipe are decided by one threshold that no metric of the recipe sweeps yet."""
    metrics = recipe.metrics_of("mask") if "mask" in recipe.metrics else []
    several = any(metric.options.get("mode") == "multilabel" for metric in metrics)
    return bool(metrics) and labels.classes <= 2 and not several and all(metric.name != "sweep" for metric in metrics)
