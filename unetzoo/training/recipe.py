"""Recipes: one TOML file describes a training run. Read with `tomllib`, checked by pydantic and the registries.

Components are given by name; recipes contain no code, interpolation or inheritance. Sections:

    [model]      name and keywords of a model; start = a run folder, a saved network or a file: begin with its weights
    [data]       name and keywords of a dataset; [data.train] and [data.val] override it per split
                 border_weights = true, or {w0 = 10, sigma = 5}: the U-Net paper's map as each sample's weight
                 borders = 1: a third class, the border between numbered objects that touch (`unetzoo.datasets`)
                 repeat = 8: an epoch visits every training image eight times, e.g. for eight crops
                 balance = "kinds": an epoch visits rare kinds of images more often (`unetzoo.datasets.kinds`)
                 cache = true, or a folder: keep decoded and resized samples on the disk (`unetzoo.datasets.cached`)
    [transform]  keywords of `unetzoo.datasets.Transform`; [transform.train] and [transform.val] override it per split;
                 albumentations = [{name = "GaussNoise", p = 0.3}, …]: a pipeline applied before it
    [loss]       losses with weights, e.g. dice = 0.5, or [loss.mask] and [loss.depth]; weighting = "uncertainty" beside
                 those: the weights of the heads are learned
    [optimizer]  name and keywords        [scheduler]  name and keywords, optional
    [metrics]    one table per head, mask = { name = "segmentation" }, or a list of tables for several metrics;
                 every = 10 or "end": expensive ones, computed after every tenth epoch, or only at the end
    [train]      the Trainer's settings: epochs or steps, batch_size, precision, …; [[train.stages]] for growing
                 images, each with size, epochs and perhaps batch_size; log and callbacks: names, or tables with a
                 name and keywords
    [plan]       written by `unetzoo plan`: what it has based the recipe on
    [fast]       overrides for `--fast`, e.g. train.steps = 100: the recipe in minutes on a CPU
"""

from __future__ import annotations

import json
import tomllib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from ..errors import CheckpointCorruptError, ConfigError, UnknownKeywordError
from ..io import check_manifest
from ..registry import CALLBACKS, DATASETS, METRICS, MODELS, RECIPES, check_keywords
from . import checkpoint
from .normalization import fill_in_statistics
from .optim import make_optimizer
from .override_hints import with_keywords
from .schedule import Schedule
from .sections import (
    Data,
    Losses,
    Metric,
    Model,
    Optimizer,
    Scheduler,
    StageTable,
    Train,
    Transforms,
    built,
    check_component,
)
from .settings import faults

Metrics = dict[str, Metric | list[Metric]]  # one or several metrics per head


