"""Recipes: one TOML file says what is trained on what. Read with `tomllib`, checked by pydantic and the registries.

Components are named, never coded; nothing is interpolated or inherited. Sections:

    [model]      name and keywords of a model
    [data]       name and keywords of a dataset; [data.train] and [data.val] differ from it per split
                 border_weights = true, or {w0 = 10, sigma = 5}: the U-Net paper's map as each sample's weight
                 cache = true, or a folder: keep decoded and resized samples on the disk (`unetzoo.datasets.cached`)
    [transform]  keywords of `unetzoo.datasets.Transform`; [transform.train] and [transform.val] differ per split;
                 albumentations = [{name = "GaussNoise", p = 0.3}, …]: a pipeline that comes before it
    [loss]       losses with weights, e.g. dice = 0.5, or [loss.mask] and [loss.depth]
    [optimizer]  name and keywords        [scheduler]  name and keywords, optional
    [metrics]    a table a head: mask = { name = "segmentation" }
    [train]      the Trainer's settings: epochs or steps, batch_size, precision, …; [[train.stages]] for growing
                 pictures, each with size, epochs and perhaps batch_size
"""

from __future__ import annotations

import inspect
import json
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import nn

from ..errors import ConfigError, UnetzooError, UnknownNameError, did_you_mean
from ..labels import LabelSpec
from ..registry import DATASETS, LOSSES, METRICS, MODELS, RECIPES, Registry, check_keywords, keywords
from .optim import Schedule, make_optimizer
from .settings import Settings, faults

T = TypeVar("T")


class Component(BaseModel):
    """A registry name with keywords for what it names; the keywords are checked against its signature."""

    model_config = ConfigDict(extra="allow")
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The keywords."""
        return dict(self.model_extra or {})


class Optimizer(Component):
    """The optimizer."""

    name: str = "adamw"


class PerSplit(BaseModel):
    """Keywords for both splits, and those in which `train` and `val` differ."""

    model_config = ConfigDict(extra="allow")
    train: dict[str, Any] = Field(default_factory=dict)
    val: dict[str, Any] = Field(default_factory=dict)

    def of(self, split: str) -> dict[str, Any]:
        """The keywords of one split."""
        return {**(self.model_extra or {}), **getattr(self, split)}


class BorderWeights(BaseModel):
    """The U-Net paper's constants."""

    model_config = ConfigDict(extra="forbid")
    w0: float = Field(default=10.0, ge=0)
    sigma: float = Field(default=5.0, gt=0)


class Data(PerSplit):
    """The dataset."""

    name: str
    border_weights: bool | BorderWeights = False
    cache: bool | str = False

    def build(self, split: str) -> Any:
        """The dataset of one split, with border weights where they are asked for."""
        dataset = DATASETS.build(self.name, **self.of(split))
        if not self.border_weights:
            return dataset
        from ..datasets import with_border_weights

        constants = self.border_weights if isinstance(self.border_weights, BorderWeights) else BorderWeights()
        return with_border_weights(dataset, **constants.model_dump())

    def of(self, split: str) -> dict[str, Any]:
        """The keywords of one split; `split` itself is filled in where the dataset takes it."""
        known = keywords(DATASETS.get(self.name))
        return {**({"split": split} if "split" in known else {}), **super().of(split)}


class Transforms(PerSplit):
    """Keywords of `Transform`, and `albumentations`: a pipeline that comes before it."""

    def first_size(self, split: str) -> Any:
        """The size to which pictures are brought before anything else is done with them, or None."""
        options = self.of(split)
        return None if "albumentations" in options else options.get("size")

    def build(self, split: str, labels: LabelSpec | None = None) -> Any:
        """The transform of one split. Only training augments, and only training works on the device.

        Raises:
            ConfigError: Unknown or missing keywords, wrong values.
        """
        from ..datasets import Albumentations, Transform

        options = {"train": split == "train", "labels": labels, **self.of(split)}
        pipeline = options.pop("albumentations", None)
        if "on" in self.val:
            raise ConfigError(
                "validation transforms stay with the loader", subject="[transform.val] on", found=self.val["on"],
                hint="put it into [transform.train]",
            )  # fmt: skip
        if split != "train":
            options.pop("on", None)
        _bind(f"transform.{split}", Transform, options)
        move = Transform(**options)
        return move if pipeline is None else Albumentations(pipeline, move)


