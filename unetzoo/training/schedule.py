"""The length of a run and the schedule of its learning rate.

`Plan` maps epochs to stages of progressive resizing and to optimizer steps. `Schedule` sets the learning rate of every
optimizer step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from ..errors import ConfigError
from .optim import build_from_torch, check_options

SCHEDULERS: dict[str, Any] = {
    "plateau": lr_scheduler.ReduceLROnPlateau,
    "cosine": lr_scheduler.CosineAnnealingLR,
    "warm_restarts": lr_scheduler.CosineAnnealingWarmRestarts,
    "onecycle": lr_scheduler.OneCycleLR,
    "polynomial": lr_scheduler.PolynomialLR,
    "step": lr_scheduler.StepLR,
    "multistep": lr_scheduler.MultiStepLR,
    "exponential": lr_scheduler.ExponentialLR,
}
SPAN = {"cosine": "T_max", "polynomial": "total_iters", "onecycle": "total_steps"}  # keywords for the run's length
PLATEAU, ONECYCLE = lr_scheduler.ReduceLROnPlateau, lr_scheduler.OneCycleLR
MOVING = ("last_epoch", "_step_count", "base_lrs")  # kept by a scheduler when the length of the run changes
Unit = Literal["epoch", "step"]


@dataclass(frozen=True)
class Stage:
    """A number of epochs on images of one size.

    Args:
        epochs: Number of epochs.
        batch_size: Batch size per process. Default: that of the run.
        transform: Transform of the training data. Default: that of the dataset.

    Raises:
        ConfigError: A value is below 1.
    """

    epochs: int
    batch_size: int | None = None
    transform: Any = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"wrong {name} of a stage", expected="at least 1", found=value)


class Plan:
    """Stage and optimizer steps of each epoch of a run.

    Args:
        stages: The stages, in order.
        samples: Training samples per process.
        batch_size: Batch size of stages that do not set one.
        accumulate: Batches per optimizer step.
        drop_last: Leave out the last batch of an epoch if it is smaller.
        steps: Optimizer steps after which the run ends; the last stage is repeated until then.

    Examples:
        >>> plan = Plan([Stage(2)], samples=10, batch_size=2, accumulate=2)
        >>> plan.epochs, plan.steps, plan.first_step(1)
        (2, 6, 3)
        >>> plan = Plan([Stage(1)], samples=10, batch_size=2, accumulate=2, steps=7)
        >>> plan.epochs, [plan.steps_in(epoch) for epoch in range(3)], plan.is_whole(2)
        (3, [3, 3, 1], False)
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        samples: int,
        batch_size: int,
        accumulate: int,
        drop_last: bool = False,
        steps: int | None = None,
    ) -> None:
        self.stages = [stage if stage.batch_size else replace(stage, batch_size=batch_size) for stage in stages]
        self.ends = [sum(stage.epochs for stage in self.stages[: n + 1]) for n in range(len(self.stages))]
        self.accumulate = accumulate
        sizes = [stage.batch_size or 1 for stage in self.stages]
        self._samples = [samples // size * size if drop_last else samples for size in sizes]
        self._lengths = [ceil(ceil(n / size) / accumulate) for n, size in zip(self._samples, sizes, strict=True)]
        if not all(self._lengths):
            raise ConfigError(
                "no batch is full",
                subject="train.drop_last",
                found=f"{samples} samples per process in batches of {max(sizes)}",
                hint="lower train.batch_size, or set train.drop_last=false",
            )
        self.epochs = self.ends[-1] if steps is None else ceil(steps / self._lengths[-1])
        self.steps = self.first_step(self.epochs) if steps is None else steps

    def stage(self, epoch: int) -> int:
        """Return the stage of an epoch, counted from 0."""
        return next((n for n, end in enumerate(self.ends) if epoch < end), len(self.ends) - 1)

    def step_size(self, epoch: int) -> int:
        """Return the number of samples per process in an optimizer step of an epoch."""
        return (self.stages[self.stage(epoch)].batch_size or 1) * self.accumulate

    def samples_in(self, epoch: int) -> int:
        """Return the number of samples per process in an epoch; fewer in the last one if `steps` ends the run."""
        return min(self.steps_in(epoch) * self.step_size(epoch), self._samples[self.stage(epoch)])

    def smallest_batch(self, stage: int) -> int:
        """Return the number of samples in the smallest batch of a stage."""
        size = self.stages[stage].batch_size or 1
        return min(self._samples[stage] % size or size, size)

    def has_larger_batches(self, stage: int) -> bool:
        """Whether a stage has batches of more than one sample."""
        return min(self.stages[stage].batch_size or 1, self._samples[stage]) > 1

    def first_step(self, epoch: int) -> int:
        """Return the number of optimizer steps before an epoch."""
        before, steps = 0, 0
        for end, length in zip(self.ends[:-1], self._lengths, strict=False):
            steps += (min(epoch, end) - min(epoch, before)) * length
            before = end
        return steps + max(epoch - before, 0) * self._lengths[-1]

    def steps_in(self, epoch: int) -> int:
        """Return the number of optimizer steps in an epoch; fewer in the last one if `steps` ends the run."""
        return min(self._lengths[self.stage(epoch)], self.steps - self.first_step(epoch))

    def is_whole(self, epoch: int) -> bool:
        """Whether an epoch sees all samples."""
        return self.steps_in(epoch) == self._lengths[self.stage(epoch)]


class Schedule:
    """Schedule of the learning rate: a torch scheduler by name, optionally after a linear warm-up.

    Args:
        name: One of `SCHEDULERS`; None keeps the rate constant after the warm-up.
        unit: What the scheduler counts, "epoch" or "step" (optimizer step). Default: "epoch", or "step"
            for "onecycle".
        warmup: Optimizer steps over which the rate rises linearly to that of the scheduler.
        options: Keyword arguments of the torch scheduler. The length of the run is filled in for "cosine",
            "polynomial" and "onecycle".

    Raises:
        UnknownNameError: There is no such scheduler or keyword.
        ConfigError: torch rejects a value.

    Examples:
        >>> schedule = Schedule("cosine", warmup=2)
        >>> optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> schedule.build(optimizer, epochs=10, steps=100)
        >>> with schedule.rates(step=0):
        ...     optimizer.param_groups[0]["lr"]
        0.5
    """

    def __init__(self, name: str | None = None, *, unit: Unit | None = None, warmup: int = 0, **options: Any) -> None:
        if name is not None:
            check_options("scheduler", SCHEDULERS, name, options)
        elif options:
            raise ConfigError(
                "a scheduler without a name", found=", ".join(options), hint="name it, or leave these out"
            )
        if unit not in (None, "epoch", "step"):
            raise ConfigError("wrong unit", subject="scheduler", expected="'epoch' or 'step'", found=repr(unit))
        if isinstance(warmup, bool) or not isinstance(warmup, int) or warmup < 0:
            raise ConfigError("wrong warmup", subject="scheduler", expected="optimizer steps, ≥ 0", found=warmup)
        if name == "plateau" and unit == "step":
            raise ConfigError("plateau waits for a score", subject="scheduler.unit", expected="'epoch'", found="'step'")
        self.name, self.warmup, self.options = name, warmup, options
        self.unit: Unit = unit or ("step" if name == "onecycle" else "epoch")
        self.scheduler: Any = None
        if name is not None:  # raise now for values that torch rejects
            self.build(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9), epochs=2, steps=2)

    @classmethod
    def of(cls, scheduler: Any) -> Schedule:
        """Wrap a torch scheduler; a `Schedule` is returned unchanged."""
        if isinstance(scheduler, Schedule):
            return scheduler
        schedule = cls(unit="step" if isinstance(scheduler, ONECYCLE | lr_scheduler.CyclicLR) else "epoch")
        schedule.scheduler = scheduler
        return schedule

    def build(self, optimizer: Optimizer, *, epochs: int, steps: int, mode: str = "max") -> None:
        """Build the scheduler for the length of a run.

        Args:
            optimizer: The optimizer whose rate it sets.
            epochs: Epochs of the run.
            steps: Optimizer steps of the run.
            mode: For "plateau", whether the monitored score is better when larger or smaller.
        """
        self.optimizer = optimizer
        if self.name is None:
            if getattr(self.scheduler, "optimizer", optimizer) is not optimizer:
                raise ConfigError(
                    "the scheduler belongs to another optimizer",
                    subject=type(self.scheduler).__name__,
                    hint="pass the Trainer the optimizer the scheduler was built with",
                )
            total = getattr(self.scheduler, "total_steps", None)
            wanted = steps if self.unit == "step" else epochs
            if total is not None and total < wanted:
                raise ConfigError(
                    "the scheduler ends before the run",
                    subject=type(self.scheduler).__name__,
                    expected=f"total_steps of at least {wanted}",
                    found=total,
                    hint=f"build it with total_steps={wanted}, or give Schedule('onecycle')",
                )
            return
        options = dict(self.options)
        if self.name in SPAN:
            options.setdefault(SPAN[self.name], epochs if self.unit == "epoch" else steps)
        if self.name == "onecycle":
            options.setdefault("max_lr", [group["lr"] for group in optimizer.param_groups])
        if self.name == "plateau":
            options.setdefault("mode", mode)
        self.scheduler = build_from_torch("scheduler", SCHEDULERS[self.name], self.name, optimizer, options)

    @contextlib.contextmanager
    def rates(self, step: int) -> Iterator[None]:
        """Set the learning rates for an optimizer step, counted from 0; then step the scheduler if it counts steps."""
        groups = self.optimizer.param_groups
        held = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] *= self._rise(step)
        yield
        for group, rate in zip(groups, held, strict=True):
            group["lr"] = rate
        if self.unit == "step" and self.scheduler is not None:
            self.scheduler.step()

    def rate(self, step: int) -> float:
        """Return the current rate of the first parameter group at an optimizer step."""
        return self.optimizer.param_groups[0]["lr"] * self._rise(step)

    def _rise(self, step: int) -> float:
        return min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0

    def after_epoch(self, score: float) -> None:
        """Step the scheduler after an epoch, given the monitored score."""
        if isinstance(self.scheduler, PLATEAU):
            self.scheduler.step(score)
        elif self.scheduler is not None and self.unit == "epoch":
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any] | None:
        """Return the state of the scheduler as JSON-serializable values."""
        return None if self.scheduler is None else _pairs(self.scheduler.state_dict())

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Continue from a saved state, following the new length if the length of the run has changed."""
        if self.scheduler is None or state is None:
            return
        vars(self.optimizer)["_opt_called"] = True  # it stepped before the stop; torch would warn that it did not
        saved, key = _unpairs(dict(state)), SPAN.get(self.name or "", "")
        if key in saved and saved[key] != getattr(self.scheduler, key):
            self.scheduler.load_state_dict({name: saved[name] for name in MOVING if name in saved})
            scheduler = self.scheduler
            rates = scheduler._get_closed_form_lr() if hasattr(scheduler, "_get_closed_form_lr") else scheduler.get_lr()
            for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            scheduler._last_lr = rates
        else:
            self.scheduler.load_state_dict(saved)


def _pairs(value: Any) -> Any:
    """Convert mappings with keys that are not strings to lists of pairs, since keys in JSON are strings."""
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: _pairs(inner) for key, inner in value.items()}
        return {"__pairs__": [[key, _pairs(inner)] for key, inner in value.items()]}
    return [_pairs(inner) for inner in value] if isinstance(value, list | tuple) else value


def _unpairs(value: Any) -> Any:
    if isinstance(value, dict):
        pairs = value.get("__pairs__")
        return {k: _unpairs(v) for k, v in value.items()} if pairs is None else {k: _unpairs(v) for k, v in pairs}
    return [_unpairs(inner) for inner in value] if isinstance(value, list) else value
