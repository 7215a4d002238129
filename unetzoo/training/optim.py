"""Optimizers and schedulers by name, from torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from ..errors import ConfigError, UnknownNameError, did_you_mean
from ..registry import check_keywords, keywords

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "adamax": torch.optim.Adamax,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
}
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
MOVING = ("last_epoch", "_step_count", "base_lrs")  # what a scheduler keeps when the length of the run changes
Unit = Literal["epoch", "step"]


def make_optimizer(net: nn.Module, name: str, *, loss: object = None, **options: Any) -> Optimizer:
    """An optimizer of torch over the parameters that are trained.

    Weights decay; vectors (norms and biases) and the loss's own parameters do not. The fused implementation is taken
    where there is one, unless `fused`, `foreach` or `differentiable` is given.

    Args:
        net: The network.
        name: One of `OPTIMIZERS`.
        loss: A loss, whose own parameters, if it has any, are trained too.
        options: torch's keywords.

    Raises:
        UnknownNameError: No such optimizer or keyword.
        ConfigError: A value that torch refuses.

    Examples:
        >>> adam = make_optimizer(nn.Conv2d(1, 1, 3), "adamw", weight_decay=0.1)
        >>> [(len(group["params"]), group["weight_decay"]) for group in adam.param_groups]
        [(1, 0.1), (1, 0.0)]
    """
    _check("optimizer", OPTIMIZERS, name, options)
    trained = [p for p in net.parameters() if p.requires_grad]
    of_loss = [p for p in loss.parameters() if p.requires_grad] if isinstance(loss, nn.Module) else []
    plain = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1] + of_loss
    groups = [{"params": plain[0]}, {"params": plain[1], "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if "fused" in keywords(OPTIMIZERS[name]) and not {"fused", "foreach", "differentiable"} & set(options):
        with contextlib.suppress(ConfigError):  # this torch has none for the device
            return _call("optimizer", OPTIMIZERS[name], name, groups, {**options, "fused": True})
    return _call("optimizer", OPTIMIZERS[name], name, groups, options)


def follow(optimizer: Optimizer) -> None:
    """Move state that an optimizer made beforehand, as Adagrad does, to where its parameters are now."""
    stale = (
        value.device != parameter.device
        for parameter, held in optimizer.state.items()
        for value in held.values()
        if isinstance(value, torch.Tensor) and value.ndim  # the number of steps may stay on the host
    )
    if any(stale):
        optimizer.load_state_dict(optimizer.state_dict())


class Schedule:
    """How the learning rate moves: a scheduler of torch by name, perhaps after a linear rise.

    Args:
        name: One of `SCHEDULERS`; None keeps the rate after its rise.
        unit: What the scheduler counts, "epoch" or "step" (an optimizer step). By default epochs; steps for
            "onecycle".
        warmup: Optimizer steps in which the rate rises linearly to what the scheduler says.
        options: torch's keywords. The length of the run is filled in for "cosine", "polynomial" and "onecycle".

    Raises:
        UnknownNameError: No such scheduler or keyword.
        ConfigError: A value that torch refuses.

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
            _check("scheduler", SCHEDULERS, name, options)
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
        if name is not None:  # what torch refuses is refused now
            self.build(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9), epochs=2, steps=2)

    @classmethod
    def of(cls, scheduler: Any) -> Schedule:
        """A ready scheduler of torch, or a schedule as it is."""
        if isinstance(scheduler, Schedule):
            return scheduler
        schedule = cls(unit="step" if isinstance(scheduler, ONECYCLE | lr_scheduler.CyclicLR) else "epoch")
        schedule.scheduler = scheduler
        return schedule

    def build(self, optimizer: Optimizer, *, epochs: int, steps: int, mode: str = "max") -> None:
        """Make the scheduler for a run of so many epochs and optimizer steps.

        Args:
            optimizer: Whose rate it sets.
            epochs: Epochs of the run.
            steps: Optimizer steps of the run.
            mode: For "plateau", whether the monitored score is better when larger or smaller.
        """
        self.optimizer = optimizer
        if self.name is None:
            return
        options = dict(self.options)
        if self.name in SPAN:
            options.setdefault(SPAN[self.name], epochs if self.unit == "epoch" else steps)
        if self.name == "onecycle":
            options.setdefault("max_lr", [group["lr"] for group in optimizer.param_groups])
        if self.name == "plateau":
            options.setdefault("mode", mode)
        self.scheduler = _call("scheduler", SCHEDULERS[self.name], self.name, optimizer, options)

    @contextlib.contextmanager
    def rates(self, step: int) -> Iterator[None]:
        """The learning rates for an optimizer step, counted from 0; then the scheduler moves on, if it counts steps."""
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
        """The first group's rate at an optimizer step, as the scheduler now says."""
        return self.optimizer.param_groups[0]["lr"] * self._rise(step)

    def _rise(self, step: int) -> float:
        return min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0

    def after_epoch(self, score: float) -> None:
        """An epoch has ended with this monitored score."""
        if isinstance(self.scheduler, PLATEAU):
            self.scheduler.step(score)
        elif self.scheduler is not None and self.unit == "epoch":
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any] | None:
        """Where the scheduler stands, as JSON can hold it."""
        return None if self.scheduler is None else _pairs(self.scheduler.state_dict())

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Go on from there; a run whose length has changed takes the rates of its new length from here on."""
        if self.scheduler is None or state is None:
            return
        vars(self.optimizer)["_opt_called"] = True  # it stepped before the stop; torch would warn that it never did
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
    """JSON's keys are texts; mappings with other keys become lists of pairs."""
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


def _check(kind: str, table: dict[str, Any], name: str, options: dict[str, Any]) -> None:
    if name not in table:
        raise UnknownNameError(f"unknown {kind} {name!r}", hint=did_you_mean(str(name), table, kind))
    check_keywords(table[name], options, f"{kind} {name!r}")
    for taken in {"params", "optimizer"} & set(options):
        raise ConfigError(f"wrong keyword {taken!r}", subject=f"{kind} {name!r}", hint="leave it out; it is filled in")


def _call(kind: str, target: Any, name: str, subject: Any, options: dict[str, Any]) -> Any:
    try:
        return target(subject, **options)
    except Exception as error:  # torch checks its keywords, some of them only by failing
        raise ConfigError(f"the {kind} {name!r} refuses its keywords", found=f"{options}: {error}") from error
