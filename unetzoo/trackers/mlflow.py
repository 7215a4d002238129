"""MLflow."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..training.callbacks import RunningTrainer
from .base import Images, Tracker, flattened, pages, run_name


class MLflow(Tracker):
    """A run of an MLflow experiment, with the recipe as parameters.

    Args:
        uri: Tracking server or folder; by default what `MLFLOW_TRACKING_URI` names, or MLflow's own default.
        experiment: Name of the experiment.
        run: Name of the run; by default that of the run folder.

    Raises:
        ConfigError: MLflow is not installed.
    """

    name, package = "mlflow", "mlflow"

    def __init__(self, uri: str | None = None, experiment: str = "unetzoo", run: str | None = None) -> None:
        super().__init__()
        self.uri, self.experiment, self.run = uri, experiment, run
        self._client: Any = None

    def start(self, trainer: RunningTrainer, known: str | None) -> str:
        """Create the run, with the recipe's values as parameters, or continue it."""
        self._client = client = self._library.MlflowClient(self.uri)
        if known is not None:
            client.update_run(known, status="RUNNING")
            return known
        found = client.get_experiment_by_name(self.experiment)
        experiment = client.create_experiment(self.experiment) if found is None else found.experiment_id
        run = client.create_run(experiment, run_name=self.run or run_name(trainer)).info.run_id
        settings = [
            self._library.entities.Param(_plain(key), value[:500]) for key, value in flattened(trainer.record).items()
        ]
        for start in range(0, len(settings), 100):  # at most 100 in a request
            client.log_batch(run, params=settings[start : start + 100])
        return run

    def scores(self, scores: Mapping[str, float], step: int) -> None:
        """Log metrics."""
        now, metric = int(time.time() * 1000), self._library.entities.Metric
        self._client.log_batch(self._id, [metric(_plain(key), value, now, step) for key, value in scores.items()])

    def images(self, images: Images, step: int) -> None:
        """Log images as artifacts."""
        for name, image in images.items():
            self._client.log_image(self._id, image, f"{_plain(name)}/{step:08d}.png")

    def message(self, event: str, text: str, step: int) -> None:
        """Log a text as an artifact."""
        self._client.log_text(self._id, text, f"messages/{step:08d}-{_plain(event)}.txt")

    def results(self, folder: Path) -> None:
        """Log report, figures and best network as artifacts."""
        for file in pages(folder):
            self._client.log_artifact(self._id, str(file))
        self._client.log_artifacts(self._id, str(folder / "best"), "best")

    def stop(self, *, finished: bool) -> None:
        """End the run."""
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")


def _plain(name: str) -> str:
    """Replace the characters that MLflow does not allow in names."""
    return re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII)
