"""Trackers: a run's scores, samples, recipe and results in TensorBoard, MLflow, Weights & Biases or Trackio.

A recipe names them: `[train] log = ["mlflow"]`, or a table with options: `log = [{name = "wandb", mode = "offline"}]`.
`Trainer(callbacks=[MLflow()])` takes objects. A tracker that cannot start raises an error before training; a later
error is reported once and ends the tracking, not the run. A resumed run continues the run of the tracker.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .errors import ConfigError
from .io import write_json
from .training.callbacks import Callback, RunningTrainer
from .wording import describe

IMAGES = 4  # samples that are shown after every epoch
IDS = "trackers.json"  # in the run folder: the id of the tracker's run, to continue it
PAGES = ("report.html", "curves.png", "predictions.png")
Images = Mapping[str, np.ndarray]


class Tracker(Callback):
    """Base of trackers: what a run sends, when, and what happens if the service fails.

    Subclasses implement `start`, `scores`, `images`, `message`, `results` and `stop`. All steps are optimizer steps.

    Raises:
        ConfigError: The package is not installed.
    """

    name: ClassVar[str]
    package: ClassVar[str]  # that must be importable
    service: ClassVar[bool] = True  # whether it needs a server or an account

    def __init__(self) -> None:
        if find_spec(self.package) is None:
            raise ConfigError(
                f"{self.package} is not installed",
                subject="[train] log",
                hint=f"pip install {self.package}, or leave {self.name} out of log",
            )
        self._running = self._started = False
        self._library: Any = None
        self._samples: Any = None

    @abstractmethod
    def start(self, trainer: RunningTrainer, known: str | None) -> str | None:
        """Begin a run, or continue the run `known`, and return its id, if it has one."""

    @abstractmethod
    def scores(self, scores: Mapping[str, float], step: int) -> None:
        """Log finite numbers."""

    @abstractmethod
    def images(self, images: Images, step: int) -> None:
        """Log images by name, uint8 (H, W, 3)."""

    @abstractmethod
    def message(self, event: str, text: str, step: int) -> None:
        """Log a message for the user."""

    @abstractmethod
    def results(self, folder: Path) -> None:
        """Keep what the run folder holds at the end: report, figures, best network."""

    @abstractmethod
    def stop(self, *, finished: bool) -> None:
        """End the run of the tracker."""

    def on_begin(self, trainer: RunningTrainer) -> None:
        """Begin the run of the tracker, or continue it.

        Raises:
            ConfigError: The tracker cannot start.
        """
        try:
            self._library = import_module(self.package)
            known = _ids(trainer.out).get(self.name) if trainer.steps else None
            found = self.start(trainer, known)
            if found and trainer.out is not None:
                write_json(trainer.out / IDS, {**_ids(trainer.out), self.name: found})
        except ConfigError:
            raise
        except Exception as error:  # a service may raise anything
            raise ConfigError(f"{self.name} cannot start", subject="[train] log", found=describe(error),
                              hint=f"correct its settings, or leave {self.name} out of log") from error  # fmt: skip
        self._running = self._started = True
        self._begin_evaluation(trainer)

    def on_evaluate(self, trainer: RunningTrainer, output: Any, batch: Mapping[str, Any]) -> None:
        """Keep the first samples."""
        self._samples.add(output, dict(batch))

    def on_epoch(self, trainer: RunningTrainer, row: Mapping[str, float], better: bool) -> None:
        """Log the scores, and the first samples with their predictions as `samples/<name>`."""
        step = trainer.steps
        self._try(trainer, lambda: self.scores({k: v for k, v in row.items() if math.isfinite(v)}, step))
        shown = {f"samples/{name}": image for name, image in self._samples.images(trainer.labels).items()}
        self._try(trainer, lambda: self.images(shown, step))
        self._begin_evaluation(trainer)

    def on_message(self, trainer: RunningTrainer, event: str, text: str) -> None:
        """Log a message."""
        self._try(trainer, lambda: self.message(event, text, trainer.steps))

    def on_end(self, trainer: RunningTrainer) -> None:
        """Keep the results of a completed run, and end the run of the tracker."""
        if trainer.finished and trainer.out is not None:
            folder = trainer.out
            self._try(trainer, lambda: self.results(folder))
        if self._running:
            self._try(trainer, lambda: self.stop(finished=trainer.finished))
        elif self._started:  # it failed, but may hold rows that it has not sent
            with suppress(Exception):
                self.stop(finished=trainer.finished)
        self._running = self._started = False

    def _begin_evaluation(self, trainer: RunningTrainer) -> None:
        from .report.gallery import First

        self._samples = First(IMAGES, trainer.metrics.get("mask"))

    def _try(self, trainer: RunningTrainer, call: Callable[[], None]) -> None:
        if not self._running:
            return
        try:
            call()
        except Exception as error:  # a service may raise anything
            self._running = False
            trainer.say("tracker", f"{self.name} failed, and the run goes on without it: {describe(error)}")


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
        self._id = ""

    def start(self, trainer: RunningTrainer, known: str | None) -> str:
        """Create the run, with the recipe's values as parameters, or continue it."""
        self._client = client = self._library.MlflowClient(self.uri)
        if known is not None:
            self._id = known
            client.update_run(known, status="RUNNING")
            return known
        found = client.get_experiment_by_name(self.experiment)
        experiment = client.create_experiment(self.experiment) if found is None else found.experiment_id
        self._id = client.create_run(experiment, run_name=self.run or _run_name(trainer)).info.run_id
        settings = [
            self._library.entities.Param(_plain(key), value[:500]) for key, value in flattened(trainer.record).items()
        ]
        for start in range(0, len(settings), 100):  # at most 100 in a request
            client.log_batch(self._id, params=settings[start : start + 100])
        return self._id

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
        for file in (folder / page for page in PAGES):
            if file.is_file():
                self._client.log_artifact(self._id, str(file))
        self._client.log_artifacts(self._id, str(folder / "best"), "best")

    def stop(self, *, finished: bool) -> None:
        """End the run."""
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")


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
            project=self.project, entity=self.entity, name=self.run or _run_name(trainer), mode=self.mode,
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
        for file in (folder / page for page in PAGES):
            if file.is_file():
                kind = self._library.Html if file.suffix == ".html" else self._library.Image
                self._run.log({file.stem: kind(str(file))})
        best = self._library.Artifact(f"{self._run.id}-best", type="model")
        best.add_dir(str(folder / "best"))
        self._run.log_artifact(best)

    def stop(self, *, finished: bool) -> None:
        """End the run."""
        self._run.finish(exit_code=0 if finished else 1)


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
        name = known or self.run or f"{_run_name(trainer)}-{time.strftime('%Y%m%d-%H%M%S')}"
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
        figures = {file.stem: self._library.Image(file) for file in (folder / page for page in PAGES)
                   if file.is_file() and file.suffix == ".png"}  # fmt: skip
        self._run.log(figures)
        best = self._library.Artifact(f"{self._run.name}-best", type="model")
        best.add_dir(str(folder / "best"))
        self._run.log_artifact(best)

    def stop(self, *, finished: bool) -> None:
        """End the run."""
        with redirect_stdout(sys.stderr):
            self._run.finish()


def flattened(record: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten nested settings to dotted keys.

    Examples:
        >>> flattened({"model": {"name": "unet", "classes": 2}, "train": {}})
        {'model.name': 'unet', 'model.classes': '2'}
    """
    flat: dict[str, str] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _plain(name: str) -> str:
    """Replace the characters that MLflow does not allow in names."""
    return re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII)


def _run_name(trainer: RunningTrainer) -> str:
    return "run" if trainer.out is None else trainer.out.resolve().name


def _ids(folder: Path | None) -> dict[str, str]:
    try:
        return json.loads((Path(str(folder)) / IDS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
