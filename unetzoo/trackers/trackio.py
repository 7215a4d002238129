"""Trackio."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from ..training.callbacks import RunningTrainer
from .base import Images, Tracker, pages, run_name


class Trackio(Tracker):
    """A run of Trackio, kept on this machine unless a Hugging Face Space is given.

    Args:
        project: Name of the project.
        run: Name of the run; by default that of the run folder.
        space: Hugging Face Space to which the project is synchronized.

    Raises:
        ConfigError: trackio is not installed.
    """

    name, package = "trackio", "trackio"

    def __init__(self, project: str = "unetzoo", run: str | None = None, space: str | None = None) -> None:
        super().__init__()
        self.project, self.run, self.space = project, run, space
        self._run: Any = None

    def start(self, trainer: RunningTrainer, known: str | None) -> str:
        """Begin or continue the run; Trackio identifies it by its name."""
        name = known or self.run or f"{run_name(trainer)}-{time.strftime('%Y%m%d-%H%M%S')}"
        with redirect_stdout(sys.stderr):
            self._run = self._library.init(
                self.project, name, space_id=self.space, config=dict(trainer.record), resume="allow", embed=False,
                auto_log_gpu=False, auto_log_cpu=False,
            )  # fmt: skip
        return name

    def scores(self, scores: Mapping[str, float], step: int) -> None:
        """Log scores."""
        self._run.log(dict(scores), step=step)

    def images(self, images: Images, step: int) -> None:
        """Log images."""
        self._run.log({name: self._library.Image(image) for name, image in images.items()}, step=step)

    def message(self, event: str, text: str, step: int) -> None:
        """Send an alert."""
        self._run.alert(event, text, step=step)

    def results(self, folder: Path) -> None:
        """Log the figures, and the best network as an artifact."""
        self._run.log({file.stem: self._library.Image(file) for file in pages(folder) if file.suffix == ".png"})
        best = self._library.Artifact(f"{self._run.name}-best", type="model")
        best.add_dir(str(folder / "best"))
        self._run.log_artifact(best)

    def stop(self, *, finished: bool) -> None:
        """End the run."""
        with redirect_stdout(sys.stderr):
            self._run.finish()
