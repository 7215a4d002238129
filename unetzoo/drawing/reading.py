"""Group recorded operations into stages."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .simplify import simplify
from .stages import MERGES, Edge, Figure, Layer, Stage, join
from .trace import Operation, Trace

POOLED = ("_adaptive_avg_pool2d", "adaptive_max_pool2d")
FUSED = ("_transformer_encoder_layer_fwd",)
CROPS = ("constant_pad_nd", "reflection_pad2d", "replication_pad2d")


def figure_of(trace: Trace) -> Figure:
    """Return the stages of a traced network and the edges between them."""
    return simplify(TraceReader(trace).read())


@dataclass(frozen=True)
class Place:
    """The stage of a value, its height and width, and whether it was pooled to a smaller size."""

    stage: int
    extent: tuple[int, int]
    pooled: bool = False


class TraceReader:
    """Builds the figure of a trace, operation by operation."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.shapes = {0: trace.shape}
        height, width = trace.shape[-2:]
        self.figure = Figure({0: Stage(0, 0, (height, width), trace.shape[1])}, [])
        self.places = {0: Place(0, (height, width))}

    def read(self) -> Figure:
        """Return the figure before stages that belong together are joined."""
        for operation in self.trace.operations:
            for value, shape in zip(operation.outputs, operation.shapes, strict=True):
                self.shapes[value] = shape
                self.places[value] = self._place(operation, shape)
        for (name, value), shape in zip(self.trace.outputs, self.trace.shapes, strict=True):
            if len(shape) == 4:
                self.figure.stages[self.places[value].stage].outputs.append((name, shape[1]))
        return self.figure

    def _place(self, operation: Operation, shape: tuple[int, ...]) -> Place:
        places = [self.places[value] for value in operation.inputs]
        stages = sorted({place.stage for place in places})
        if len(stages) > 1:
            return self._merge(operation, shape, places, stages)
        here = places[0]
        if all(place.pooled for place in places) or operation.name in POOLED or _pools(operation, self.shapes):
            return self._pooled(operation, shape, here)
        here = next(place for place in places if not place.pooled)
        rise, extent = self._rise(operation, shape, here)
        stage = self.figure.stages[here.stage]
        if rise:
            stage = self._new(stage.level + rise, extent, shape[1])
            kind = "down" if rise > 0 else "up"
            self.figure.edges.append(Edge(here.stage, stage.number, kind, _move(operation, rise)))
        self._note(stage, operation, shape, extent, moved=rise != 0)
        return Place(stage.number, extent)

    def _pooled(self, operation: Operation, shape: tuple[int, ...], here: Place) -> Place:
        back = len(shape) == 4 and shape[-2:] == here.extent and here.extent != (1, 1)
        if not here.pooled and len(shape) == 4:
            side = shape[-1]
            note = "global context" if side == 1 else f"{side}×{side} context"
            notes = self.figure.stages[here.stage].notes
            if note not in notes:
                notes.append(note)
        return Place(here.stage, here.extent, not back)

    def _merge(self, operation: Operation, shape: tuple[int, ...], places: list[Place], stages: list[int]) -> Place:
        first = next((place for place in places if not place.pooled), places[0])
        extents = {place.extent for place in places if not place.pooled}
        if operation.name not in MERGES or len(extents) > 1 or any(place.pooled for place in places):
            return first  # attention reads from other stages; its query keeps its stage
        known = self.figure.stages
        twins = {self._entry(stage) for stage in stages}
        if (
            len(twins) == 1 and None not in twins
        ):  # parallel branches after the same edge, as in residual or inception blocks
            for other in stages[1:]:
                join(self.figure, other, stages[0])
                self._rename(other, stages[0])
            return Place(stages[0], first.extent)
        level = min((known[s] for s in stages), key=lambda s: s.number).level
        for number in stages:  # upsampled to a size that does not match its factor
            if known[number].level != level and self._entry(number):
                known[number].level = level
        channels = shape[1] if operation.name != "stack" else self.shapes[operation.inputs[0]][1]
        merged = self._new(level, first.extent, channels)
        self.figure.edges += [Edge(number, merged.number, "skip") for number in stages]
        layer = Layer(MERGES[operation.name], channels, first.extent)
        if operation.name == "cat":
            layer.parts = [
                (place.stage, self.shapes[value][1]) for place, value in zip(places, operation.inputs, strict=True)
            ]
        merged.layers.append(layer)
        return Place(merged.number, first.extent)

    def _entry(self, number: int) -> tuple[int, str] | None:
        """Return source and kind of the only edge into a stage; None if there are several, or it is a skip."""
        edges = self.figure.into(number)
        return (edges[0].source, edges[0].kind) if len(edges) == 1 and edges[0].kind != "skip" else None

    def _rename(self, old: int, new: int) -> None:
        for value, place in self.places.items():
            if place.stage == old:
                self.places[value] = Place(new, place.extent, place.pooled)

    def _new(self, level: float, extent: tuple[int, int], channels: int) -> Stage:
        number = max(self.figure.stages) + 1
        self.figure.stages[number] = Stage(number, round(level, 2), extent, channels)
        return self.figure.stages[number]

    def _rise(self, operation: Operation, shape: tuple[int, ...], here: Place) -> tuple[float, tuple[int, int]]:
        """Return the number of levels an operation goes down, and the height and width after it."""
        name, settings, extent = operation.name, operation.settings, here.extent
        flat = len(shape) != 4
        if flat or (shape[-2:] == extent and name != "convolution"):
            return 0, extent
        after = (shape[-2], shape[-1])
        if "stride" in settings:
            rise = math.log2(settings["stride"])
            return (-rise if settings.get("transposed") else rise), after
        if name.startswith(("upsample", "_upsample")):
            rise = math.log2(extent[0] / after[0])
            return (0 if abs(rise) < 0.5 else round(rise)), after
        before = self.shapes[operation.inputs[0]]
        if name in CROPS or settings.get("step") == 1:
            return 0, _cropped(before, shape, extent)
        for found in (after, (shape[1], shape[2])):
            ratio = extent[0] / found[0] if found[0] else 0
            if ratio > 0 and ratio == extent[1] / max(found[1], 1) and math.log2(ratio).is_integer():
                return math.log2(ratio), found
        return 0, extent

    def _note(
        self, stage: Stage, operation: Operation, shape: tuple[int, ...], extent: tuple[int, int], *, moved: bool
    ) -> None:
        if operation.name == "convolution" or moved:
            stage.size = extent  # a map cropped for its skip is still the same map
        if len(shape) == 4 and shape[-2:] == extent:
            stage.channels = shape[1]
        settings = operation.settings
        if operation.name == "convolution" and not (moved and settings["transposed"]):
            again = next((layer for layer in stage.layers if layer.weight == settings["weight"]), None)
            if again is not None:
                again.times += 1
                return
            stage.layers.append(
                Layer(
                    "conv",
                    shape[1],
                    extent,
                    kernel=max(settings["kernel"]),
                    dilation=settings["dilation"],
                    depthwise=1 < settings["groups"] == shape[1],
                    weight=settings["weight"],
                )
            )
        elif (
            operation.name in FUSED
            or "attention" in operation.name
            or (operation.name.endswith("softmax") and _is_attention(shape, extent))
        ):
            stage.layers.append(Layer("attention", stage.channels, extent))