class Recipe(BaseModel):
    """A whole recipe, checked."""

    model_config = ConfigDict(extra="forbid")
    model: Model
    data: Data
    transform: Transforms = Field(default_factory=Transforms)
    loss: Losses
    optimizer: Optimizer = Optimizer()
    scheduler: Scheduler | None = None
    train: Train = Train()
    metrics: Metrics = Field(default_factory=lambda: {"mask": Metric(name="segmentation")})
    fast: Literal[True] | None = None  # that [fast] has been applied
    plan: dict[str, Any] | None = None  # what `unetzoo plan` has based the recipe on

    def check(self) -> None:
        """Check every name and keyword before any work.

        Raises:
            UnknownNameError: With the nearest spelling.
            ConfigError: A required keyword is missing.
        """
        check_component("model", MODELS, self.model.name, self.model.options)
        for split in ("train", "val"):
            check_component("data", DATASETS, self.data.name, self.data.of(split))
            self.transform.build(split)
        for number, stage in enumerate(self.train.stages, start=1):
            self._check_stage(number, stage)
        self.make_loss()
        any_net = nn.ModuleDict({"encoder": nn.Linear(1, 1), "decoder": nn.Linear(1, 1)})
        built("[optimizer]", make_optimizer, any_net, self.optimizer.name, **self.optimizer.options)
        self.schedule()
        for entry in (*self.train.components("log"), *self.train.components("callbacks")):
            check_component("train.callbacks", CALLBACKS, entry.name, entry.options)
        for head in self.metrics:
            for component in self.metrics_of(head):
                check_keywords(METRICS.get(component.name), component.options, f"[metrics.{head}]")

    def metrics_of(self, head: str) -> list[Metric]:
        """The metrics of a head."""
        given = self.metrics.get(head, [])
        return given if isinstance(given, list) else [given]

    def schedule(self) -> Schedule:
        """The schedule of the learning rate; constant without [scheduler]."""
        if self.scheduler is None:
            return Schedule()
        return built("[scheduler]", Schedule, self.scheduler.name, **self.scheduler.options)

    def at_stage(self, stage: StageTable) -> Recipe:
        """The recipe with a stage's size instead of transform.size, for the training split."""
        split = self.transform.model_copy(update={"train": {**self.transform.train, "size": stage.size}})
        return self.model_copy(update={"transform": split})

    def _check_stage(self, number: int, stage: StageTable) -> None:
        transform = self.at_stage(stage).transform
        transform.build("train")
        options = transform.of("train")
        size, crop = _sides(options["size"]), _sides(options.get("crop"))
        edge = 2 * options.get("mirror", 0)
        if size and crop and any(side + edge < window for side, window in zip(size, crop, strict=True)):
            raise ConfigError(
                "a stage's images are smaller than the crop",
                subject=f"train.stages, number {number}",
                expected=f"size at least {crop}",
                found=stage.size,
                hint="leave crop out, or begin larger",
            )

    def loss_heads(self) -> dict[str, Any]:
        """One table of losses per head; losses directly under [loss] belong to the mask."""
        return self.loss.heads()

    def make_loss(self, ignore_index: int | None = None) -> Any:
        """The loss.

        Args:
            ignore_index: Label of pixels that are not counted.
        """
        return self.loss.build(self.model.options.get("classes", 1), ignore_index)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON-able tables, which `load` reads."""
        return self.model_dump(mode="json", exclude_none=True)


def load(source: str | Path | Recipe, sets: Sequence[str] = (), *, fast: bool = False) -> Recipe:
    """Read and check a recipe.

    Args:
        source: A recipe's registry name, a `.toml` or `.json` file, a run folder, or a recipe to be changed.
        sets: Overrides such as `optimizer.lr=1e-3`; values are TOML, and strings need no quotes.
        fast: Apply the table [fast] of the recipe first.

    Raises:
        ConfigError: Unknown recipe, invalid TOML, unknown keys or invalid values.

    Examples:
        >>> load("demo", ["train.epochs=3", "model.encoder_channels=[8, 16, 32]"]).train.epochs
        3
    """
    recipe, table = _read_tables(source, sets, fast)
    try:
        recipe.check()
    except UnknownKeywordError as error:
        raise with_keywords(error, table, sets) from None
    return recipe


def recorded(folder: Path) -> Recipe:
    """The recipe of a run, whose dataset, losses and metrics need not be installed.

    Raises:
        ConfigError: Not a run folder, or the recipe is damaged.
    """
    return _read_tables(folder)[0]


def _read_tables(
    source: str | Path | Recipe, sets: Sequence[str] = (), fast: bool = False
) -> tuple[Recipe, dict[str, Any]]:
    """A recipe, not checked yet, and its tables."""
    if isinstance(source, Recipe):
        table, name, is_json = source.to_dict(), "the recipe", True
    elif Path(source).is_dir():
        table, name, is_json = saved_recipe(Path(source)), str(source), True
    else:
        text, name, is_json = _read(source)
        try:
            table = json.loads(text) if is_json else tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # both decoders' errors
            raise ConfigError("cannot read the recipe", subject=name, found=str(error)) from error
    if not isinstance(table, dict):
        raise ConfigError("cannot read the recipe", subject=name, expected="a table", found=type(table).__name__)
    _apply_fast(table, name, wanted=fast, resolved=is_json)
    for assignment in sets:
        _override(table, assignment)
    _one_length(table, [assignment.partition("=")[0].strip().removeprefix("train.") for assignment in sets])
    fill_in_statistics(table)
    try:
        return Recipe.model_validate(table), table
    except ValidationError as error:
        hint = "see docs/recipes.md for all keys"
        raise ConfigError("wrong recipe", subject=name, found=faults(error, Recipe), hint=hint) from error


def parse_sets(sets: Sequence[str]) -> dict[str, Any]:
    """A table of assignments such as `classes=19`.

    Raises:
        ConfigError: Not an assignment.
    """
    table: dict[str, Any] = {}
    for assignment in sets:
        _override(table, assignment)
    return table


def saved_recipe(folder: Path) -> dict[str, Any]:
    """The resolved recipe of a run; if `recipe.json` is damaged, that of the newest checkpoint, with a warning.

    Raises:
        ConfigError: Not a run folder, or one without a recipe.
        CheckpointCorruptError: The file is damaged, and there is no checkpoint to replace it.
    """
    path = folder / "recipe.json"
    if not path.exists() and (folder / "best").is_dir():
        raise ConfigError(
            "the run has no recipe",
            subject=folder,
            found="a run of a Trainer in Python, which only Python can repeat",
            hint="unetzoo predict and export accept it; score it from Python: "
            "Trainer(unetzoo.load(run).model, loss, metrics=…).evaluate(dataset)",
        )
    if not path.exists():
        found = "a folder without it" if folder.is_dir() else "no such folder"
        raise ConfigError("not a run folder", subject=folder, expected="recipe.json in it", found=found)
    try:
        check_manifest(folder)
        table = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(table, dict) or not table:
            raise TypeError(f"an empty table, or a {type(table).__name__}")
        return table
    except (CheckpointCorruptError, OSError, ValueError, TypeError, RecursionError) as error:
        state = checkpoint.latest_state(folder / "checkpoints")
        if state is not None and state.get("record"):
            warnings.warn(f"{error}; the recipe in the newest checkpoint is used", stacklevel=3)
            return state["record"]
        if isinstance(error, CheckpointCorruptError):
            raise
        raise ConfigError("cannot read the recipe", subject=path, found=str(error)) from error


def _read(source: str | Path) -> tuple[str, str, bool]:
    path = Path(source)
    if not path.suffix:
        found = RECIPES.get(str(source))
        if not isinstance(found, Path) and "\n" in str(found):
            return str(found), str(source), False
        path = Path(found)
    try:
        return path.read_text(encoding="utf-8"), str(source), path.suffix == ".json"
    except FileNotFoundError as error:
        raise ConfigError("cannot read the recipe", subject=path, found="no such file",
                          hint="`unetzoo list --kind recipes` names those that need no file") from error  # fmt: skip
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("cannot read the recipe", subject=path, found=str(error)) from error


def _override(table: dict[str, Any], assignment: str) -> None:
    path, equals, text = assignment.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError("wrong --set", expected="section.key=value", found=assignment)
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as error:
        value = text.strip()
        if value[:1] in ("[", "{"):  # a list whose inner quotes the shell has removed, most likely
            raise ConfigError(
                "wrong --set", subject=path.strip(), expected="a TOML list or table", found=f"{value} ({error})",
                hint=f"""quote the whole argument: --set '{path.strip()}=["background", "cell"]'; the shell removes """
                "quotes that are not inside others",
            ) from error  # fmt: skip
    for depth, key in enumerate(keys[:-1]):
        inner = table.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ConfigError("wrong --set", subject=assignment, found=f"{'.'.join(keys[: depth + 1])} is no table")
        table = inner
    table[keys[-1]] = value


def _apply_fast(table: dict[str, Any], name: str, *, wanted: bool, resolved: bool) -> None:
    """Override the recipe by the values of [fast], and note that they are applied."""
    changes = table.get("fast")
    if changes is True and resolved:  # a run's own recipe: they are in it
        return
    if not isinstance(changes, dict | None):
        raise ConfigError("wrong [fast]", subject=name, expected="a table such as train.steps = 100", found=changes)
    table.pop("fast", None)
    if not wanted:
        return
    if not changes:
        hint = "add a table [fast] to it, e.g. train.steps = 100, or change it by --set"
        raise ConfigError("the recipe has no fast variant", subject=name, hint=hint)
    _merge(table, changes)
    train = changes.get("train")
    _one_length(table, list(train) if isinstance(train, dict) else [])
    table["fast"] = True


def _merge(table: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        inner = table.get(key)
        if isinstance(inner, dict) and isinstance(value, dict):
            _merge(inner, value)
        else:
            table[key] = value


def _one_length(table: dict[str, Any], given: Sequence[str]) -> None:
    """A length of the run that is given as an override replaces the others."""
    train = table.get("train")
    lengths = ("epochs", "steps", "stages")
    chosen = [key for key in lengths if key in given]
    if isinstance(train, dict) and len(chosen) == 1:
        for key in lengths:
            if key != chosen[0]:
                train.pop(key, None)


def _sides(value: Any) -> tuple[int, int] | None:
    match value:
        case int():
            return value, value
        case [int(height), int(width)]:
            return height, width
    return None
