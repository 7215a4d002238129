"""What a U-Net figure shows: stages of one resolution, and what joins them."""

from __future__ import annotations

from dataclasses import dataclass, field

MERGES = {"cat": "cat", "add": "add", "mul": "mul", "stack": "add"}  # stacked maps are summed


@dataclass
class Layer:
    """One thing a stage does: a convolution ("conv"), attention, or a merge ("cat", "add", "mul").

    Args:
        kind: Which.
        channels: Channels of its answer.
        kernel: Side of a convolution's kernel.
        dilation: Its dilation.
        times: How often the same weights were applied.
        depthwise: Whether it keeps the channels apart.
        parts: What a concatenation joined: (stage, channels).
        size: Height and width of its answer.
    """

    kind: str
    channels: int
    size: tuple[int, int]
    kernel: int = 0
    dilation: int = 1
    times: int = 1
    depthwise: bool = False
    weight: int = 0
    parts: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class Stage:
    """What happens at one resolution between two moves to another, or between two merges.

    Args:
        level: log2 of how much smaller than the image its maps are.
        layers: What it does, in order.
        notes: What it looks at besides ("global context").
        size: Height and width of its last map.
        channels: Channels of its last map.
        outputs: Names of the network's answers that leave it, with their channels.
    """

    number: int
    level: float
    size: tuple[int, int]
    channels: int
    layers: list[Layer] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    outputs: list[tuple[str, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Edge:
    """A way from one stage to another: "down", "up" or "skip", and what does it ("max-pool 2×2")."""

    source: int
    target: int
    kind: str
    label: str = ""


@dataclass
class Figure:
    """All stages in order, and the ways between them."""

    stages: dict[int, Stage]
    edges: list[Edge]

    def into(self, number: int) -> list[Edge]:
        """The ways that lead to a stage."""
        return [edge for edge in self.edges if edge.target == number]

    def out_of(self, number: int) -> list[Edge]:
        """The ways that leave a stage."""
        return [edge for edge in self.edges if edge.source == number]

    def ancestors(self, number: int) -> set[int]:
        """All stages that lead to a stage."""
        found: set[int] = set()
        waiting = [number]
        while waiting:
            new = {edge.source for edge in self.into(waiting.pop())} - found
            found |= new
            waiting += new
        return found


def join(figure: Figure, away: int, into: int) -> None:
    """Make one stage a part of another: its layers come first, its ways become the other's."""
    gone, kept = figure.stages.pop(away), figure.stages[into]
    kept.layers = joined_layers(gone, kept)
    origin = _origin(figure, gone, into)
    for layer in (layer for stage in figure.stages.values() for layer in stage.layers):
        layer.parts = [(origin if source == away else source, channels) for source, channels in layer.parts]
    kept.notes = [*gone.notes, *(note for note in kept.notes if note not in gone.notes)]
    kept.outputs = gone.outputs + kept.outputs
    moved = [
        Edge(into if e.source == away else e.source, into if e.target == away else e.target, e.kind, e.label)
        for e in figure.edges
    ]
    figure.edges = list(dict.fromkeys(edge for edge in moved if edge.source != edge.target))


def _origin(figure: Figure, gone: Stage, into: int) -> int:
    """Where the map of a stage that joins another came from: a skip that passed a gate is still that skip."""
    skips = [edge.source for edge in figure.into(gone.number) if edge.kind == "skip"]
    gated = bool(gone.layers) and gone.layers[0].kind == "mul"
    return min(skips) if gated and skips else into


def joined_layers(first: Stage, second: Stage) -> list[Layer]:
    """Layers of two stages; a concatenation that goes on with another's result is one concatenation."""
    layers, rest = list(first.layers), list(second.layers)
    if layers and rest and layers[-1].kind == rest[0].kind and rest[0].kind in MERGES:
        later = rest.pop(0)
        parts = [part for part in later.parts if part[0] != first.number]
        layers[-1].parts = layers[-1].parts + parts
        layers[-1].channels, layers[-1].size = later.channels, later.size
    return layers + rest
