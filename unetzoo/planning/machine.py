"""Measurement of this machine: how long training steps take, and reading, augmentation and evaluation beside them."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import psutil
import torch
from accelerate import PartialState
from torch.utils.data import Subset

from ..errors import ConfigError
from ..precision import autocast, resolve
from ..registry import MODELS
from ..training import Callback
from ..training.batch_size import free_memory
from ..training.recipe import Recipe
from ..training.run import make_dataset, make_trainer

MEASURED = (16, 32)
WIDTHS = (*MEASURED, 64)  # the last is extrapolated
LEVELS = 5
BATCH = 4
SIDES = (64, 128)
STEPS = 5  # the fastest counts: other processes only ever slow a step down
WARM_UP = 2  # steps with a recipe that are not measured
IMAGES = 8  # that are evaluated
EVALUATION_COST = 1 / 3  # of a training step with as many pixels


@dataclass(frozen=True)
class Timing:
    """What a machine can do.

    Args:
        device: "cpu", "cuda" or another device.
        memory: Bytes of memory that are free.
        cpus: Number of processors that this process may use.
        fixed_ms: Milliseconds of a training step that do not depend on its size, by the network's width.
        pixel_ns: Nanoseconds of a training step per pixel, by the network's width.
        sample_ms: Milliseconds of a training step per sample for all but the network: reading, augmentation, loss.
        image_ms: Milliseconds of an evaluation per image for all but the network: reading and metrics.
    """

    device: str
    memory: int
    cpus: int
    fixed_ms: Mapping[int, float]
    pixel_ns: Mapping[int, float]
    sample_ms: float = 0.0
    image_ms: float = 0.0

    def step_seconds(self, width: int, batch: int, pixels: int) -> float:
        """Duration of a training step.

        Args:
            width: Channels of the first level.
            batch: Batch size.
            pixels: Pixels of a sample.
        """
        per_sample = self.sample_ms / 1e3 + self.pixel_ns[width] * pixels / 1e9
        return self.fixed_ms[width] / 1e3 + batch * per_sample

    def image_seconds(self, width: int, pixels: int) -> float:
        """Duration of the evaluation of an image.

        Args:
            width: Channels of the first level.
            pixels: Pixels of the image.
        """
        return self.image_ms / 1e3 + EVALUATION_COST * self.pixel_ns[width] * pixels / 1e9

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        by_width = {name: {str(width): value for width, value in getattr(self, name).items()}
                    for name in ("fixed_ms", "pixel_ns")}  # fmt: skip
        overhead = {"sample_ms": self.sample_ms, "image_ms": self.image_ms}
        return {"device": self.device, "memory": self.memory, "cpus": self.cpus, **by_width, **overhead}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            ConfigError: Not such a table.
        """
        try:
            by_width = {name: {int(width): float(value) for width, value in table[name].items()}
                        for name in ("fixed_ms", "pixel_ns")}  # fmt: skip
            overhead = [float(table.get(name, 0)) for name in ("sample_ms", "image_ms")]
            made = cls(
                str(table["device"]), int(table["memory"]), int(table["cpus"]), by_width["fixed_ms"],
                by_width["pixel_ns"], *overhead,
            )  # fmt: skip
            if set(made.fixed_ms) != set(WIDTHS) or set(made.pixel_ns) != set(WIDTHS):
                raise ValueError(f"widths other than {WIDTHS}")
            if min(*made.pixel_ns.values(), made.memory, made.cpus) <= 0:
                raise ValueError("values that are not positive")
            if not 0 <= min(overhead) <= max(overhead) < math.inf:
                raise ValueError("negative durations")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(
                "not a measurement of a machine", found=f"{type(error).__name__}: {error}",
                hint="pass a recipe that `unetzoo plan` wrote, or leave --timing out to measure again",
            ) from error  # fmt: skip
        return made

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read the measurement in a recipe that `plan` wrote, or in a JSON file.

        Raises:
            ConfigError: The file is missing or holds no measurement.
        """
        import tomllib

        try:
            text = Path(path).read_text(encoding="utf-8")
            table = json.loads(text) if Path(path).suffix == ".json" else tomllib.loads(text)
        except (OSError, ValueError) as error:
            raise ConfigError("cannot read the measurement", subject=path, found=str(error)) from error
        if isinstance(table, dict) and "plan" in table:
            table = table["plan"].get("timing", {}) if isinstance(table["plan"], dict) else {}
        return cls.from_dict(table)


def measure(channels: int = 3, classes: int = 2, tell: Any = lambda: None) -> Timing:
    """Time training steps of BN-UNets of two widths at two sizes.

    The values are rounded to two digits, so that small differences between measurements seldom change a plan.

    Args:
        channels: Channels of the images.
        classes: Number of classes.
        tell: Called after each width.
    """
    device = torch.device(PartialState().device or "cpu")
    fixed: dict[int, float] = {}
    slope: dict[int, float] = {}
    for width in MEASURED:
        small, large = (_step_seconds(device, width, side, channels, classes) for side in SIDES)
        per_pixel = max(large - small, large / 10) / (BATCH * (SIDES[1] ** 2 - SIDES[0] ** 2))
        slope[width] = _rounded(per_pixel * 1e9)
        fixed[width] = _rounded(max(large - per_pixel * BATCH * SIDES[1] ** 2, 0) * 1e3)
        tell()
    for table in (fixed, slope):
        growth = table[32] / table[16] if table[16] else 1.0
        table[64] = _rounded(table[32] * min(max(growth, 1.0), 4.0))  # twice the channels are at most 4 times the work
    return Timing(device.type, int(_rounded(free_memory(device))), psutil.cpu_count(logical=False) or 1, fixed, slope)


def with_recipe(timing: Timing, recipe: Recipe) -> Timing:
    """Train a few steps with a recipe and evaluate a few images, to measure what takes time beside the network.

    Args:
        timing: The measurement of the machine.
        recipe: A recipe for it.
    """
    steps = WARM_UP + STEPS + 2 * recipe.train.workers  # the first batches of several workers are ready at once
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": None, "steps": steps})})
    train, val = (make_dataset(recipe, split, progress=False) for split in ("train", "val"))
    few = Subset(val, range(min(len(val), IMAGES)))
    watch = Stopwatch()
    with torch.random.fork_rng():
        trainer = make_trainer(recipe, train.labels, callbacks=[watch], progress=False)
        trainer.fit(train, few)
        begun = time.perf_counter()
        trainer.evaluate(few)
    image = (time.perf_counter() - begun) / len(few)
    step = statistics.mean(watch.seconds[WARM_UP:])
    width, batch = recipe.model.options.get("encoder_channels", WIDTHS)[0], int(recipe.train.batch_size)
    known = replace(timing, sample_ms=0.0, image_ms=0.0)
    sample_ms = (step - known.step_seconds(width, batch, _pixels(train))) / batch * 1e3
    image_ms = (image - known.image_seconds(width, _pixels(val))) * 1e3
    return replace(timing, sample_ms=_rounded(max(sample_ms, 0)), image_ms=_rounded(max(image_ms, 0)))


class Stopwatch(Callback):
    """Measures each training step, with the reading of its batch but without the evaluations between steps."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = 0.0

    def on_begin(self, trainer: Any) -> None:
        """Start."""
        self._last = time.perf_counter()

    def on_step(self, trainer: Any, samples: int) -> None:
        """Note the duration of the step."""
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now

    def on_epoch(self, trainer: Any, row: Any, better: bool) -> None:
        """Start again after an evaluation."""
        self._last = time.perf_counter()


def channels_of(width: int, levels: int) -> list[int]:
    """Channels of each level of a network."""
    return [width * 2**level for level in range(levels)]


def _step_seconds(device: torch.device, width: int, side: int, channels: int, classes: int) -> float:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        net: Any = MODELS.build(
            "bnunet", in_channels=channels, classes=classes, encoder_channels=channels_of(width, LEVELS)
        ).to(device)
        images = torch.rand(BATCH, channels, side, side, device=device)
    precision = resolve("auto", net, device, BATCH * side**2)
    if precision != "fp32":
        net, images = (thing.to(memory_format=torch.channels_last) for thing in (net, images))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
    target = torch.zeros(BATCH, side, side, dtype=torch.long, device=device)
    seconds = []
    for _ in range(STEPS):
        begun = time.perf_counter()
        with autocast(device, precision):
            output = net(images)
        loss = torch.nn.functional.cross_entropy(output.float(), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the device
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def _pixels(dataset: Any) -> int:
    return dataset[0]["image"][0].numel()


def _rounded(value: float) -> float:
    """Two significant digits."""
    return float(f"{value:.2g}")
