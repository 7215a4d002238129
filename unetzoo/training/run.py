"""Runs: a recipe becomes objects, a folder with everything needed to repeat it, pictures and scores.

RUN/  recipe.json  environment.json  labels.json  metrics.jsonl  scores.json  best/  checkpoints/
curves.png  predictions/
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from .._version import __version__
from ..datasets import Transform, sample_rng
from ..errors import CheckpointError, ConfigError, RunLockedError
from ..labels import LabelSpec
from ..registry import DATASETS, LOSSES, METRICS, MODELS, keywords
from . import checkpoint, report
from .loader import without_transform
from .optim import make_optimizer, make_scheduler
from .recipe import Recipe, load
from .trainer import Trainer


@dataclass(frozen=True)
class Result:
    """What a run came to: its folder, the scores of its best network, and those of the dataset's own baseline."""

    out: Path
    scores: dict[str, float]
    baseline: dict[str, float]


def make_dataset(recipe: Recipe, split: str) -> Any:
    """The dataset of one split, with its transform."""
    dataset = DATASETS.build(recipe.data.name, **recipe.data.of(split))
    dataset.transform = make_transform(recipe, split, dataset.labels)
    return dataset


def make_transform(recipe: Recipe, split: str, labels: LabelSpec) -> Transform:
    """The transform of one split; only the training split's augments, unless the recipe says otherwise."""
    return Transform(**{"train": split == "train", "labels": labels, **recipe.transform.of(split)})


def make_trainer(
    recipe: Recipe, labels: LabelSpec, *, out: Path | None = None, net: Any = None, progress: bool = True
) -> Trainer:
    """The Trainer that a recipe describes.

    Args:
        recipe: The recipe.
        labels: The dataset's label set.
        out: Run folder.
        net: A ready network; built from the recipe otherwise.
        progress: Show a progress bar.

    Raises:
        ConfigError: Parts that do not fit together.
    """
    classes = recipe.model.options.get("classes", 1)
    if classes != labels.classes and not (classes == 1 and labels.classes == 2):
        raise ConfigError(
            "network and data disagree",
            subject="model.classes",
            expected=f"{labels.classes} ({', '.join(labels.names)})" + (", or 1" if labels.classes == 2 else ""),
            found=classes,
            hint=f"--set model.classes={labels.classes}",
        )
    torch.manual_seed(recipe.train.seed)
    net = net if net is not None else MODELS.build(recipe.model.name, **recipe.model.options)
    loss = LOSSES.build("multitask", heads=recipe.loss_heads(), classes=classes, ignore_index=labels.ignore_index)
    optimizer = make_optimizer(net, recipe.optimizer.name, **recipe.optimizer.options)
    settings = recipe.train
    scheduler = recipe.scheduler and make_scheduler(
        optimizer, recipe.scheduler.name, epochs=settings.epochs, mode=settings.mode, **recipe.scheduler.options
    )
    return Trainer(
        net,
        loss,
        metrics=make_metrics(recipe, labels),
        optimizer=optimizer,
        scheduler=scheduler,
        out=out,
        record=recipe.to_dict(),
        progress=progress,
        **settings.model_dump(),
    )


def make_metrics(recipe: Recipe, labels: LabelSpec) -> dict[str, Any]:
    """The recipe's metrics by head, told of the label set where they take it."""
    metrics = {}
    for head, component in recipe.metrics.items():
        known = keywords(METRICS.get(component.name))
        options = {"labels": labels} if "labels" in known else {}
        metrics[head] = METRICS.build(component.name, **options, **component.options)
    return metrics


