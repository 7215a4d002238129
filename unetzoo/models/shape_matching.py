"""Match the layers of a checkpoint whose names are unknown to those of a network, by the shapes of their weights."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from torch import nn

from ..errors import CheckpointMismatchError
from .layouts import State

Slot = tuple[tuple[int, ...] | None, tuple[int, ...] | None]  # shapes of a layer's and its norm's weights


def names_by_shape(net: nn.Module, state: State, ordered: bool) -> dict[str, str]:
    """The checkpoint's module names → the network's, where shapes prove the match: each occurs once.

    A norm goes with the layer defined before it. Nothing distinguishes layers of equal shape, not even their order:
    it is that in which their author defined them, not that in which they are applied.

    Raises:
        CheckpointMismatchError: With a table of the shapes that are missing or ambiguous.
    """
    ours, theirs = units(net.state_dict(), ordered), units(state, ordered)
    open_slots = [slot for slot in {**ours, **theirs} if not len(ours.get(slot, ())) == len(theirs.get(slot, ())) == 1]
    if open_slots:
        raise CheckpointMismatchError(
            "shapes do not tell which weights belong where",
            subject=type(net).__name__,
            expected="each shape once, in the network and in the checkpoint",
            found="\n".join(["", *(_row(slot, ours.get(slot, []), theirs.get(slot, [])) for slot in open_slots)]),
            hint="build the network that they were trained with; or give layout={their module: the network's, …}",
        )
    pairs = ((a, b) for slot in ours for a, b in zip(theirs[slot][0], ours[slot][0], strict=True))
    return {theirs: ours for theirs, ours in pairs if theirs is not None and ours is not None}


def units(state: State, ordered: bool) -> dict[Slot, list[tuple[str | None, str | None]]]:
    """Layers with the norm defined behind them, by shape; by themselves where the order of definition is lost."""
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
