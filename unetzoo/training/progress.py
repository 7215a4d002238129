"""What a run shows in the terminal while it works."""

from __future__ import annotations

import time
from collections.abc import Mapping

import psutil
import torch
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from ..terminal import progress_console
from .callbacks import Callback, RunningTrainer

SHOWN = 6  # scores in an epoch's line


class Progress(Callback):
    """A bar over all steps with running loss, score, speed, memory and time left, and a line per epoch.

    Args:
        enabled: Show anything at all.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self.console = progress_console(quiet=not enabled)
        self.bar: Bar | None = None
        self._written, self._score = 0.0, ""
        self._speed = Speed()

    def on_begin(self, trainer: RunningTrainer) -> None:
        """Show the bar."""
        self.start(trainer.plan.steps, done=trainer.steps)

    def on_step(self, trainer: RunningTrainer, samples: int) -> None:
        """Advance it; only when a new text is due does the host wait for the device."""
        self.advance(samples)
        if self.due():
            self.tell(len(trainer.history) + 1, trainer.mean_loss())

    def on_epoch(self, trainer: RunningTrainer, row: Mapping[str, float], better: bool) -> None:
        """Print the epoch's line."""
        self.report(row, trainer.monitor, better)

    def on_message(self, trainer: RunningTrainer, event: str, text: str) -> None:
        """Print it."""
        self.say(text)

    def on_end(self, trainer: RunningTrainer) -> None:
        """Remove the bar."""
        self.stop()

    def start(self, steps: int, done: int) -> None:
        """Show the bar."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self.bar = Bar(*columns, console=self.console, disable=not self.enabled, transient=True)
        self.bar.start()
        self.task = self.bar.add_task("training", total=steps, completed=done)
        self._speed.begin()

    def stop(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def due(self) -> bool:
        """Whether half a second has passed since this was last so; never, when nothing is shown."""
        if not self.enabled:
            return False
        now = time.monotonic()
        due = now - self._written >= 0.5
        self._written = now if due else self._written
        return due

    def advance(self, samples: int) -> None:
        """One step more, over so many samples."""
        self._speed.samples += samples
        if self.bar is not None:
            self.bar.advance(self.task)

    def tell(self, epoch: int, loss: float) -> None:
        """Write the mean loss of the epoch so far, beside the last score."""
        if self.bar is not None:
            speed = self._speed.take()
            shown = f"  {speed:,.3g} samples/s" if speed else ""
            text = f"epoch {epoch}  loss {loss:.4f}{self._score}{shown}  {memory_in_use()}"
            self.bar.update(self.task, description=text)

    def say(self, text: str) -> None:
        """A line of its own."""
        self.console.print(text, soft_wrap=True)

    def report(self, row: Mapping[str, float], monitor: str, better: bool) -> None:
        """The epoch's line, with a star when it is the best so far."""
        names = [monitor, *(name for name in row if name.startswith(("train/loss", "val/loss")))]
        names += [name for name in row if name not in names and name not in ("epoch", "lr", "seconds")]
        scores = "  ".join(f"{name} {row[name]:.4f}" for name in dict.fromkeys(names[:SHOWN]))
        star = "*" if better else " "
        self._score = f"  {monitor} {row[monitor]:.4f}"
        self.say(f"epoch {int(row['epoch']):3d} {star} {scores}  ({row['seconds']:.1f} s)")
        self._speed.begin()  # the evaluation is no part of it


class Speed:
    """Samples per second since the last call."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Count from here."""
        self.samples, self._since = 0, time.monotonic()

    def take(self) -> float:
        """Samples per second, 0 where none are known; counts anew from here."""
        seconds, samples = time.monotonic() - self._since, self.samples
        self.begin()
        return samples / seconds if seconds > 0 else 0.0


def memory_in_use() -> str:
    """The peak of the GPU's memory, or what this process holds of the host's.

    Examples:
        >>> memory_in_use().split()[1]
        'GiB'
    """
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"
    return f"{psutil.Process().memory_info().rss / 2**30:.2f} GiB"