def train(
    source: str | Path,
    sets: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> Result:
    """Train a recipe into a run folder and score its best network.

    Args:
        source: A recipe's name, its file, or a run folder whose recipe is to be run again.
        sets: Overrides, `section.key=value`.
        out: Run folder; `runs/<recipe>` by default, with a number where that exists.
        resume: Go on with the run in `out` (or `source`, when that is a run folder).
        progress: Show a progress bar.
        say: Where to tell what is done.

    Raises:
        ConfigError: A wrong recipe, or a run folder that holds another run.
        RunLockedError: Another process writes to the folder.
    """
    recipe = load(source, sets)
    folder = _run_folder(source, out, resume)
    train_data, val_data = make_dataset(recipe, "train"), make_dataset(recipe, "val")
    trainer = make_trainer(recipe, train_data.labels, out=folder, progress=progress)
    main = trainer.accelerator.is_main_process
    with _locked(folder) if main else contextlib.nullcontext():
        if main:
            checkpoint.clean(folder / "checkpoints")
            _describe(folder, recipe, train_data.labels)
            say(f"{recipe.model.name} on {recipe.data.name}: {len(train_data)} training, {len(val_data)} validation")
        trainer.fit(train_data, val_data, resume=resume)
        if (folder / "best").exists():
            trainer.net.load_state_dict(_best(folder).state_dict())
        scores = trainer.evaluate(val_data)
        baseline = baseline_scores(recipe, val_data) if main else {}
        if main:
            _write_json(folder / "scores.json", {"best": scores, "baseline": baseline})
            report.curves(trainer.history, folder / "curves.png")
            report.predictions(trainer.answers(val_data), val_data.labels, folder / "predictions")
    return Result(folder, scores, baseline)


def evaluate(run: str | Path, sets: Sequence[str] = (), *, progress: bool = True) -> dict[str, float]:
    """Score a run's best network on its validation data (or other data, by `sets`).

    Raises:
        ConfigError: Not a run folder.
        CheckpointError: No network in it.
    """
    recipe = load(run, sets)
    dataset = make_dataset(recipe, "val")
    trainer = make_trainer(recipe, dataset.labels, net=_best(Path(run)), progress=progress)
    return trainer.evaluate(dataset)


def load_run(run: str | Path) -> tuple[Any, LabelSpec, Callable[[Any], torch.Tensor]]:
    """What predictions need of a run: the best network, the label set, and its preparation of pictures.

    The preparation takes a uint8 array (H, W, C) to a float tensor (C, h, w), as validation does.

    Raises:
        ConfigError: Not a run folder.
        CheckpointError: No network in it.
    """
    recipe = load(run)
    try:
        labels = LabelSpec.from_dict(json.loads((Path(run) / "labels.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError("cannot read the run's label set", subject=run, found=str(error)) from error
    transform = make_transform(recipe, "val", labels)
    return _best(Path(run)), labels, lambda picture: transform({"image": picture}, sample_rng(0, 0, 0))["image"]


def baseline_scores(recipe: Recipe, dataset: Any) -> dict[str, float]:
    """Scores of the dataset's own `baseline(sample) -> labels`, by the mask's metric; empty when it offers none."""
    if not hasattr(dataset, "baseline") or "mask" not in recipe.metrics:
        return {}
    metric = make_metrics(recipe, dataset.labels)["mask"]
    raw = without_transform(dataset)
    for index in range(len(raw)):
        sample = raw[index]
        labels = raw.baseline(sample)
        if labels is None:
            return {}
        pair = (torch.from_numpy(np.asarray(mask, dtype=np.int64))[None] for mask in (labels, sample["mask"]))
        metric.update(*pair)
    return metric.compute()


def _best(folder: Path) -> Any:
    from ..models import from_pretrained

    if not (folder / "best").exists():
        raise CheckpointError("no trained network", subject=folder, expected="the folder 'best' in it")
    return from_pretrained(folder / "best")


def _run_folder(source: str | Path, out: str | Path | None, resume: bool) -> Path:
    if out is None and Path(source).is_dir() and resume:
        return Path(source)
    name = Path(source).stem
    folder = Path(out) if out is not None else Path("runs") / name
    if resume or not (folder / "recipe.json").exists():
        return folder
    if out is not None:
        raise ConfigError(
            "the run folder holds a run already", subject=folder, hint="--resume it, or give another --out"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("several processes must agree on the run folder", subject=folder, hint="give --out")
    number = 2
    while (Path("runs") / f"{name}-{number}").exists():
        number += 1
    return Path("runs") / f"{name}-{number}"


class _locked:
    """One writer for a run folder."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError("cannot make the run folder", subject=folder, found=str(error)) from error
        self.folder, self.lock = folder, FileLock(folder / ".lock")

    def __enter__(self) -> None:
        try:
            self.lock.acquire(timeout=0)
        except Timeout as error:
            raise RunLockedError(
                "another process writes to this run", subject=self.folder, hint="wait for it, or give another --out"
            ) from error

    def __exit__(self, *_: object) -> None:
        self.lock.release()


def _describe(folder: Path, recipe: Recipe, labels: LabelSpec) -> None:
    _write_json(folder / "recipe.json", recipe.to_dict())
    _write_json(folder / "labels.json", labels.to_dict())
    versions = {"unetzoo": __version__, "torch": torch.__version__, "python": platform.python_version()}
    _write_json(folder / "environment.json", {**versions, "threads": torch.get_num_threads()})


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
