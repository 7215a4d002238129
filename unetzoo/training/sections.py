"""The sections of a recipe, and how each is checked against what it names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..contracts import check_built
from ..errors import ConfigError, UnetzooError, UnknownNameError, did_you_mean
from ..labels import LabelSpec
from ..registry import DATASETS, LOSSES, Registry, check_keywords, keywords, missing_keywords
from .settings import Settings

T = TypeVar("T")


class Keywords(BaseModel):
    """A table whose further keys are keywords."""

    model_config = ConfigDict(extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        """The keywords."""
        return dict(self.model_extra or {})


class Component(Keywords):
    """A registry name with keywords for what it names; the keywords are checked against its signature."""

    name: str


class Scheduler(Keywords):
    """The scheduler; without a name the learning rate stays where it is, after its warm-up."""

    name: str | None = None


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
        """The dataset of one split, with border weights where they are asked for.

        Raises:
            PluginContractError: The name builds no dataset.
        """
        dataset = DATASETS.build(self.name, **self.of(split))
        check_built(DATASETS, self.name, dataset)
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
        """The size to which images are brought before anything else is done with them, or None."""
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
        bind(f"transform.{split}", Transform, options)
        move = Transform(**options)
        return move if pipeline is None else Albumentations(pipeline, move)


class Losses(BaseModel):
    """Losses with weights by head, and how the heads are weighed against each other."""

    model_config = ConfigDict(extra="allow")
    weighting: Literal["fixed", "uncertainty"] | None = None

    def heads(self) -> dict[str, Any]:
        """A table of losses a head; those that stand directly under [loss] are the mask's.

        Raises:
            UnknownNameError: With the nearest spelling.
            ConfigError: No loss, or two tables for the mask.
        """
        known, given = LOSSES.names(), dict(self.model_extra or {})
        if not given:
            raise ConfigError("the recipe has no loss", subject="[loss]", hint="e.g. dice = 0.5")
        direct = {name: spec for name, spec in given.items() if name in known}
        heads = {name: spec for name, spec in given.items() if name not in known}
        for name, spec in heads.items():
            if not isinstance(spec, dict):
                hint = did_you_mean(name, [*known, "weighting"], "loss")
                raise UnknownNameError(f"unknown loss {name!r}", subject="[loss]", hint=hint)
            unknown = [loss for loss in spec if loss not in known]
            if unknown:
                hint = did_you_mean(unknown[0], known, "loss")
                raise UnknownNameError(f"unknown loss {unknown[0]!r}", subject=f"[loss.{name}]", hint=hint)
        if direct and "mask" in heads:
            raise ConfigError(
                "two tables for the mask", subject="[loss] and [loss.mask]", hint="put all under [loss.mask]"
            )
        return {**({"mask": direct} if direct else {}), **heads}

    def build(self, classes: int, ignore_index: int | None = None) -> Any:
        """The loss of a network with so many classes.

        Raises:
            ConfigError: Losses that refuse their keywords or each other.
        """
        weighting, heads = self.weighting or "fixed", self.heads()
        return built(
            "[loss]", LOSSES.build, "multitask",
            heads=heads, num_classes=classes, ignore_index=ignore_index, weighting=weighting,
        )  # fmt: skip


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
    callbacks: list[str | Component] = Field(default_factory=list)

    def callback_tables(self) -> list[Component]:
        """The callbacks, each as a table."""
        return [Component(name=entry) if isinstance(entry, str) else entry for entry in self.callbacks]

    def settings(self) -> dict[str, Any]:
        """Those of the Trainer."""
        return self.model_dump(include={*Settings.model_fields})

    @model_validator(mode="after")
    def _some_length(self) -> Self:
        if self.stages and (self.epochs is not None or self.steps is not None):
            raise ValueError("the stages say how long to train; leave epochs and steps out")
        if not self.stages and self.steps is None and self.epochs is None:
            self.epochs = 10
        return self


def check_component(section: str, registry: Registry, name: str, options: dict[str, Any]) -> None:
    """Whether a registry has a name, and what it stands for takes the keywords.

    Raises:
        UnknownNameError: With the nearest spelling.
        ConfigError: A required keyword is missing.
    """
    target = registry.get(name)
    check_keywords(target, options, f"[{section}] {name}")
    bind(section, target, options)


def bind(section: str, target: Any, options: dict[str, Any]) -> None:
    """Whether a target takes keywords, and lacks none.

    Raises:
        UnknownNameError: With the nearest spelling.
        ConfigError: A required one is missing.
    """
    check_keywords(target, options, f"[{section}]")
    if missing := missing_keywords(target, options):
        raise ConfigError(
            f"[{section}] lacks {', '.join(missing)}", hint=f"add it to the recipe, or --set {section}.{missing[0]}=…"
        )


def build_component(section: str, registry: Registry, name: str, **options: Any) -> Any:
    """What a registry name of the recipe stands for, built.

    Raises:
        ConfigError: It refuses its keywords.
        PluginContractError: A plugin's factory gives another kind of object.
    """
    component = built(section, registry.build, name, **options)
    check_built(registry, name, component)
    return component


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
