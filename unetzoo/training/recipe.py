"""Recipes: one TOML file says what is trained on what. Read with `tomllib`, checked by pydantic and the registries.

Components are named, never coded; nothing is interpolated or inherited. Sections:

    [model]      name and keywords of a model
    [data]       name and keywords of a dataset; [data.train] and [data.val] differ from it per split
    [transform]  keywords of `unetzoo.datasets.Transform`; [transform.train] and [transform.val] differ per split
    [loss]       losses with weights, e.g. dice = 0.5, or [loss.mask] and [loss.depth]
    [optimizer]  name and keywords        [scheduler]  name and keywords, optional
    [metrics]    a table a head: mask = { name = "segmentation" }
    [train]      epochs, batch_size, seed, precision, workers, clip, monitor, mode, tile
"""

from __future__ import annotations

import inspect
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import ConfigError, UnknownNameError, did_you_mean
from ..registry import DATASETS, LOSSES, METRICS, MODELS, RECIPES, Registry, check_keywords, keywords
from .optim import OPTIMIZERS, SCHEDULERS


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


class Data(PerSplit):
    """The dataset."""

    name: str

    def of(self, split: str) -> dict[str, Any]:
        """The keywords of one split; `split` itself is filled in where the dataset takes it."""
        known = keywords(DATASETS.get(self.name))
        return {**({"split": split} if "split" in known else {}), **super().of(split)}


class Train(BaseModel):
    """Settings of the Trainer."""

    model_config = ConfigDict(extra="forbid")
    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=8, ge=1)
    seed: int = Field(default=0, ge=0)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    workers: int = Field(default=0, ge=0)
    clip: float | None = Field(default=None, gt=0)
    monitor: str | None = None
    mode: Literal["max", "min"] = "max"
    tile: int | None = Field(default=None, ge=1)


class Recipe(BaseModel):
    """A whole recipe, checked."""

    model_config = ConfigDict(extra="forbid")
    model: Component
    data: Data
    transform: PerSplit = Field(default_factory=PerSplit)
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
        from ..datasets import Transform

        _check("model", MODELS, self.model.name, self.model.options)
        for split in ("train", "val"):
            _check("data", DATASETS, self.data.name, self.data.of(split))
            _bind(f"transform.{split}", Transform, self.transform.of(split))
        self.loss_heads()
        for section, table, component in (
            ("optimizer", OPTIMIZERS, self.optimizer),
            ("scheduler", SCHEDULERS, self.scheduler),
        ):
            if component is not None:
                if component.name not in table:
                    hint = did_you_mean(component.name, table, section)
                    raise UnknownNameError(f"unknown {section} {component.name!r}", hint=hint)
                check_keywords(table[component.name], component.options, f"[{section}]")
        for head, component in self.metrics.items():
            check_keywords(METRICS.get(component.name), component.options, f"[metrics.{head}]")

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
    except ValueError as error:  # both decoders' errors
        raise ConfigError("cannot read the recipe", subject=name, found=str(error)) from error
    if not isinstance(table, dict):
        raise ConfigError("cannot read the recipe", subject=name, expected="a table", found=type(table).__name__)
    for assignment in sets:
        _override(table, assignment)
    try:
        recipe = Recipe.model_validate(table)
    except ValidationError as error:
        raise _explain(error, name) from error
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


def _explain(error: ValidationError, name: str) -> ConfigError:
    faults = []
    for fault in error.errors():
        place = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            section = Train if fault["loc"][0] == "train" else Recipe
            faults.append(f"unknown key {place!r} ({did_you_mean(str(fault['loc'][-1]), section.model_fields, 'key')})")
        else:
            faults.append(f"{place}: {fault['msg']}, found {fault['input']!r}")
    return ConfigError("wrong recipe", subject=name, found="; ".join(faults), hint="see docs/recipes.md for all keys")
