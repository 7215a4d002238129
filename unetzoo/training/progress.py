"""What a run shows in the terminal while it works."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

SHOWN = 6  # scores in an epoch's line


class Progress:
    """A bar over all steps with the running loss, and a line an epoch.

    Args:
        enabled: Show anything at all.
    """

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.console = Console(stderr=True, quiet=not enabled)
        self.bar: Bar | None = None
        self._written, self._score = 0.0, ""

    @contextlib.contextmanager
    def running(self, steps: int, done: int) -> Iterator[None]:
        """Show the bar inside this block."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Bar(*columns, console=self.console, disable=not self.enabled, transient=True) as self.bar:
            self.task = self.bar.add_task("training", total=steps, completed=done)
            yield
        self.bar = None

    def due(self) -> bool:
        """Whether half a second has passed since this was last so."""
        now = time.monotonic()
        due = now - self._written >= 0.5
        self._written = now if due else self._written
        return due

    def advance(self) -> None:
        """One step more."""
        if self.bar is not None:
            self.bar.advance(self.task)

    def tell(self, epoch: int, loss: float) -> None:
        """Write the loss of the last step, beside the last score."""
        if self.bar is not None:
            self.bar.update(self.task, description=f"epoch {epoch}  loss {loss:.4f}{self._score}")

    def report(self, row: dict[str, float], monitor: str, better: bool) -> None:
        """The epoch's line, with a star when it is the best so far."""
        names = [monitor, *(name for name in row if name.startswith(("train/loss", "val/loss")))]
        names += [name for name in row if name not in names and name not in ("epoch", "lr", "seconds")]
        scores = "  ".join(f"{name} {row[name]:.4f}" for name in dict.fromkeys(names[:SHOWN]))
        star = "*" if better else " "
        self._score = f"  {monitor} {row[monitor]:.4f}"
        self.console.print(f"epoch {int(row['epoch']):3d} {star} {scores}  ({row['seconds']:.1f} s)", highlight=False)
