"""Lay out a figure in pixels, with execution order from left to right and resolution decreasing downward."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .stages import Edge, Figure, Layer, Stage

TALLEST, SHRINK, SHORTEST = 128.0, 0.76, 24.0  # height of maps: maximum, factor per level, minimum
GAP, SKIP_GAP = 13.0, 34.0  # between maps of a stage; between stages of a row
LABEL, LOOP, CAPTION, NOTE, ARC = 15.0, 13.0, 17.0, 12.0, 8.0
RISE = 5.0  # offset of the sheets behind a block
ARM = 25.0  # offset of a second edge up to the right of the first
DIGIT = 5.9  # width of a digit in labels
MOST_LAYERS = 6  # a stage with more layers is drawn as one block
MARGIN, HEADER, GUTTER = 22.0, 62.0, 30.0


@dataclass
class Item:
    """One drawn map of a stage.

    Args:
        kind: "input", "map", "conv", "point" (1×1), "dilated", "attention", "cat", "sign" (a sum, a product), "block".
        label: Text above the map.
        under: Text below the map.
        times: Number of times its weights are applied.
        parts: Parts of a concatenation, as (share, whether it comes from a skip).
    """

    kind: str
    width: float
    label: str = ""
    under: str = ""
    times: int = 1
    parts: list[tuple[float, bool]] = field(default_factory=list)
    x: float = 0.0

    @property
    def center(self) -> float:
        """Center along x."""
        return self.x + self.width / 2


@dataclass
class Box:
    """A placed stage. `y` is the upper edge of its maps, `falls` whether an edge leads down from it."""

    stage: Stage
    items: list[Item]
    row: int
    height: float
    falls: bool = False
    x: float = 0.0
    y: float = 0.0
    lane: int = 0

    @property
    def width(self) -> float:
        """Width from the first map to the last."""
        return self.items[-1].x + self.items[-1].width - self.items[0].x

    @property
    def right(self) -> float:
        """Right edge of the last map."""
        return self.x + self.width

    @property
    def middle(self) -> float:
        """Center along y."""
        return self.y + self.height / 2

    @property
    def merge(self) -> Item:
        """The map where skips arrive."""
        return next((item for item in self.items if item.kind in ("cat", "sign")), self.items[0])

    @property
    def crown(self) -> float:
        """Height of the labels above the maps."""
        kinds = {item.kind for item in self.items}
        return LABEL + (LOOP if any(item.times > 1 for item in self.items) else 0) + (RISE if "block" in kinds else 0)

    @property
    def caption(self) -> tuple[float, str]:
        """Position of the lines below, next to the arrow: x, and the text anchor "start" or "end"."""
        left = self.items[-1].center - 6
        if self.falls and left - self.caption_width > 6:
            return left, "end"
        return (self.items[-1] if self.falls else self.items[0]).center + 6, "start"

    @property
    def caption_width(self) -> float:
        """Width of the longest line below."""
        return 5.5 * max(map(len, self.captions))

    @property
    def captions(self) -> list[str]:
        """The lines below a stage: its size, the contents of a block, notes."""
        height, width = self.stage.size
        lines = [f"{height}×{width}", *(item.under for item in self.items if item.kind == "block")]
        return lines + [note for note in (_notes(self.stage),) if note]

    def shift(self, x: float) -> None:
        """Move the box so that its first map starts at x."""
        by = x - self.items[0].x
        for item in self.items:
            item.x += by
        self.x = x


@dataclass
class Layout:
    """The placed boxes and edges of a figure."""

    boxes: dict[int, Box]
    edges: list[Edge]
    rows: list[tuple[float, float]]
    width: float
    height: float

    def between(self, edge: Edge) -> list[Box]:
        """Return boxes of the same row and lane that a skip would cross."""
        source, target = self.boxes[edge.source], self.boxes[edge.target]
        return [
            box
            for box in self.boxes.values()
            if (box.row, box.lane) == (source.row, source.lane) == (target.row, target.lane)
            and source.right < box.x + box.width / 2 < target.merge.x
            and box is not target
        ]


def lay_out(figure: Figure, channels: int) -> Layout:
    """Place a figure: stages in columns in execution order, one row per resolution, side branches in lanes below.

    Args:
        figure: The figure.
        channels: Channels of the image.
    """
    levels = sorted({stage.level for stage in figure.stages.values()})
    boxes = {
        number: Box(
            stage, items(stage, figure, channels), levels.index(stage.level), height_of(levels.index(stage.level))
        )
        for number, stage in figure.stages.items()
    }
    for edge in figure.edges:
        boxes[edge.source].falls |= edge.kind == "down"
    for number in sorted(boxes):
        boxes[number].shift(_x(boxes, figure, number))
    for number in sorted(boxes):
        boxes[number].lane = _lane(boxes, number)
    layout = Layout(boxes, figure.edges, [], 0, 0)
    bottom = _stack_rows(layout, len(levels))
    layout.width = max(_right_end(box) for box in boxes.values()) + MARGIN
    layout.height = bottom
    return layout


def _right_end(box: Box) -> float:
    x, anchor = box.caption
    output = 34 + 6.8 * len(output_names(box.stage)) if box.stage.outputs else 0
    return max(box.right + output, x + box.caption_width if anchor == "start" else 0)


def height_of(row: int) -> float:
    """Return the height of the maps in a row."""
    return max(TALLEST * SHRINK**row, SHORTEST)


def items(stage: Stage, figure: Figure, channels: int) -> list[Item]:
    """Return the drawn maps of a stage from left to right, starting at x = 0; the image has `channels` channels."""
    drawn: list[Item] = []
    if stage.number == 0 and stage.layers:
        drawn.append(Item("input", 8.0, f"{channels}"))
    layers = [layer for layer in stage.layers if not layer.depthwise]
    convolutions = [layer for layer in layers if layer.kind in ("conv", "attention")]
    if len(convolutions) - bool(stage.outputs) > MOST_LAYERS:
        drawn += [_merge_item(layer, stage, figure) for layer in layers if layer.kind not in ("conv", "attention")][:1]
        drawn.append(_block(stage, convolutions))
    else:
        drawn += [_item(layer, stage, figure) for layer in layers]
    if not drawn:
        drawn.append(Item("input" if stage.number == 0 else "map", _width(stage.channels), f"{stage.channels}"))
    if drawn[-1].kind == "sign" and len(drawn) == 1:
        drawn.append(Item("map", _width(stage.channels), f"{stage.channels}"))
    x = 0.0
    for item, following in zip(drawn, [*drawn[1:], None], strict=True):
        item.x = x
        if following is not None:
            apart = (DIGIT * (len(item.label) + len(following.label)) + 5) / 2
            loop = LOOP if item.times > 1 else 0
            x += max(item.width + GAP, apart + (item.width - following.width) / 2) + loop
    return drawn


def _item(layer: Layer, stage: Stage, figure: Figure) -> Item:
    if layer.kind in ("cat", "add", "mul"):
        return _merge_item(layer, stage, figure)
    kind = layer.kind
    if kind == "conv" and layer.dilation > 1:
        kind = "dilated"
    elif kind == "conv" and layer.kernel == 1:
        kind = "point"
    under = f"d{layer.dilation}" if kind == "dilated" else ""
    return Item(kind, _width(layer.channels), f"{layer.channels}", under, layer.times)


def _merge_item(layer: Layer, stage: Stage, figure: Figure) -> Item:
    if layer.kind != "cat":
        return Item("sign", 13.0, under="+" if layer.kind == "add" else "×")
    skips = {edge.source for edge in figure.into(stage.number) if edge.kind == "skip"}
    total = sum(channels for _, channels in layer.parts)
    parts = [(channels / total, source in skips) for source, channels in layer.parts]
    return Item("cat", _width(layer.channels), f"{layer.channels}", parts=parts)


def _block(stage: Stage, layers: list[Layer]) -> Item:
    looks = sum(layer.kind == "attention" for layer in layers)
    counts = ((len(layers) - looks, "conv"), (looks, "attention"))
    under = " + ".join(f"{count} {what}" for count, what in counts if count)
    return Item("block", 34.0, f"{stage.channels}", under, max(layer.times for layer in layers))


def _width(channels: int) -> float:
    return 4.0 + 1.9 * math.log2(channels + 1)


def _x(boxes: dict[int, Box], figure: Figure, number: int) -> float:
    """Return the leftmost x that earlier stages allow: past the edge down, and next to another edge up."""
    box, ways = boxes[number], figure.into(number)
    if not ways:
        return MARGIN + GUTTER
    places = []
    for edge in ways:
        source = boxes[edge.source]
        if source.row == box.row:
            places.append(source.right + SKIP_GAP - (box.merge.x - box.items[0].x))
            places.append(source.right + 12)
        else:
            places.append(source.items[-1].center - box.items[0].width / 2)
    if all(edge.kind != "down" for edge in ways):
        lowest = max(boxes[edge.source].row for edge in ways if edge.kind == "up") if _climbs(ways) else box.row + 1
        before = [boxes[n] for n in figure.ancestors(number) if box.row <= boxes[n].row < lowest]
        places += [other.right + SKIP_GAP for other in before]
    beside = [boxes[n] for n in boxes if n < number and boxes[n].row == box.row]
    x = max(places)
    while any(abs(other.x - x) < ARM - 1 for other in beside):
        x += ARM
    return x


def _climbs(ways: list[Edge]) -> bool:
    return any(edge.kind == "up" for edge in ways)


def _lane(boxes: dict[int, Box], number: int) -> int:
    """Return the topmost lane of the row in which a box overlaps no earlier one."""
    box = boxes[number]
    others = [other for n, other in boxes.items() if n < number and other.row == box.row]
    lane = 0
    while any(o.lane == lane and o.x < box.right + SKIP_GAP / 2 and box.x < o.right + SKIP_GAP / 2 for o in others):
        lane += 1
    return lane


def _stack_rows(layout: Layout, rows: int) -> float:
    y = HEADER
    for row in range(rows):
        top = y
        boxes = [box for box in layout.boxes.values() if box.row == row]
        for lane in range(max(box.lane for box in boxes) + 1):
            inside = [box for box in boxes if box.lane == lane]
            y += max(box.crown for box in inside) + arc_room(layout, inside)
            for box in inside:
                box.y = y
            y += height_of(row) + CAPTION + NOTE * max(len(box.captions) - 1 for box in inside)
        layout.rows.append((top, y))
    return y


def arc_room(layout: Layout, inside: list[Box]) -> float:
    """Return the space for skips that pass above other boxes of their lane."""
    members = {box.stage.number for box in inside}
    arcs = [len(layout.between(e)) for e in layout.edges if e.kind == "skip" and {e.source, e.target} <= members]
    over = any(box.merge is not box.items[0] for box in inside)
    return ARC * (1 + max(arcs)) if any(arcs) else ARC if over else 0


def _notes(stage: Stage) -> str:
    """Return notes on a stage beyond its layers."""
    dilations = sorted({layer.dilation for layer in stage.layers} - {1})
    drawn_one_by_one = sum(layer.kind in ("conv", "attention") for layer in stage.layers) <= MOST_LAYERS
    words = [] if drawn_one_by_one or not dilations else ["dilation " + ", ".join(map(str, dilations))]
    contexts = [note.removesuffix(" context") for note in stage.notes]
    sides = [side for side in contexts if side != "global"]
    if sides:
        words.append("pooled to " + ", ".join((["1×1"] if "global" in contexts else []) + sides))
    elif contexts:
        words.append("global context")
    return "; ".join(words)


def output_names(stage: Stage) -> str:
    """Return the names of the outputs of a stage."""
    return " ".join(name or "logits" for name, _ in stage.outputs)