def _pools(operation: Operation, shapes: dict[int, tuple[int, ...]]) -> bool:
    axes = operation.settings.get("axes", ())
    return len(shapes[operation.inputs[0]]) == 4 and {axis % 4 for axis in axes} == {2, 3}


def _is_attention(shape: tuple[int, ...], extent: tuple[int, int]) -> bool:
    return shape[-2:] != extent  # a softmax over classes keeps the map


def _cropped(before: tuple[int, ...], after: tuple[int, ...], extent: tuple[int, int]) -> tuple[int, int]:
    if len(before) != 4 or before[-2:] == extent:
        return after[-2], after[-1]
    return (after[1], after[2]) if before[1:3] == extent else extent


def _move(operation: Operation, rise: float) -> str:
    settings, factor = operation.settings, 2 ** abs(rise)
    times = f"{'×' if rise < 0 else '÷'}{factor:g}"
    if operation.name == "convolution":
        side = max(settings["kernel"])
        if settings["transposed"]:
            return f"up-conv {side}×{side}" + ("" if factor == 2 else f" {times}")
        return f"conv {side}×{side} stride {settings['stride']}"
    if "pool" in operation.name:
        kind = "max" if "max" in operation.name else "average"
        return f"{kind}-pool {settings['kernel'][0]}×{settings['kernel'][0]}"
    for kind in ("bilinear", "nearest", "bicubic"):
        if kind in operation.name:
            return f"{kind} {times}"
    return "pixel shuffle" if "shuffle" in operation.name else f"rearranged {times}"
