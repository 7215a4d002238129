"""Windows for the memory at hand: the tile that encodes the fewest pixels twice, and how many go at once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import psutil
import torch
from torch import nn

from ..errors import ConfigError
from ..modules import evaluation_mode
from ..wording import pluralize
from .footprint import bytes_per_pixel
from .images import in_channels_of
from .tta import TTALike, as_tta
from .window_predictor import WindowPredictor
from .windows import Blend, WindowPlan, canvas_length, minimum_tile, plan_windows

Memory = int | str | None

UNITS = {"": 1, "B": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
FREE = 0.5  # of what is free, by default
MOST = 64  # windows at once; more gain nothing
MOST_ACROSS = 300  # windows side by side


class TilingPlan(NamedTuple):
    """Windows that fit into a given memory.

    Args:
        plan: How they lie; `plan.tile` and `plan.overhead` (the share of pixels encoded twice) are what one looks for.
        batch: How many go through the network at once.
        needed: Bytes that they take while they do.
    """

    plan: WindowPlan
    batch: int
    needed: int

    def __str__(self) -> str:
        height, width = self.plan.tile
        return (
            f"{pluralize(self.plan.total, 'window')} of {height}×{width}, {self.batch} at once in "
            f"{self.needed / 1e6:,.0f} MB, {self.plan.overhead:.0%} of the pixels encoded twice"
        )


def plan_tiles(
    net: nn.Module,
    size: tuple[int, int],
    *,
    memory: Memory = None,
    tile: int | Sequence[int] | None = None,
    blend: Blend = "exact",
    tta: TTALike = None,
    channels: int | None = None,
) -> TilingPlan:
    """Which windows `predict` takes of an image for a given memory, and what they cost; nothing is predicted.

    Args:
        net: As for `predict`.
        size: Height and width of the image.
        memory: What windows may take on the network's device, weights apart: bytes, or a text as "2GB"; by default half
            of what is free.
        tile: A size to look at; by default the one of the fewest pixels encoded twice is found.
        blend: As for `predict`.
        tta: As for `predict`.
        channels: Of the image, where the network does not declare them.

    Raises:
        ConfigError: Not even the smallest window fits, or not the given one; an image that cannot be cut.

    Examples:
        >>> import unetzoo
        >>> net = unetzoo.build("bnunet", encoder_channels=(4, 8, 16))
        >>> fit = plan_tiles(net, (20_000, 30_000), memory="1GB")
        >>> fit.needed <= 10**9, fit.plan.tile[0] < 20_000, fit.plan.overhead < 0.2
        (True, True, True)
    """
    predictor = WindowPredictor(net, as_tta(tta))
    known = in_channels_of(net) if channels is None else channels
    if known is None:
        raise ConfigError("this network does not declare its channels", hint="plan_tiles(…, channels=3)")
    with evaluation_mode(net):
        return fit_windows(predictor, known, size, tile, blend, memory)


def fit_windows(
    predictor: WindowPredictor,
    channels: int,
    size: tuple[int, int],
    tile: Any,
    blend: Blend,
    memory: Memory,
    beside: Callable[[WindowPlan], int] = lambda plan: 0,
    room: int | None = None,
) -> TilingPlan:
    """The windows of an image that fit into `memory`, and how many at once.

    Args:
        predictor: The network.
        channels: Of the image.
        size: Its height and width.
        tile: A window's size; None or "auto" to choose.
        blend: How windows meet.
        memory: What they may take; see `parse_memory`.
        beside: Further bytes that a plan takes.
        room: What those may take, where they lie elsewhere than the windows; else they count with them.

    Raises:
        ConfigError: Not even the smallest window fits, or not the given one; and as `plan_windows`.
    """
    limit = parse_memory(memory) if memory is not None else _free(predictor.device)
    budget = Budget(limit, bytes_per_pixel(predictor, channels), beside, room)
    if tile in (None, "auto"):
        plan = _best_plan(predictor, size, blend, budget)
    else:
        plan = plan_windows(predictor.geometry, size, tile, blend)
    if not budget.holds(plan):
        budget.refuse(plan)
    # on a CPU windows at once only push each other out of its caches
    batch = 1 if predictor.device is None or predictor.device.type == "cpu" else budget.most(plan)
    return TilingPlan(plan, batch, budget.needed(plan, batch))


class Budget(NamedTuple):
    """What windows may take, and what they do.

    Args:
        limit: Bytes for windows.
        each: Bytes for each of their pixels.
        beside: Bytes of the buffers that belong to a plan.
        room: Bytes for those; None where they count with the windows.
    """

    limit: int
    each: float
    beside: Callable[[WindowPlan], int]
    room: int | None

    def needed(self, plan: WindowPlan, batch: int = 1) -> int:
        """Bytes of windows and buffers."""
        return math.ceil(batch * self.each * math.prod(plan.tile)) + self.beside(plan)

    def holds(self, plan: WindowPlan) -> bool:
        """Whether they fit, one window at a time."""
        if self.room is None:
            return self.needed(plan) <= self.limit
        return self.each * math.prod(plan.tile) <= self.limit and self.beside(plan) <= self.room

    def most(self, plan: WindowPlan) -> int:
        """Windows that fit at once."""
        window, buffers = self.each * math.prod(plan.tile), self.beside(plan)
        fitting = int((self.limit - (buffers if self.room is None else 0)) // window)
        if self.room is not None:
            fitting = min(fitting, self.room // max(1, buffers))
        return max(1, min(fitting, plan.total, MOST))

    def refuse(self, plan: WindowPlan) -> NoReturn:
        """Say what is missing.

        Raises:
            ConfigError: Always.
        """
        height, width = plan.tile
        raise ConfigError(
            "too little memory",
            subject=f"windows of {height}×{width} and their buffers",
            expected=f"{math.ceil(self.needed(plan) / 1e6):,} MB",
            found=f"{(self.limit + (self.room or 0)) / 1e6:,.0f} MB",
            hint="allow more memory, take a smaller network or, if this is not the smallest, a smaller tile",
        )


def parse_memory(memory: int | str) -> int:
    """Bytes of a number, or of a text with a unit: B, KB, MB, GB, TB (thousands), KiB … TiB (1024s).

    Raises:
        ConfigError: Neither; or less than a byte.

    Examples:
        >>> parse_memory("1.5 GB"), parse_memory("512MiB"), parse_memory(10_000)
        (1500000000, 536870912, 10000)
    """
    if isinstance(memory, int) and not isinstance(memory, bool) and memory > 0:
        return memory
    found = (
        re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)(B?)\s*", memory.upper()) if isinstance(memory, str) else None
    )
    if found and (found[2] or not found[3]):
        base = UNITS[found[2]]
        number = round(float(found[1]) * (1024 ** round(math.log(base, 1000)) if found[3] else base))
        if number > 0:
            return number
    raise ConfigError("wrong memory", expected='bytes, or a text as "2GB" or "512MiB"', found=repr(memory))


def _best_plan(predictor: WindowPredictor, size: tuple[int, int], blend: Blend, budget: Budget) -> WindowPlan:
    """The plan that fits with the fewest pixels (exact) or the widest windows (blended); of several, the squarest."""
    geometry = predictor.geometry
    smallest = minimum_tile(geometry, blend)
    if smallest is None:
        whole = plan_windows(geometry, size)
        if not budget.holds(whole):
            raise ConfigError(
                "the image does not fit into the memory, and this network has no exact windows",
                expected=f"{budget.needed(whole) / 1e6:,.0f} MB",
                found=f"{budget.limit / 1e6:,.0f} MB",
                hint='blend="gaussian" (overlapping windows, weighted), or more memory',
            )
        return whole
    lengths = [canvas_length(geometry, n) for n in size]
    across = canvas_length(geometry, 1)
    axes = [
        [plan_windows(geometry, (n, 1), (side, across), blend).rows for side in _sides(smallest, length)]
        for n, length in zip(size, lengths, strict=True)
    ]
    plans = (WindowPlan(rows, columns) for rows in axes[0] for columns in axes[1])
    fitting = [plan for plan in plans if budget.holds(plan)]
    if not fitting:
        budget.refuse(WindowPlan(axes[0][0], axes[1][0]))

    def rank(plan: WindowPlan) -> tuple[float, ...]:
        short, long = sorted(plan.tile)
        return (round(plan.overhead, 2), plan.total > 1, long / short) if blend == "exact" else (-short, -long)

    return min(fitting, key=rank)


def _sides(smallest: int, length: int) -> list[int]:
    """Sizes of windows worth a look: the smallest, then an eighth apart where there are not too many, and the whole."""
    sides, side = [smallest] if smallest < length else [], max(float(smallest + 1), length / MOST_ACROSS)
    while side < length:
        sides.append(int(side))
        side = max(side * 1.125, side + 1)
    return [*sides, length]


def _free(device: torch.device | None) -> int:
    if device is not None and device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's own, unused
        return int((torch.cuda.mem_get_info(device)[0] + kept) * FREE)
    return int(psutil.virtual_memory().available * FREE)
