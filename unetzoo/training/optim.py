"""Build torch optimizers by name."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
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


def make_optimizer(
    net: nn.Module, name: str, *, loss: object = None, encoder_lr: float | None = None, **options: Any
) -> Optimizer:
    """Build a torch optimizer over the trainable parameters.

    Weight decay applies to weights, but not to vectors (norms and biases) or parameters of the loss. The fused
    implementation is used if available, unless `fused`, `foreach` or `differentiable` is given.

    Args:
        net: The network.
        name: One of `OPTIMIZERS`.
        loss: A loss, whose parameters, if any, are trained too.
        encoder_lr: Learning rate of the encoder relative to that of the rest, e.g. 0.1 for a pretrained one.
        options: Keyword arguments of the torch optimizer.

    Raises:
        UnknownNameError: There is no such optimizer or keyword.
        ConfigError: torch rejects a value, or `encoder_lr` is not positive or there is no encoder.

    Examples:
        >>> adam = make_optimizer(nn.Conv2d(1, 1, 3), "adamw", weight_decay=0.1)
        >>> [(len(group["params"]), group["weight_decay"]) for group in adam.param_groups]
        [(1, 0.1), (1, 0.0)]
    """
    check_options("optimizer", OPTIMIZERS, name, options)
    trained = [p for p in net.parameters() if p.requires_grad]
    of_loss = [p for p in loss.parameters() if p.requires_grad] if isinstance(loss, nn.Module) else []
    groups = _decayed(trained, of_loss)
    if encoder_lr is not None:
        inside = _encoder_parameters(net, encoder_lr)
        rate = options.get("lr", _default_lr(OPTIMIZERS[name]))
        encoder = _decayed([p for p in trained if id(p) in inside])
        rest = _decayed([p for p in trained if id(p) not in inside], of_loss)
        groups = [*rest, *({**group, "lr": rate * encoder_lr} for group in encoder)]
    if "fused" in keywords(OPTIMIZERS[name]) and not {"fused", "foreach", "differentiable"} & set(options):
        with contextlib.suppress(ConfigError):  # not available for this device in this version of torch
            return build_from_torch("optimizer", OPTIMIZERS[name], name, groups, {**options, "fused": True})
    return build_from_torch("optimizer", OPTIMIZERS[name], name, groups, options)


def _decayed(parameters: list[nn.Parameter], others: Sequence[nn.Parameter] = ()) -> list[dict[str, Any]]:
    """Groups of weights, and of vectors and other parameters without weight decay; empty ones are left out."""
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [*(p for p in parameters if p.ndim <= 1), *others], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _encoder_parameters(net: nn.Module, encoder_lr: object) -> set[int]:
    if isinstance(encoder_lr, bool) or not isinstance(encoder_lr, int | float) or not 0 < encoder_lr < float("inf"):
        raise ConfigError("wrong encoder_lr", subject="optimizer", expected="a number > 0", found=encoder_lr,
                          hint="0.1 trains the encoder at a tenth of lr")  # fmt: skip
    encoder = getattr(net, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise ConfigError("no encoder for encoder_lr", subject=type(net).__name__, hint="leave encoder_lr out")
    return {id(parameter) for parameter in encoder.parameters()}


def _default_lr(optimizer: type[Optimizer]) -> float:
    return float(keywords(optimizer)["lr"].default)


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
