"""The sections of a recipe, each checked against the components that it names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..contracts import check_built
from ..errors import ConfigError, UnetzooError, UnknownNameError, did_you_mean
from ..labels import LabelSpec
from ..registry import DATASETS, LOSSES, Registry, check_keywords, keywords, missing_keywords
from .settings import Settings

T = TypeVar("T")


class Keywords(BaseModel):
    """A table whose other keys are keyword arguments."""

    model_config = ConfigDict(extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        """The keywords."""
        return dict(self.model_extra or {})


class Component(Keywords):
    """A registry name with keyword arguments, which are checked against the component's signature."""

    name: str


class Metric(Component):
    """A metric, or only its name; `every` is a number of epochs, or "end", for an expensive one."""

    every: Annotated[int, Field(ge=1)] | Literal["end"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given


class Model(Component):
    """The network; `start` names weights of a similar one to begin with: a run, a file or shipped weights."""

    start: str | None = None


class Scheduler(Keywords):
    """The scheduler; without a name the learning rate is constant after its warm-up."""

    name: str | None = None


class Optimizer(Component):
    """The optimizer."""

    name: str = "adamw"


class PerSplit(BaseModel):
    """Keyword arguments for both splits, and those that differ between `train` and `val`."""

    model_config = ConfigDict(extra="allow")
    train: dict[str, Any] = Field(default_factory=dict)
    val: dict[str, Any] = Field(default_factory=dict)

    def of(self, split: str) -> dict[str, Any]:
        """The keywords of one split."""
        return {**(self.model_extra or {}), **getattr(self, split)}


class BorderWeights(BaseModel):
    """The constants of the U-Net paper."""

    model_config = ConfigDict(extra="forbid")
    w0: float = Field(default=10.0, ge=0)
    sigma: float = Field(default=5.0, gt=0)


class Data(PerSplit):
    """The dataset."""

    name: str
    border_weights: bool | BorderWeights = False
    borders: int | None = Field(default=None, ge=1)
    cache: bool | str = False
    repeat: int = Field(default=1, ge=1)
    balance: Literal["kinds"] | None = None

    def build(self, split: str) -> Any:
        """The dataset of one split, with a class of borders and with border weights if the recipe has them.

        Raises:
            PluginContractError: The name builds no dataset.
        """
        dataset = DATASETS.build(self.name, **self.of(split))
        check_built(DATASETS, self.name, dataset)
        from ..datasets import with_border_weights, with_borders

        if self.borders is not None:
            dataset = with_borders(dataset, self.borders)
        if not self.border_weights:
            return dataset
        constants = self.border_weights if isinstance(self.border_weights, BorderWeights) else BorderWeights()
        return with_border_weights(dataset, **constants.model_dump())

    def of(self, split: str) -> dict[str, Any]:
        """The keyword arguments of one split; `split` itself is filled in if the dataset takes it."""
        known = keywords(DATASETS.get(self.name))
        return {**({"split": split} if "split" in known else {}), **super().of(split)}


class Transforms(PerSplit):
    """Keyword arguments of `Transform`, and `albumentations`: a pipeline applied before it."""

    def first_size(self, split: str) -> Any:
        """The size to which images are resized first, or None."""
        options = self.of(split)
        return None if "albumentations" in options else options.get("size")

    def build(self, split: str, labels: LabelSpec | None = None) -> Any:
        """The transform of one split. Only the training split augments, and only it can use the device.

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
    """Weighted losses by head, and how the heads are weighted against each other."""

    model_config = ConfigDict(extra="allow")
    weighting: Literal["fixed", "uncertainty"] | None = None

    def heads(self) -> dict[str, Any]:
        """One table of losses per head; losses directly under [loss] belong to the mask.

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
        """The loss of a network with `classes` classes.

        Raises:
            ConfigError: Losses that reject their arguments or do not go together.
        """
        weighting, heads = self.weighting or "fixed", self.heads()
        return built(
            "[loss]", LOSSES.build, "multitask",
            heads=heads, num_classes=classes, ignore_index=ignore_index, weighting=weighting,
        )  # fmt: skip


class StageTable(BaseModel):
    """Some epochs at one size, which replaces transform.size for training."""

    model_config = ConfigDict(extra="forbid")
    size: int | list[int]
    epochs: int = Field(ge=1)
    batch_size: int | None = Field(default=None, ge=1)


class Train(Settings):
    """Settings of the Trainer; the batch size may be "auto", as many samples as fit into the free memory."""

    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = 8  # pyright: ignore[reportIncompatibleVariableOverride]
    stages: list[StageTable] = Field(default_factory=list)
    log: list[str | Component] = Field(default_factory=list)
    callbacks: list[str | Component] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _former(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.pop("tensorboard", False):
            raise ValueError('tensorboard is now log = ["tensorboard"]')
        return given

    def components(self, key: Literal["log", "callbacks"]) -> list[Component]:
        """The trackers or callbacks, each as a component."""
        return [Component(name=entry) if isinstance(entry, str) else entry for entry in getattr(self, key)]

    def settings(self) -> dict[str, Any]:
        """The settings of the Trainer."""
        return self.model_dump(include={*Settings.model_fields})

    @model_validator(mode="after")
    def _some_length(self) -> Self:
        if self.stages and (self.epochs is not None or self.steps is not None):
            raise ValueError("stages set the length of training; leave epochs and steps out")
        if not self.stages and self.steps is None and self.epochs is None:
            self.epochs = 10
        return self


def check_component(section: str, registry: Registry, name: str, options: dict[str, Any]) -> None:
    """Check that a registry has a name, and that the component takes the keyword arguments.

    Raises:
        UnknownNameError: With the nearest spelling.
        ConfigError: A required keyword is missing.
    """
    target = registry.get(name)
    check_keywords(target, options, f"[{section}] {name}")
    bind(section, target, options)


def bind(section: str, target: Any, options: dict[str, Any]) -> None:
    """Check that a target takes all keyword arguments, and that no required one is missing.

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
    """Build the component that the recipe names.

    Raises:
        ConfigError: It rejects its arguments.
        PluginContractError: A plugin's factory returns another kind of object.
    """
    component = built(section, registry.build, name, **options)
    check_built(registry, name, component)
    return component


def built(section: str, make: Callable[..., T], *given: Any, **options: Any) -> T:
    """Call a component's factory; an error that it raises is reported as a fault of the recipe.

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