class StageTable(BaseModel):
    """Some epochs at one size: `size` stands in the place of transform.size for training."""

    model_config = ConfigDict(extra="forbid")
    size: int | list[int]
    epochs: int = Field(ge=1)
    batch_size: int | None = Field(default=None, ge=1)


class Train(Settings):
    """Settings of the Trainer."""

    stages: list[StageTable] = Field(default_factory=list)
    tensorboard: bool = False

    @model_validator(mode="after")
    def _some_length(self) -> Self:
        if self.stages and (self.epochs is not None or self.steps is not None):
            raise ValueError("the stages say how long to train; leave epochs and steps out")
        if not self.stages and self.steps is None and self.epochs is None:
            self.epochs = 10
        return self


class Recipe(BaseModel):
    """A whole recipe, checked."""

    model_config = ConfigDict(extra="forbid")
    model: Component
    data: Data
    transform: Transforms = Field(default_factory=Transforms)
    loss: dict[str, Any]
    optimizer: Optimizer = Optimizer()
    scheduler: Component | None = None
    train: Train = Train()
    metrics: dict[str, Component] = Field(default_factory=lambda: {"mask": Component(name="segmentation")})

    def check(self) -> None:
        """Check every name and keyword before any work.

        Raises:
            UnknownNameError: With the nearest spelling.
            ConfigError: A required keyword is missing.
        """
        _check("model", MODELS, self.model.name, self.model.options)
        for split in ("train", "val"):
            _check("data", DATASETS, self.data.name, self.data.of(split))
            self.transform.build(split)
        for number, stage in enumerate(self.train.stages, start=1):
            self._check_stage(number, stage)
        heads = self.loss_heads()
        classes = self.model.options.get("classes", 1)
        built("[loss]", LOSSES.build, "multitask", heads=heads, classes=classes)
        built("[optimizer]", make_optimizer, nn.Linear(1, 1), self.optimizer.name, **self.optimizer.options)
        self.schedule()
        for head, component in self.metrics.items():
            check_keywords(METRICS.get(component.name), component.options, f"[metrics.{head}]")

    def schedule(self) -> Schedule:
        """How the learning rate moves; it does not, without [scheduler]."""
        if self.scheduler is None:
            return Schedule()
        return built("[scheduler]", Schedule, self.scheduler.name, **self.scheduler.options)

    def at_stage(self, stage: StageTable) -> Recipe:
        """The recipe with a stage's size in the place of transform.size, for the training split."""
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
                "a stage's pictures are smaller than the crop",
                subject=f"train.stages, number {number}",
                expected=f"size at least {crop}",
                found=stage.size,
                hint="leave crop out, or begin larger",
            )

    def loss_heads(self) -> dict[str, Any]:
        """The loss as a table a head; losses that stand directly under [loss] are the mask's."""
        known = LOSSES.names()
        if not self.loss:
            raise ConfigError("the recipe has no loss", subject="[loss]", hint="e.g. dice = 0.5")
        direct = {name: spec for name, spec in self.loss.items() if name in known}
        heads = {name: spec for name, spec in self.loss.items() if name not in known}
        for name, spec in heads.items():
            if not isinstance(spec, dict):
                raise UnknownNameError(
                    f"unknown loss {name!r}", subject="[loss]", hint=did_you_mean(name, known, "loss")
                )
            unknown = [loss for loss in spec if loss not in known]
            if unknown:
                hint = did_you_mean(unknown[0], known, "loss")
                raise UnknownNameError(f"unknown loss {unknown[0]!r}", subject=f"[loss.{name}]", hint=hint)
        if direct and "mask" in heads:
            raise ConfigError(
                "two tables for the mask", subject="[loss] and [loss.mask]", hint="put all under [loss.mask]"
            )
        return {**({"mask": direct} if direct else {}), **heads}

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form, which `load` reads back."""
        return self.model_dump(mode="json", exclude_none=True)


def load(source: str | Path, sets: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        source: A recipe's registry name, a `.toml` or `.json` file, or a run folder.
        sets: Overrides such as `optimizer.lr=1e-3`; values are TOML, and texts need no quotes.

    Raises:
        ConfigError: No such recipe, no valid TOML, unknown or wrong keys.

    Examples:
        >>> load("demo", ["train.epochs=3", "model.encoder_channels=[8, 16, 32]"]).train.epochs
        3
    """
    text, name, is_json = _read(source)
    try:
        table = json.loads(text) if is_json else tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # both decoders' errors
        raise ConfigError("cannot read the recipe", subject=name, found=str(error)) from error
    if not isinstance(table, dict):
        raise ConfigError("cannot read the recipe", subject=name, expected="a table", found=type(table).__name__)
    for assignment in sets:
        _override(table, assignment)
    _one_length(table, [assignment.partition("=")[0].strip() for assignment in sets])
    try:
        recipe = Recipe.model_validate(table)
    except ValidationError as error:
        hint = "see docs/recipes.md for all keys"
        raise ConfigError("wrong recipe", subject=name, found=faults(error, Recipe), hint=hint) from error
    recipe.check()
    return recipe


