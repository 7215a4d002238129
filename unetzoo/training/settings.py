"""Settings of a training run, shared by recipes and the keyword arguments of the Trainer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import ConfigError, did_you_mean
from ..precision import Precision

LARGEST_SEED = 2**63 - 1
MOST_WORKERS = 1024  # a typo would otherwise start processes until the system fails


class Settings(BaseModel):
    """Settings of a run: the keyword arguments of `unetzoo.Trainer` and the table `[train]` of recipes.

    Args:
        epochs: Passes over the training data; 10 unless `steps` or stages give the length.
        steps: Optimizer steps.
        batch_size: Batch size per process.
        accumulate: Batches per optimizer step; gradients are averaged over their samples.
        drop_last: Leave out the last batch of an epoch if it is smaller.
        seed: Seed of sample order, augmentation and dropout.
        precision: "fp32", "bf16" or "fp16" (autocast; fp16 with gradient scaling, on a GPU), or "auto": "bf16" with
            `channels_last` if the hardware supports it and the network is large enough to benefit, else "fp32".
        workers: Number of loader processes.
        clip: Maximum gradient norm.
        ema: Decay of the moving average of the weights. The average is then evaluated and kept as the best network.
        freeze_encoder: Number of epochs at the start in which the encoder is frozen.
        channels_last: Keep weights and images in this memory layout.
        compile: Compile the forward pass for training.
        save_memory: Recompute cheap feature maps in the backward pass. Saves memory for slightly longer steps, with the
            same gradients (`unetzoo.recompute.save_memory`). Ignored if the network is compiled.
        sync_bn: Synchronize batch norm statistics across processes (on GPUs).
        find_unused_parameters: Allow several processes to train a network in which some parameters get no gradient.
        monitor: The score that decides which epoch is best. Default: the first score of the metrics.
        mode: Whether a larger ("max") or smaller ("min") score is better. Default: "min" for losses.
        patience: Epochs without a better score after which training stops.
        tile: Evaluate in exact tiles of this size, for images that do not fit into memory as a whole.
        keep: Number of checkpoints to keep, at least two.
        checkpoint_epochs: Epochs between checkpoints; the last epoch always writes one. By default 1, or more if
            writing would take over 2 % of the time.
        checkpoint_steps: Optimizer steps between checkpoints, if any.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    epochs: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=8, ge=1)
    accumulate: int = Field(default=1, ge=1)
    drop_last: bool = False
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    precision: Precision = "auto"
    workers: int = Field(default=0, ge=0, le=MOST_WORKERS)
    clip: float | None = Field(default=None, gt=0)
    ema: float | None = Field(default=None, gt=0, lt=1)
    freeze_encoder: int = Field(default=0, ge=0)
    channels_last: bool = False
    compile: bool = False
    save_memory: bool = False
    sync_bn: bool = False
    find_unused_parameters: bool = False
    monitor: str | None = None
    mode: Literal["max", "min"] | None = None
    patience: int | None = Field(default=None, ge=1)
    tile: int | None = Field(default=None, ge=1)
    keep: int = Field(default=2, ge=2)
    checkpoint_epochs: int | None = Field(default=None, ge=1)
    checkpoint_steps: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("epochs and steps both set the length of training; leave one out")
        return self

    def mode_of(self, monitor: str) -> str:
        """Return whether a larger ("max") or smaller ("min") score is better; "min" for losses unless `mode` is set."""
        return self.mode or ("min" if monitor.startswith(("train/", "val/")) else "max")

    def monitor_among(self, names: Sequence[str]) -> str:
        """Return the score that decides which epoch is best: the first of the metrics unless `monitor` is set.

        Raises:
            ConfigError: There is no such score.
        """
        monitor = self.monitor or next((name for name in names if "/" not in name), "train/loss")
        if monitor not in names:
            raise ConfigError(f"unknown monitor {monitor!r}", hint=did_you_mean(monitor, names, "score"))
        return monitor

    @classmethod
    def signature_of(cls, function: Callable[..., Any]) -> inspect.Signature:
        """Return a function's signature with the settings in place of its `**settings`."""
        signature = inspect.signature(function, eval_str=False)
        kept = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        added = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.annotation)
            for name, field in cls.model_fields.items()
        ]
        return signature.replace(parameters=[*kept, *added])

    @classmethod
    def checked(cls, given: Mapping[str, Any]) -> Self:
        """Check settings given as keyword arguments.

        Raises:
            ConfigError: A setting is unknown or invalid.
        """
        try:
            return cls(**given)
        except ValidationError as error:
            hint = "see unetzoo.training.Settings for all of them"
            raise ConfigError("wrong settings", subject="Trainer", found=faults(error, cls), hint=hint) from error


def faults(error: ValidationError, model: type[BaseModel]) -> str:
    """Format the errors of pydantic in one line, with suggestions for unknown keys.

    Args:
        error: The error of pydantic.
        model: The table that was validated.
    """
    lines = []
    for fault in error.errors():
        place = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            known = _fields_at(model, fault["loc"][:-1])
            lines.append(f"unknown key {place!r} ({did_you_mean(str(fault['loc'][-1]), known, 'key')})")
        elif fault["type"] == "value_error":
            lines.append(f"{place}: {fault.get('ctx', {}).get('error')}".removeprefix(": "))
        else:
            lines.append(f"{place}: {fault['msg']}, found {str(fault['input'])[:80]!r}")
    return "; ".join(lines)


def _fields_at(model: type[BaseModel], places: Sequence[str | int]) -> list[str]:
    """Return the keys of a nested table."""
    for place in places:
        field = model.model_fields.get(str(place))
        held = () if field is None else (field.annotation, *get_args(field.annotation))
        model = next((kind for kind in held if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
    return list(model.model_fields)
