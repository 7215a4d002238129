"""Checks of the options shared by several losses: mode, classes, class weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast, get_args

import torch
from torch import Tensor

from ..errors import ConfigError, did_you_mean
from ..labels import Mode


def check_mode(mode: str) -> Mode:
    """Check that a mode is one of SMP's three.

    Raises:
        ConfigError: An unknown mode; the hint has the nearest name.
    """
    modes = get_args(Mode)
    if mode not in modes:
        raise ConfigError(f"unknown mode {mode!r}", hint=did_you_mean(str(mode), modes, "mode"))
    return cast(Mode, mode)


def check_policy(policy: str, policies: Sequence[str], name: str = "empty") -> None:
    """Check the name of a policy, by default the one for empty classes.

    Raises:
        ConfigError: An unknown policy; the message has the choices.
    """
    if policy not in policies:
        choices = " or ".join(f'"{known}"' for known in policies)
        raise ConfigError("unknown policy", subject=name, expected=choices, found=repr(policy))


def class_vector(values: Sequence[float] | Tensor | None, name: str) -> Tensor | None:
    """Return a vector of one non-negative number per class.

    Raises:
        ConfigError: Anything else.
    """
    if values is None:
        return None
    vector = torch.as_tensor(values, dtype=torch.float32)
    if vector.ndim != 1 or not vector.numel() or not bool((vector.isfinite() & (vector >= 0)).all()):
        raise ConfigError(
            f"unusable {name}", expected="a list of finite numbers ≥ 0, one per class", found=vector.tolist()
        )
    return vector


def check_classes(
    mode: str, classes: Sequence[int] | None, class_weights: Sequence[float] | Tensor | None
) -> list[int] | None:
    """Return the chosen classes as a list; binary labels allow neither a choice nor weights.

    Raises:
        ConfigError: `classes` or `class_weights` for binary labels; unusable indices.
    """
    if mode == "binary" and (classes is not None or class_weights is not None):
        raise ConfigError(
            "binary labels have one class", found="classes or class_weights", hint="leave them out, or change mode"
        )
    chosen = None if classes is None else [int(index) for index in classes]
    if chosen is not None and (not chosen or min(chosen) < 0):
        raise ConfigError("unusable classes", expected="class indices ≥ 0, at least one", found=chosen)
    return chosen


def check_class_range(classes: Sequence[int], count: int) -> None:
    """Check that indices are classes of the output.

    Raises:
        ConfigError: Indices out of range.
    """
    if max(classes) >= count:
        raise ConfigError("unusable classes", expected=f"0…{count - 1}", found=list(classes))


def class_shares(class_weights: Tensor | None, chosen: Sequence[int] | None, like: Tensor, count: int) -> Tensor:
    """Return the weight of each of `count` classes (1 by default), 0 for those not chosen.

    Raises:
        ConfigError: Weights or indices that do not fit the number of classes.
    """
    shares = for_classes(class_weights, like, count, "class_weights")
    shares = like.new_ones(count) if shares is None else shares
    if chosen is None:
        return shares
    check_class_range(chosen, count)
    counts = torch.zeros_like(shares)
    for index in chosen:  # indexing with a list would copy it to the device and make the host wait
        counts[index].fill_(1.0)
    return shares * counts


def for_classes(vector: Tensor | None, like: Tensor, count: int, name: str) -> Tensor | None:
    """Return `vector` with the dtype and device of `like`.

    Raises:
        ConfigError: A vector without exactly `count` numbers.
    """
    if vector is None:
        return None
    if len(vector) != count:
        raise ConfigError(
            f"{name} do not fit the output", expected=f"{count}, one per class", found=len(vector), hint=f"fit {name}"
        )
    return vector.to(like)
