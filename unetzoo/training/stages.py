"""How long a run is: epochs, optimizer steps, or stages of growing images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from ..errors import ConfigError


@dataclass(frozen=True)
class Stage:
    """Some epochs on images of one size.

    Args:
        epochs: How many.
        batch_size: Samples a batch and process; the run's own by default.
        transform: Transform of the training data; the dataset's own by default.

    Raises:
        ConfigError: Values below 1.
    """

    epochs: int
    batch_size: int | None = None
    transform: Any = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"wrong {name} of a stage", expected="at least 1", found=value)


class Plan:
    """Where each epoch of a run lies: its stage, its optimizer steps.

    Args:
        stages: One after the other.
        samples: Training samples of one process.
        batch_size: For stages without their own.
        accumulate: Batches an optimizer step.
        steps: Optimizer steps after which the run ends; the last stage is repeated until then.

    Examples:
        >>> plan = Plan([Stage(2)], samples=10, batch_size=2, accumulate=2)
        >>> plan.epochs, plan.steps, plan.first_step(1)
        (2, 6, 3)
        >>> plan = Plan([Stage(1)], samples=10, batch_size=2, accumulate=2, steps=7)
        >>> plan.epochs, [plan.steps_in(epoch) for epoch in range(3)], plan.is_whole(2)
        (3, [3, 3, 1], False)
    """

    def __init__(
        self, stages: Sequence[Stage], *, samples: int, batch_size: int, accumulate: int, steps: int | None = None
    ) -> None:
        self.stages = [stage if stage.batch_size else replace(stage, batch_size=batch_size) for stage in stages]
        self.ends = [sum(stage.epochs for stage in self.stages[: n + 1]) for n in range(len(self.stages))]
        self.samples, self.accumulate = samples, accumulate
        self._lengths = [ceil(ceil(samples / (stage.batch_size or 1)) / accumulate) for stage in self.stages]
        self.epochs = self.ends[-1] if steps is None else ceil(steps / self._lengths[-1])
        self.steps = self.first_step(self.epochs) if steps is None else steps

    def stage(self, epoch: int) -> int:
        """The stage that an epoch, counted from 0, belongs to."""
        return next((n for n, end in enumerate(self.ends) if epoch < end), len(self.ends) - 1)

    def step_size(self, epoch: int) -> int:
        """Samples of an optimizer step in an epoch, of one process."""
        return (self.stages[self.stage(epoch)].batch_size or 1) * self.accumulate

    def first_step(self, epoch: int) -> int:
        """Optimizer steps before an epoch."""
        before, steps = 0, 0
        for end, length in zip(self.ends[:-1], self._lengths, strict=False):
            steps += (min(epoch, end) - min(epoch, before)) * length
            before = end
        return steps + max(epoch - before, 0) * self._lengths[-1]

    def steps_in(self, epoch: int) -> int:
        """Optimizer steps of an epoch; fewer in the last one of a run that ends by steps."""
        return min(self._lengths[self.stage(epoch)], self.steps - self.first_step(epoch))

    def is_whole(self, epoch: int) -> bool:
        """Whether an epoch sees all samples."""
        return self.steps_in(epoch) == self._lengths[self.stage(epoch)]
