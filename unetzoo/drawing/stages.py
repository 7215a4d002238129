"""The elements of a U-Net figure: stages of one resolution, and the edges between them."""

from __future__ import annotations

from dataclasses import dataclass, field

MERGES = {"cat": "cat", "add": "add", "mul": "mul", "stack": "add"}  # stacked maps are summed


@dataclass
class Layer:
    """One layer of a stage: a convolution ("conv"), attention, or a merge ("cat", "add", "mul").

    Args:
        kind: Kind of the layer.
        channels: Output channels.
        kernel: Kernel size of a convolution.
        dilation: Dilation of a convolution.
        times: Number of times the same weights are applied.
        depthwise: Whether each channel is convolved separately.
        parts: Inputs of a concatenation, as (stage, channels).
        size: Output height and width.
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
    """The layers at one resolution, between two changes of resolution or two merges.

    Args:
        level: log2 of the factor by which the maps are smaller than the image.
        layers: Layers in order.
        notes: Additional inputs ("global context").
        size: Height and width of the last map.
        channels: Channels of the last map.
        outputs: Names and channels of the network outputs from this stage.
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
    """An edge between two stages: "down", "up" or "skip", and its operation ("max-pool 2×2")."""

    source: int
    target: int
    kind: str
    label: str = ""


@dataclass
class Figure:
    """All stages in order, and the edges between them."""

    stages: dict[int, Stage]
    edges: list[Edge]

    def into(self, number: int) -> list[Edge]:
        """Return the edges into a stage."""
        return [edge for edge in self.edges if edge.target == number]

    def out_of(self, number: int) -> list[Edge]:
        """Return the edges out of a stage."""
        return [edge for edge in self.edges if edge.source == number]

    def ancestors(self, number: int) -> set[int]:
        """Return all stages that lead to a stage."""
        found: set[int] = set()
        waiting = [number]
        while waiting:
            new = {edge.source for edge in self.into(waiting.pop())} - found
            found |= new
            waiting += new
        return found


def join(figure: Figure, away: int, into: int) -> None:
    """Merge one stage into another: its layers come first, and its edges become those of the other."""
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
    """Return the stage that the map of a joined stage came from; a skip through a gate keeps its source."""
    skips = [edge.source for edge in figure.into(gone.number) if edge.kind == "skip"]
    gated = bool(gone.layers) and gone.layers[0].kind == "mul"
    return min(skips) if gated and skips else into


def joined_layers(first: Stage, second: Stage) -> list[Layer]:
    """Return the layers of two stages; nested merges of the same kind count as one."""
    layers, rest = list(first.layers), list(second.layers)
    if layers and rest and layers[-1].kind == rest[0].kind and rest[0].kind in MERGES:
        later = rest.pop(0)
        parts = [part for part in later.parts if part[0] != first.number]
        layers[-1].parts = layers[-1].parts + parts
        layers[-1].channels, layers[-1].size = later.channels, later.size
    return layers + rest
