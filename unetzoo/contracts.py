"""Check the objects that registries build against the contract of their kind."""

from __future__ import annotations

from typing import Any

from .errors import PluginContractError
from .labels import LabelSpec
from .registry import Registry

CONTRACTS = {
    "model": "a torch.nn.Module",
    "loss": "a callable loss(output, target, *, weight=None)",
    "metric": "an object with update, compute and reset",
    "dataset": "an object with __len__, __getitem__, transform and labels, a LabelSpec",
    "callback": "an object with the methods of unetzoo.training.Callback",
}
PARTS = {
    "metric": ("update", "compute", "reset"),
    "dataset": ("__len__", "__getitem__", "transform", "labels"),
    "callback": ("every_process", "on_begin", "on_step", "on_evaluate", "on_epoch", "on_message", "on_end"),
}


def check_built(registry: Registry, name: str, value: Any) -> None:
    """Check that a built object is a model, loss, metric or dataset, without using it.

    Args:
        registry: The registry that built it.
        name: The name passed to `registry.build`.
        value: The built object.

    Raises:
        PluginContractError: The object is of another kind; names the distribution that built it.

    Examples:
        >>> from unetzoo import LOSSES
        >>> check_built(LOSSES, "dice", LOSSES.build("dice", mode="binary"))
    """
    found = _fault(registry.kind, value)
    if found is None:
        return
    entry = registry.entry(name)
    raise PluginContractError(
        f"{registry.kind} {entry.name!r} built an object of another kind",
        subject=f"{entry.distribution} {entry.version} ({entry.target})",
        expected=CONTRACTS[registry.kind],
        found=found,
        hint=f"report it to the author of {entry.distribution!r}",
    )


def _fault(kind: str, value: Any) -> str | None:
    """A description of an object that is not of the kind, else None."""
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    type_name = type(value).__name__
    if kind == "model":
        from torch import nn

        return None if isinstance(value, nn.Module) else type_name
    if kind == "loss":
        return None if callable(value) else type_name
    missing = [part for part in PARTS.get(kind, ()) if not _has(value, part)]
    if missing:
        return f"{type_name} without {', '.join(missing)}"
    if kind == "dataset" and not isinstance(value.labels, LabelSpec):
        return f"{type_name} whose labels are of type {type(value.labels).__name__}"
    return None


def _has(value: Any, part: str) -> bool:
    try:
        return hasattr(value, part)
    except Exception:  # a property of a plugin may raise anything
        return False
