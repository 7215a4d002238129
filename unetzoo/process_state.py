"""Snapshots of the global settings of a process. Standard library only.

Settings of NumPy and torch are included only if the library is already imported.
"""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import random
import sys
import warnings
from collections.abc import Mapping
from typing import Any

RANDOM = ("random numbers of Python", "random numbers of NumPy", "random numbers of torch")


def snapshot() -> dict[str, Any]:
    """The current settings."""
    return {
        "working directory": os.getcwd(),
        "environment variables": dict(os.environ),
        "warnings filters": [rule for rule in warnings.filters if _blanket(rule)],
        "root logger": (logging.root.level, [*logging.root.handlers]),
        "recursion limit": sys.getrecursionlimit(),
        "exception hook": sys.excepthook,
        "start method of processes": multiprocessing.get_start_method(allow_none=True),
        RANDOM[0]: _digest(random.getstate()),
        **_numpy(),
        **_torch(),
    }


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """The settings that changed, with short values. Settings of libraries imported in between are ignored.

    Examples:
        >>> differences({"recursion limit": 1000, "x": 0}, {"recursion limit": 5000, "x": 0, "new": 1})
        ('recursion limit (1000 → 5000)',)
    """
    changed = []
    for name, old in before.items():
        new = after[name]
        if old == new:
            continue
        if isinstance(old, Mapping):
            keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
            changed.append(f"{name} ({', '.join(keys)})")
        else:
            changed.append(name if isinstance(old, list | tuple | bytes) else f"{name} ({old} → {new})")
    return tuple(changed)


def restore(before: Mapping[str, Any]) -> None:
    """Restore the settings, except random states and the start method of processes."""
    os.chdir(before["working directory"])
    for name in {*os.environ, *before["environment variables"]}:
        _set_variable(name, before["environment variables"].get(name))
    blanket = before["warnings filters"]
    if [rule for rule in warnings.filters if _blanket(rule)] != blanket:
        others = [rule for rule in warnings.filters if not _blanket(rule)]
        warnings.filters[:] = [*others, *blanket]  # pyright: ignore[reportIndexIssue]
    logging.root.level, logging.root.handlers[:] = before["root logger"]
    sys.setrecursionlimit(before["recursion limit"])
    sys.excepthook = before["exception hook"]
    if "NumPy's error handling" in before:
        sys.modules["numpy"].seterr(**before["NumPy's error handling"])
    if "default dtype" in before:
        _restore_torch(before)


def _restore_torch(before: Mapping[str, Any]) -> None:
    torch = sys.modules["torch"]
    torch.set_default_dtype(before["default dtype"])
    if str(torch.get_default_device()) != before["default device"]:
        torch.set_default_device(before["default device"])
    torch.set_num_threads(before["threads"])
    torch.set_grad_enabled(before["gradient mode"])
    torch.autograd.set_detect_anomaly(before["anomaly detection"], check_nan=True)
    torch.use_deterministic_algorithms(before["deterministic algorithms"])
    torch.backends.cudnn.benchmark = before["cudnn.benchmark"]
    torch.backends.cudnn.deterministic = before["cudnn.deterministic"]
    torch.set_float32_matmul_precision(before["precision of matrix products"])


def _set_variable(name: str, value: str | None) -> None:
    if value is None:
        del os.environ[name]
    elif os.environ.get(name) != value:
        os.environ[name] = value


def _blanket(rule: tuple[Any, ...]) -> bool:
    """Whether a filter applies to every message of every module."""
    return rule[1] is None and rule[3] is None


def _numpy() -> dict[str, Any]:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return {}
    return {RANDOM[1]: _digest(numpy.random.get_state(legacy=False)), "NumPy's error handling": dict(numpy.geterr())}


def _torch() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    return {
        RANDOM[2]: bytes(torch.get_rng_state().numpy()),
        "default dtype": torch.get_default_dtype(),
        "default device": str(torch.get_default_device()),
        "threads": torch.get_num_threads(),
        "gradient mode": torch.is_grad_enabled(),
        "anomaly detection": torch.is_anomaly_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
        "cudnn.deterministic": torch.backends.cudnn.deterministic,
        "precision of matrix products": torch.get_float32_matmul_precision(),
    }


def _digest(state: Any) -> bytes:
    return hashlib.sha256(repr(state).encode()).digest()
