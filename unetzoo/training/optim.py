"""Optimizers by name, from torch."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

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


def make_optimizer(net: nn.Module, name: str, *, loss: object = None, **options: Any) -> Optimizer:
    """One of torch's optimizers over the trainable parameters.

    Weights decay; vectors (norms and biases) and the loss's own parameters do not. The fused implementation is used
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
    check_options("optimizer", OPTIMIZERS, name, options)
    trained = [p for p in net.parameters() if p.requires_grad]
    of_loss = [p for p in loss.parameters() if p.requires_grad] if isinstance(loss, nn.Module) else []
    plain = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1] + of_loss
    groups = [{"params": plain[0]}, {"params": plain[1], "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if "fused" in keywords(OPTIMIZERS[name]) and not {"fused", "foreach", "differentiable"} & set(options):
        with contextlib.suppress(ConfigError):  # this torch has none for the device
            return build_from_torch("optimizer", OPTIMIZERS[name], name, groups, {**options, "fused": True})
    return build_from_torch("optimizer", OPTIMIZERS[name], name, groups, options)


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


def check_options(kind: str, table: dict[str, Any], name: str, options: dict[str, Any]) -> None:
    """Check a name of torch's and its keywords.

    Raises:
        UnknownNameError: No such name or keyword.
        ConfigError: A keyword that is filled in.
    """
    if name not in table:
        raise UnknownNameError(f"unknown {kind} {name!r}", hint=did_you_mean(str(name), table, kind))
    check_keywords(table[name], options, f"{kind} {name!r}")
    for taken in {"params", "optimizer"} & set(options):
        raise ConfigError(f"wrong keyword {taken!r}", subject=f"{kind} {name!r}", hint="leave it out; it is filled in")


def build_from_torch(kind: str, target: Any, name: str, subject: Any, options: dict[str, Any]) -> Any:
    """Build an optimizer or scheduler of torch.

    Raises:
        ConfigError: torch refuses the keywords.
    """
    try:
        return target(subject, **options)
    except Exception as error:  # torch checks its keywords, some of them only by failing
        raise ConfigError(f"the {kind} {name!r} refuses its keywords", found=f"{options}: {error}") from error
