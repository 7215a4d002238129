"""Match the layers of a checkpoint with unknown names to those of a network by the shapes of their weights."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from torch import nn

from ..errors import CheckpointMismatchError
from .layouts import State

Slot = tuple[tuple[int, ...] | None, tuple[int, ...] | None]  # shapes of the weights of a layer and its norm


def names_by_shape(net: nn.Module, state: State, ordered: bool) -> dict[str, str]:
    """Map the checkpoint's module names to the network's, if every shape is unique.

    A norm belongs to the layer defined before it. Layers with the same shape cannot be distinguished, not even by their
    order, since layers need not be applied in the order in which they are defined.

    Raises:
        CheckpointMismatchError: Shapes are missing or ambiguous; the error lists them.
    """
    ours, theirs = units(net.state_dict(), ordered), units(state, ordered)
    open_slots = [slot for slot in {**ours, **theirs} if not len(ours.get(slot, ())) == len(theirs.get(slot, ())) == 1]
    if open_slots:
        raise CheckpointMismatchError(
            "the weights cannot be matched by shape",
            subject=type(net).__name__,
            expected="each shape once, in the network and in the checkpoint",
            found="\n".join(["", *(_row(slot, ours.get(slot, []), theirs.get(slot, [])) for slot in open_slots)]),
            hint="build the network that they were trained with; or give layout={their module: the network's, …}",
        )
    pairs = ((a, b) for slot in ours for a, b in zip(theirs[slot][0], ours[slot][0], strict=True))
    return {theirs: ours for theirs, ours in pairs if theirs is not None and ours is not None}


def units(state: State, ordered: bool) -> dict[Slot, list[tuple[str | None, str | None]]]:
    """Group layers, paired with the norm defined after them, by shape; unpaired if the order of definition is lost."""
    norms = {key.rpartition(".")[0] for key in state if key.endswith(".running_mean")}
    modules = [key.removesuffix(".weight") for key in state if key.endswith(".weight")]
    pairs: list[tuple[str | None, str | None]] = []
    for module in modules:
        if module not in norms:
            pairs.append((module, None))
        elif ordered and pairs and pairs[-1][1] is None:
            pairs[-1] = (pairs[-1][0], module)
        else:
            pairs.append((None, module))
    found: dict[Slot, list[tuple[str | None, str | None]]] = defaultdict(list)
    for layer, norm in pairs:
        shapes = [None if module is None else tuple(state[f"{module}.weight"].shape) for module in (layer, norm)]
        found[shapes[0], shapes[1]].append((layer, norm))
    return found


def _row(slot: Slot, ours: list[Any], theirs: list[Any]) -> str:
    shape = " + norm ".join("×".join(map(str, part)) for part in slot if part is not None)
    sides = (f"{who} {len(pairs)} ({', '.join(str(a or b) for a, b in pairs[:4])}{', …' * (len(pairs) > 4)})"
             for who, pairs in (("network", ours), ("checkpoint", theirs)))  # fmt: skip
    return f"  {shape}: {', '.join(sides)}"
