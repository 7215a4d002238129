"""Optimizers and schedulers by name, from torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from ..errors import ConfigError, UnknownNameError, did_you_mean
from ..registry import check_keywords

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}
SCHEDULERS: dict[str, Any] = {
    "plateau": lr_scheduler.ReduceLROnPlateau,
    "cosine": lr_scheduler.CosineAnnealingLR,
    "warm_restarts": lr_scheduler.CosineAnnealingWarmRestarts,
    "polynomial": lr_scheduler.PolynomialLR,
    "step": lr_scheduler.StepLR,
    "multistep": lr_scheduler.MultiStepLR,
    "exponential": lr_scheduler.ExponentialLR,
}
SPAN = {"cosine": "T_max", "polynomial": "total_iters"}  # the keyword that should be the number of epochs


def make_optimizer(net: nn.Module, name: str, **options: Any) -> Optimizer:
    """An optimizer of torch over the parameters that are trained.

    Raises:
        UnknownNameError: No such optimizer or keyword.
        ConfigError: A value that torch refuses.
    """
    _check("optimizer", OPTIMIZERS, name, options)
    return _call("optimizer", OPTIMIZERS[name], name, [p for p in net.parameters() if p.requires_grad], options)


def make_scheduler(optimizer: Optimizer, name: str, *, epochs: int, mode: str = "max", **options: Any) -> Any:
    """A scheduler of torch, to be stepped once an epoch.

    Args:
        optimizer: The optimizer whose learning rate it sets.
        name: One of `SCHEDULERS`.
        epochs: Epochs of the run, over which "cosine" and "polynomial" decay unless told otherwise.
        mode: For "plateau": whether the monitored score is better when larger ("max") or smaller ("min").
        options: torch's keywords.

    Raises:
        UnknownNameError: No such scheduler or keyword.
        ConfigError: A value that torch refuses.
    """
    _check("scheduler", SCHEDULERS, name, options)
    if name in SPAN:
        options.setdefault(SPAN[name], epochs)
    if name == "plateau":
        options.setdefault("mode", mode)
    return _call("scheduler", SCHEDULERS[name], name, optimizer, options)


def _check(kind: str, table: dict[str, Any], name: str, options: dict[str, Any]) -> None:
    if name not in table:
        raise UnknownNameError(f"unknown {kind} {name!r}", hint=did_you_mean(name, table, kind))
    check_keywords(table[name], options, f"{kind} {name!r}")


def _call(kind: str, target: Any, name: str, subject: Any, options: dict[str, Any]) -> Any:
    try:
        return target(subject, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the {kind} {name!r} refuses its keywords", found=f"{options}: {error}") from error
