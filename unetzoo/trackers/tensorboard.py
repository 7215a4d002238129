"""TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..training.callbacks import RunningTrainer
from .base import Images, Tracker


class TensorBoard(Tracker):
    """Event files for TensorBoard.

    Args:
        folder: Where they are written; `tensorboard` in the run folder by default.

    Raises:
        ConfigError: TensorBoard is not installed.

    Examples:
        >>> TensorBoard("runs/demo/tensorboard").folder.name
        'tensorboard'
    """

    name, package, service = "tensorboard", "tensorboard", False

    def __init__(self, folder: str | Path | None = None) -> None:
        super().__init__()
        self.folder = None if folder is None else Path(folder)
        self._writer: Any = None

    def start(self, trainer: RunningTrainer, known: str | None) -> None:
        """Open the event file; logs of later steps, from a run that was killed, are hidden."""
        from torch.utils.tensorboard import SummaryWriter

        if self.folder is None and trainer.out is None:
            raise ConfigError("TensorBoard needs a folder", subject="tensorboard", hint="give folder= or out=")
        folder = self.folder or Path(str(trainer.out), "tensorboard")
        self._writer = SummaryWriter(str(folder), purge_step=trainer.steps + 1 if trainer.steps else None)

    def scores(self, scores: Mapping[str, float], step: int) -> None:
        """Add scalars."""
        for name, value in scores.items():
            self._writer.add_scalar(name, value, step)

    def images(self, images: Images, step: int) -> None:
        """Add images, and write everything to disk."""
        for name, image in images.items():
            self._writer.add_image(name, image, step, dataformats="HWC")
        self._writer.flush()

    def message(self, event: str, text: str, step: int) -> None:
        """Add a text."""
        self._writer.add_text(event, text.replace("\n", "  \n"), step)

    def results(self, folder: Path) -> None:
        """Nothing: the event files are in the run folder."""

    def stop(self, *, finished: bool) -> None:
        """Close the event file."""
        self._writer.close()
