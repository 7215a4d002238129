"""Train and evaluate recipes, each in a run folder with scores, images and everything needed to repeat the run.

RUN/  recipe.json  environment.json  labels.json  metrics.jsonl  metrics.csv  events.jsonl  scores.json  images.csv
best/  checkpoints/  report.html  curves.png  predictions/
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..datasets import BatchTransform, RepeatedDataset, cached
from ..datasets.base import SampleTransform
from ..datasets.kinds import balanced
from ..errors import ConfigError, DataError
from ..io import write_json
from ..labels import LabelSpec
from ..models.transfer import Transfer, start_from
from ..registry import CALLBACKS, METRICS, MODELS, keywords
from ..wording import pluralize
from . import checkpoint
from .baseline import baseline_scores
from .batch_size import with_batch_size
from .callbacks import Callback, RunningTrainer
from .data import declared_groups
from .environment import environment
from .folders import check_folder, run_folder
from .logs import plain
from .metrics import Every, by_head
from .normalization import check_normalization
from .optim import make_optimizer
from .override_hints import with_doctor
from .ranges import check_range, with_range
from .recipe import Recipe, load
from .schedule import Stage
from .sections import Metric, build_component
from .trained import best_network
from .trainer import Trainer


@dataclass(frozen=True)
class Result:
    """Result of a run: its folder, the scores of its best network, and those of the dataset's baseline."""

    out: Path
    scores: dict[str, float]
    baseline: dict[str, float]


def make_dataset(recipe: Recipe, split: str, *, progress: bool = True) -> Any:
    """Build the dataset of one split with its transform, cached if the recipe requires it."""
    dataset = recipe.data.build(split)
    if recipe.data.cache:
        folder = recipe.data.cache if isinstance(recipe.data.cache, str) else None
        dataset = cached(dataset, recipe.transform.first_size(split), folder=folder, progress=progress)
    if split == "train" and (recipe.data.repeat > 1 or recipe.data.balance):
        times = balanced(dataset) if recipe.data.balance else [1] * len(dataset)
        dataset = RepeatedDataset(dataset, [recipe.data.repeat * number for number in times])
    dataset.transform = make_transform(recipe, split, dataset.labels)
    return dataset


def make_transform(recipe: Recipe, split: str, labels: LabelSpec) -> SampleTransform:
    """Build the transform of one split. By default, only the training transform augments."""
    return recipe.transform.build(split, labels)


def make_batch_transform(recipe: Recipe, labels: LabelSpec) -> BatchTransform | None:
    """Build the part of the training transform that takes batches; None if all of it runs in the loader."""
    options = recipe.transform.of("train")
    for_batches = options.get("on") == "device" or options.get("cutmix") or options.get("copy_paste")
    return BatchTransform(recipe.transform.build("train", labels)) if for_batches else None


def make_trainer(
    recipe: Recipe,
    labels: LabelSpec,
    *,
    out: Path | None = None,
    net: Any = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    start: Callable[[Transfer], None] | None = None,
) -> Trainer:
    """Build the Trainer for a recipe.

    Args:
        recipe: The recipe.
        labels: The dataset's label set.
        out: Run folder.
        net: A network to use instead of building one from the recipe.
        callbacks: Additional callbacks.
        progress: Show a progress bar.
        start: Begin with the weights that the recipe names, if any, and call this with what was taken of them.

    Raises:
        ConfigError: Parts do not fit together.
        CheckpointError: The weights to begin with do not fit, or cannot be read.
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
    if net is None:
        net = build_component("[model]", MODELS, recipe.model.name, **recipe.model.options)
        check_normalization(recipe.model, recipe.transform.of("train").get("normalize", "unit"))
        if start is not None and recipe.model.start is not None:
            start(start_from(net, recipe.model.start))
    loss = recipe.make_loss(labels.ignore_index)
    stages = [
        Stage(stage.epochs, stage.batch_size, make_transform(recipe.at_stage(stage), "train", labels))
        for stage in recipe.train.stages
    ]
    return Trainer(
        net,
        loss,
        metrics=make_metrics(recipe, labels),
        optimizer=make_optimizer(net, recipe.optimizer.name, loss=loss, **recipe.optimizer.options),
        scheduler=recipe.schedule(),
        stages=stages,
        out=out,
        record=recipe.to_dict(),
        batch_transform=make_batch_transform(recipe, labels),
        callbacks=[*make_callbacks(recipe, "callbacks"), *callbacks, *make_callbacks(recipe, "log")],
        progress=progress,
        **recipe.train.settings(),
    )


def make_metrics(recipe: Recipe, labels: LabelSpec) -> dict[str, Any]:
    """Build the recipe's metrics by head, passing the label set to those that accept it."""

    def make(head: str, component: Metric) -> Any:
        options = {"labels": labels} if "labels" in keywords(METRICS.get(component.name)) else {}
        metric = build_component(f"[metrics.{head}]", METRICS, component.name, **options, **component.options)
        return metric if component.every in (None, 1) else Every(metric, component.every)

    made = {head: [make(head, component) for component in recipe.metrics_of(head)] for head in recipe.metrics}
    return by_head({head: metrics if len(metrics) > 1 else next(iter(metrics), None) for head, metrics in made.items()})


