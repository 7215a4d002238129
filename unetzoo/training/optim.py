"""Build torch optimizers by name."""

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
    """Build a torch optimizer over the trainable parameters.

    Weight decay applies to weights, but not to vectors (norms and biases) or parameters of the loss. The fused
    implementation is used if available, unless `fused`, `foreach` or `differentiable` is given.

    Args:
        net: The network.
        name: One of `OPTIMIZERS`.
        loss: A loss, whose parameters, if any, are trained too.
        options: Keyword arguments of the torch optimizer.

    Raises:
        UnknownNameError: There is no such optimizer or keyword.
        ConfigError: torch rejects a value.

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
        with contextlib.suppress(ConfigError):  # not available for this device in this version of torch
            return build_from_torch("optimizer", OPTIMIZERS[name], name, groups, {**options, "fused": True})
    return build_from_torch("optimizer", OPTIMIZERS[name], name, groups, options)


def follow(optimizer: Optimizer) -> None:
    """Move state created at construction, as by Adagrad, to the device of the parameters."""
    stale = (
        value.device != parameter.device
        for parameter, held in optimizer.state.items()
        for value in held.values()
        if isinstance(value, torch.Tensor) and value.ndim  # step counters may stay on the host
    )
    if any(stale):
        optimizer.load_state_dict(optimizer.state_dict())


def check_options(kind: str, table: dict[str, Any], name: str, options: dict[str, Any]) -> None:
    """Check the name and keywords of a torch optimizer or scheduler.

    Raises:
        UnknownNameError: There is no such name or keyword.
        ConfigError: A keyword is filled in automatically and must not be given.
    """
    if name not in table:
        raise UnknownNameError(f"unknown {kind} {name!r}", hint=did_you_mean(str(name), table, kind))
    check_keywords(table[name], options, f"{kind} {name!r}")
    for taken in {"params", "optimizer"} & set(options):
        raise ConfigError(f"wrong keyword {taken!r}", subject=f"{kind} {name!r}", hint="leave it out; it is filled in")


def build_from_torch(kind: str, target: Any, name: str, subject: Any, options: dict[str, Any]) -> Any:
    """Build a torch optimizer or scheduler.

    Raises:
        ConfigError: torch rejects the keywords.
    """
    try:
        return target(subject, **options)
    except Exception as error:  # torch validates some keywords only by failing
        raise ConfigError(f"the {kind} {name!r} refuses its keywords", found=f"{options}: {error}") from error
