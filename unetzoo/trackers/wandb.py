"""Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..training.callbacks import RunningTrainer
from .base import Images, Tracker, pages, run_name


class WandB(Tracker):
    """A run of Weights & Biases, with the recipe as its configuration.

    Args:
        project: Name of the project.
        entity: User or team; by default that of the login.
        run: Name of the run; by default that of the run folder.
        mode: "online" or "offline"; by default what `WANDB_MODE` names, or "online".

    Raises:
        ConfigError: wandb is not installed.
    """

    name, package = "wandb", "wandb"

    def __init__(
        self, project: str = "unetzoo", entity: str | None = None, run: str | None = None, mode: str | None = None
    ) -> None:
        super().__init__()
        self.project, self.entity, self.run, self.mode = project, entity, run, mode
        self._run: Any = None

    def start(self, trainer: RunningTrainer, known: str | None) -> str:
        """Begin or continue the run; the horizontal axis of all charts is the optimizer step."""
        self._run = self._library.init(
            project=self.project, entity=self.entity, name=self.run or run_name(trainer), mode=self.mode,
            id=known, resume="allow" if known else None, config=dict(trainer.record),
            dir=None if trainer.out is None else str(trainer.out), reinit="create_new",
            settings=self._library.Settings(silent=True),
        )  # fmt: skip
        self._run.define_metric("*", step_metric="step")
        return self._run.id

    def scores(self, scores: Mapping[str, float], step: int) -> None:
        """Log scores."""
        self._run.log({**scores, "step": step})

    def images(self, images: Images, step: int) -> None:
        """Log images."""
        self._run.log({**{name: self._library.Image(image) for name, image in images.items()}, "step": step})

    def message(self, event: str, text: str, step: int) -> None:
        """Send an alert."""
        self._run.alert(title=event, text=text)

    def results(self, folder: Path) -> None:
        """Log report and figures, and the best network as an artifact."""
        for file in pages(folder):
            kind = self._library.Html if file.suffix == ".html" else self._library.Image
            self._run.log({file.stem: kind(str(file))})
        best = self._library.Artifact(f"{self._run.id}-best", type="model")
        best.add_dir(str(folder / "best"))
        self._run.log_artifact(best)

    def stop(self, *, finished: bool) -> None:
        """End the run."""
        self._run.finish(exit_code=0 if finished else 1)
