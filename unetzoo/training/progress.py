"""Progress of a run in the terminal, or as plain lines where the output is piped."""

from __future__ import annotations

import time
from collections.abc import Mapping

import psutil
import torch
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from ..terminal import progress_console
from ..wording import pluralize
from .callbacks import Callback, RunningTrainer

SHOWN = 6  # scores in an epoch's line
INTERVAL, PIPED_INTERVAL = 0.5, 60.0  # seconds between two texts of the bar, and between two plain lines


class Progress(Callback):
    """A bar over all steps with running loss, score, speed, memory and time left, and a line per epoch.

    Where the output is no terminal, there is no bar: a line at the start, and one per minute until the first epoch
    ends.

    Args:
        enabled: Show anything at all.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self.console = progress_console(quiet=not enabled)
        self.bar: Bar | None = None
        self._score = ""

    def on_begin(self, trainer: RunningTrainer) -> None:
        """Show the bar, or print the first line."""
        self._written = 0.0
        if self.console.is_terminal or self.console.is_jupyter:
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
            self._task = self.bar.add_task("training", total=trainer.plan.steps, completed=trainer.steps)
        elif not trainer.ended:
            self._written = time.monotonic()
            done = f", {trainer.steps} of them done" if trainer.steps else ""
            steps, epochs = pluralize(trainer.plan.steps, "step"), pluralize(trainer.plan.epochs, "epoch")
            self._print(f"training for {epochs}, {steps} in total{done}")
        self._restart_clock()

    def on_step(self, trainer: RunningTrainer, samples: int) -> None:
        """Advance the bar; the host waits for the device only when a new text is due."""
        self._samples += samples
        if self.bar is not None:
            self.bar.advance(self._task)
        if not self._due(trainer):
            return
        seconds = time.monotonic() - self._since
        speed = f"  {self._samples / seconds:,.3g} samples/s" if seconds > 0 else ""
        self._restart_clock()
        epoch = len(trainer.history) + 1
        text = f"epoch {epoch}  loss {trainer.mean_loss():.4f}{self._score}{speed}  {memory_in_use()}"
        if self.bar is not None:
            self.bar.update(self._task, description=text)
        else:
            self._print(f"step {trainer.steps} of {trainer.plan.steps}  {text}")

    def on_epoch(self, trainer: RunningTrainer, row: Mapping[str, float], better: bool) -> None:
        """Print the epoch's line, with a star when it is the best so far."""
        names = [trainer.monitor, *(name for name in row if name.startswith(("train/loss", "val/loss")))]
        names += [name for name in row if name not in names and name not in ("epoch", "lr", "seconds")]
        scores = "  ".join(f"{name} {row[name]:.4f}" for name in dict.fromkeys(names[:SHOWN]))
        self._score = f"  {trainer.monitor} {row[trainer.monitor]:.4f}"
        self._print(f"epoch {int(row['epoch']):3d} {'*' if better else ' '} {scores}  ({row['seconds']:.1f} s)")
        self._restart_clock()  # the time of the evaluation does not count

    def on_message(self, trainer: RunningTrainer, event: str, text: str) -> None:
        """Print it."""
        self._print(text)

    def on_end(self, trainer: RunningTrainer) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def _due(self, trainer: RunningTrainer) -> bool:
        """Whether a new text is due; never when nothing is shown."""
        if not self.enabled or (self.bar is None and trainer.history):
            return False
        now = time.monotonic()
        due = now - self._written >= (PIPED_INTERVAL if self.bar is None else INTERVAL)
        self._written = now if due else self._written
        return due

    def _restart_clock(self) -> None:
        self._samples, self._since = 0, time.monotonic()

    def _print(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)


def memory_in_use() -> str:
    """The peak of the GPU's memory, or what this process holds of the host's.

    Examples:
        >>> memory_in_use().split()[1]
        'GiB'
    """
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"
    return f"{psutil.Process().memory_info().rss / 2**30:.2f} GiB"