def parse_sets(sets: Sequence[str]) -> dict[str, Any]:
    """Assignments such as `classes=19` as a table.

    Raises:
        ConfigError: No assignment.
    """
    table: dict[str, Any] = {}
    for assignment in sets:
        _override(table, assignment)
    return table


def _read(source: str | Path) -> tuple[str, str, bool]:
    path = Path(source)
    if path.is_dir():
        path = path / "recipe.json"
        if not path.exists():
            raise ConfigError("not a run folder", subject=source, expected="recipe.json in it")
    if not path.suffix:
        found = RECIPES.get(str(source))
        if not isinstance(found, Path) and "\n" in str(found):
            return str(found), str(source), False
        path = Path(found)
    try:
        return path.read_text(encoding="utf-8"), str(source), path.suffix == ".json"
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("cannot read the recipe", subject=path, found=str(error)) from error


def _override(table: dict[str, Any], assignment: str) -> None:
    path, equals, text = assignment.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError("wrong --set", expected="section.key=value", found=assignment)
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for depth, key in enumerate(keys[:-1]):
        inner = table.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ConfigError("wrong --set", subject=assignment, found=f"{'.'.join(keys[: depth + 1])} is no table")
        table = inner
    table[keys[-1]] = value


def _check(section: str, registry: Registry, name: str, options: dict[str, Any]) -> None:
    target = registry.get(name)
    check_keywords(target, options, f"[{section}] {name}")
    _bind(section, target, options)


def _bind(section: str, target: Any, options: dict[str, Any]) -> None:
    check_keywords(target, options, f"[{section}]")
    missing = [
        p.name for p in keywords(target).values() if p.default is inspect.Parameter.empty and p.name not in options
    ]
    if missing:
        raise ConfigError(
            f"[{section}] lacks {', '.join(missing)}", hint=f"add it to the recipe, or --set {section}.{missing[0]}=…"
        )


def built(section: str, make: Callable[..., T], *given: Any, **options: Any) -> T:
    """What a component's factory makes; whatever it raises on its keywords is a fault of the recipe.

    Raises:
        ConfigError: In place of any error that is not ours.
    """
    try:
        return make(*given, **options)
    except UnetzooError:
        raise
    except Exception as error:  # a factory may raise anything
        raise ConfigError(
            f"{section} refuses its keywords", found=f"{options}: {type(error).__name__}: {error}"
        ) from error


def _one_length(table: dict[str, Any], given: list[str]) -> None:
    """An override of one of the three lengths of a run takes the place of the others."""
    train = table.get("train")
    lengths = ("epochs", "steps", "stages")
    chosen = [key for key in lengths if f"train.{key}" in given]
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