def make_callbacks(recipe: Recipe, key: Literal["log", "callbacks"]) -> list[Callback]:
    """Build the recipe's trackers or callbacks."""
    named = recipe.train.components(key)
    return [build_component(f"[train] {key}", CALLBACKS, entry.name, **entry.options) for entry in named]


class Report(Callback):
    """Writes `recipe.json` at the start, and the scores and the report of the best network at the end.

    Args:
        recipe: The recipe.
        data: The dataset on which the best network is scored.
        command: The command that started the run, for the report.
    """

    every_process = True  # evaluation needs all processes

    def __init__(self, recipe: Recipe, data: Any, command: str) -> None:
        self.recipe, self.data, self.command = recipe, data, command
        self.groups = declared_groups(data)
        self.scores: dict[str, float] = {}
        self.baseline: dict[str, float] = {}

    def on_begin(self, trainer: RunningTrainer) -> None:
        """Write the resolved recipe."""
        trainer.folder.describe({"recipe.json": self.recipe.to_dict()})

    def on_end(self, trainer: Trainer) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Score the best network and write the report, unless the run was interrupted."""
        if not trainer.finished or trainer.out is None:
            return
        from ..report.gallery import Gallery  # the report reads training's records, so it is imported last
        from ..report.write import write as write_report

        if (trainer.out / "best").exists():
            trainer.network.load_state_dict(best_network(trainer.out, self.recipe).state_dict())
        gallery = Gallery(self.data.labels, trainer.metrics)
        self.scores = trainer.evaluate(self.data, gallery.add)
        gallery.gather()
        if trainer.accelerator.is_main_process:
            metric = make_metrics(self.recipe, self.data.labels).get("mask")
            self.baseline = baseline_scores(self.data, metric, self.recipe.model.options.get("classes", 1))
            images = gallery.image_scores(self.groups)
            intervals = images.intervals() if images is not None else {}
            scores = {"epochs": len(trainer.history), "best": plain(self.scores), "baseline": plain(self.baseline)}
            known = {name: ends for name, ends in intervals.items() if np.isfinite(ends).all()}
            trainer.folder.write_json("scores.json", scores | {"intervals": known})
            write_report(
                trainer, gallery, trainer.out, images=images, scores=self.scores, baseline=self.baseline,
                environment=environment(trainer.net, trainer.device, trainer.world, trainer.precision),
                command=self.command,
            )  # fmt: skip


def train(
    source: str | Path | Recipe,
    sets: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    fast: bool = False,
    resume: bool = False,
    progress: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> Result:
    """Train a recipe into a run folder and score its best network.

    Args:
        source: Name or file of a recipe, a run folder whose recipe is run again, or a `Recipe`, e.g. from
            `unetzoo.plan`.
        sets: Overrides, `section.key=value`.
        out: Run folder. Default: `runs/<recipe>` (`runs/<recipe>-fast`), with a number appended if that exists.
        fast: Train the recipe's fast variant.
        resume: Continue the run in `out` (or in `source` if that is a run folder).
        progress: Show a progress bar.
        say: Called with a line of text about the run.

    Raises:
        ConfigError: The recipe is invalid, or the run folder holds another run.
        RunLockedError: Another process writes to the folder.
    """
    recipe = with_range(load(source, sets, fast=fast))
    folder = run_folder(source, out, fast=fast, resume=resume)
    measured = recipe.train.batch_size == "auto"
    given = recipe
    recipe = with_batch_size(given, folder, lambda: make_dataset(given, "train", progress=progress), resume=resume)
    check_folder(folder, recipe, resume)
    train_data, val_data = (make_dataset(recipe, split, progress=progress) for split in ("train", "val"))
    check_range(train_data)
    report = Report(recipe, val_data, _command(source, sets, out, fast=fast))
    resume = resume and bool(checkpoint.found(folder / "checkpoints"))
    taken: list[Transfer] = []
    trainer = make_trainer(
        recipe, train_data.labels, out=folder, callbacks=[report], progress=progress,
        start=None if resume else taken.append,
    )  # fmt: skip
    if trainer.accelerator.is_main_process:
        images = len(train_data.dataset if isinstance(train_data, RepeatedDataset) else train_data)
        say(f"{recipe.model.name} on {recipe.data.name}: {images} training, {len(val_data)} validation")
        if measured:
            say(f"batch size {recipe.train.batch_size}, from the free memory (train.batch_size)")
        for transfer in taken:
            say(f"weights of {recipe.model.start}:\n{transfer}")
    begun = folder.exists()
    try:
        trainer.fit(train_data, val_data, resume=resume)
    except DataError as error:
        if trainer.accelerator.is_main_process and not begun and not checkpoint.found(folder / "checkpoints"):
            shutil.rmtree(folder, ignore_errors=True)  # there is nothing to continue
        raise with_doctor(error, recipe.data.of("train"), train_data) from error
    return Result(folder, report.scores, report.baseline)


def evaluate(
    run: str | Path,
    sets: Sequence[str] = (),
    *,
    net: Any = None,
    progress: bool = True,
    report: str | Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, float]:
    """Score a run's best network on its validation data, or on other data selected by `sets`.

    Args:
        run: The run folder.
        sets: Overrides, `section.key=value`.
        net: A network to score in place of the run's.
        progress: Show a progress bar.
        report: Folder for the reports of the metrics, with a subfolder for each head other than the mask, and for
            data.json, which records the run and the data that were scored.
        say: Called with a line of text about the scored data.

    Returns:
        `<split>/<term>` of the loss for the split that was scored, and the scores of each metric, named as in
        [`Trainer.evaluate`][unetzoo.training.trainer.Trainer.evaluate].

    Raises:
        ConfigError: The folder is not a run folder.
        CheckpointError: The folder has no network.
        DataError: The data is faulty, or the report cannot be written.
    """
    recipe = load(run, sets)
    recipe.train.callbacks, recipe.train.log = [], []  # they belong to training
    dataset = make_dataset(recipe, "val", progress=progress)
    network = best_network(Path(run), recipe) if net is None else net
    trainer = make_trainer(recipe, dataset.labels, net=network, progress=progress)
    options = recipe.data.of("val")
    split = str(options.get("split", "val"))
    if trainer.accelerator.is_main_process:
        say(f"{recipe.model.name} on {recipe.data.name}, {split}: {pluralize(len(dataset), 'sample')}")
    scores = trainer.evaluate(dataset, split=split)
    if report is not None and trainer.accelerator.is_main_process:
        facts = {"run": str(run), "dataset": recipe.data.name, "options": options, "samples": len(dataset)}
        _write_scores_report(trainer.metrics, Path(report), facts)
    return scores


def _write_scores_report(metrics: Mapping[str, Any], folder: Path, data: dict[str, Any]) -> None:
    for head, metric in metrics.items():
        if hasattr(metric, "report"):
            metric.report(folder if head == "mask" else folder / head)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "data.json", data)
    except OSError as error:
        raise DataError("cannot write scores", subject=folder, found=str(error)) from error


def _command(source: str | Path | Recipe, sets: Sequence[str], out: str | Path | None, *, fast: bool) -> str:
    if isinstance(source, Recipe):
        return ""  # made in Python
    words = ["train", str(source), *(["--fast"] if fast else [])]
    words += [word for assignment in sets for word in ("--set", assignment)]
    return shlex.join([*words, *(["--out", str(out)] if out is not None else [])])
