"""Choose tile and batch size for a given amount of memory: the tile that takes the least time."""

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
FREE = 0.5  # share of the free memory to use by default
MOST = 64  # windows per batch; larger batches are not faster
MOST_ACROSS = 300  # windows along one axis
TWICE = 700e6  # bytes of a window at which a CPU takes twice as long per pixel (cache misses and new pages)
EACH = 2**14  # pixels that take as long as the calls for one window


class TilingPlan(NamedTuple):
    """Windows that fit into a given memory.

    Args:
        plan: Their positions; `plan.tile` is their size, `plan.overhead` the share of pixels encoded twice.
        batch: Number of windows per batch.
        needed: Bytes that a batch takes.
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
    """Compute which windows `predict` would use for an image and a given amount of memory, and their cost.

    Args:
        net: As for `predict`.
        size: Height and width of the image.
        memory: Memory for windows on the network's device, not counting weights: bytes, or text such as "2GB"; by
            default half of the free memory.
        tile: A tile to check; by default the one that takes the least time is chosen.
        blend: As for `predict`.
        tta: As for `predict`.
        channels: Channels of the image, if the network does not declare them.

    Raises:
        ConfigError: The given window, or even the smallest, does not fit; the image cannot be cut into windows.

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
    buffers: Callable[[WindowPlan], int] = lambda plan: 0,
    room: int | None = None,
) -> TilingPlan:
    """The windows of an image that fit into `memory`, and their batch size.

    Args:
        predictor: The network.
        channels: Channels of the image.
        size: Height and width of the image.
        tile: Size of a window; None or "auto" to choose it.
        blend: How windows are combined.
        memory: Memory for the windows; see `parse_memory`.
        buffers: Bytes of the buffers that a plan needs.
        room: Memory for the buffers, if they are not in the same memory as the windows.

    Raises:
        ConfigError: The given window, or even the smallest, does not fit; and as `plan_windows`.
    """
    limit = parse_memory(memory) if memory is not None else _free(predictor.device)
    budget = Budget(limit, bytes_per_pixel(predictor, channels), buffers, room)
    if tile in (None, "auto"):
        plan = _best_plan(predictor, size, blend, budget)
    else:
        plan = plan_windows(predictor.geometry, size, tile, blend)
    if not budget.holds(plan):
        budget.refuse(plan)
    # on a CPU, windows of one batch evict each other from the caches
    batch = 1 if predictor.on_cpu else budget.most(plan)
    return TilingPlan(plan, batch, budget.needed(plan, batch))


class Budget(NamedTuple):
    """Memory that windows may take, and how much they need.

    Args:
        limit: Bytes available for windows.
        per_pixel: Bytes that a window needs per pixel.
        buffers: Bytes of the buffers that a plan needs.
        room: Bytes available for buffers; None if they share `limit` with the windows.
    """

    limit: int
    per_pixel: float
    buffers: Callable[[WindowPlan], int]
    room: int | None

    def needed(self, plan: WindowPlan, batch: int = 1) -> int:
        """Bytes that a batch of windows and the buffers need."""
        return math.ceil(batch * self.per_pixel * math.prod(plan.tile)) + self.buffers(plan)

    def holds(self, plan: WindowPlan) -> bool:
        """Whether the plan fits with one window at a time."""
        if self.room is None:
            return self.needed(plan) <= self.limit
        return self.per_pixel * math.prod(plan.tile) <= self.limit and self.buffers(plan) <= self.room

    def most(self, plan: WindowPlan) -> int:
        """The largest batch that fits."""
        window, buffers = self.per_pixel * math.prod(plan.tile), self.buffers(plan)
        fitting = int((self.limit - (buffers if self.room is None else 0)) // window)
        if self.room is not None:
            fitting = min(fitting, self.room // max(1, buffers))
        return max(1, min(fitting, plan.total, MOST))

    def refuse(self, plan: WindowPlan) -> NoReturn:
        """Raise the error for a plan that does not fit.

        Raises:
            ConfigError: Always.
        """
        height, width = plan.tile
        raise ConfigError(
            "too little memory",
            subject=f"windows of {height}×{width} and their buffers",
            expected=f"{math.ceil(self.needed(plan) / 1e6):,} MB",
            found=f"{(self.limit + (self.room or 0)) / 1e6:,.0f} MB",
            hint="allow more memory, or use a smaller network or tile",
        )


def parse_memory(memory: int | str) -> int:
    """Bytes, from a number or from text with a unit: B, KB, MB, GB, TB (powers of 1000), KiB … TiB (of 1024).

    Raises:
        ConfigError: Neither of these, or less than a byte.

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
    raise ConfigError("wrong memory", expected='bytes, or text such as "2GB" or "512MiB"', found=repr(memory))


def _best_plan(predictor: WindowPredictor, size: tuple[int, int], blend: Blend, budget: Budget) -> WindowPlan:
    """The fitting plan that is fastest (exact) or has the largest windows (blended); among equals the squarest."""
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
        if blend != "exact":
            return -short, -long
        time = 1 + plan.overhead
        if predictor.on_cpu:
            time *= 1 + budget.per_pixel * short * long / TWICE
            time += plan.total * EACH / math.prod(size)
        return round(time, 2), plan.total > 1, long / short

    return min(fitting, key=rank)


def _sides(smallest: int, length: int) -> list[int]:
    """Candidate sizes of windows: the smallest, steps of an eighth (larger on a long axis), the whole."""
    sides, side = [smallest] if smallest < length else [], max(float(smallest + 1), length / MOST_ACROSS)
    while side < length:
        sides.append(int(side))
        side = max(side * 1.125, side + 1)
    return [*sides, length]


def _free(device: torch.device | None) -> int:
    if device is not None and device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # reserved by torch, unused
        return int((torch.cuda.mem_get_info(device)[0] + kept) * FREE)
    return int(psutil.virtual_memory().available * FREE)
