"""Base of trackers: what a run sends, when, and what happens if the service fails."""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import ConfigError
from ..io import write_json
from ..training.callbacks import Callback, RunningTrainer
from ..wording import describe

IMAGES = 4  # samples that are shown after every epoch
RUNS = "trackers.json"  # in the run folder: id and last step of each tracker's run, to continue it
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
        self._id: str | None = None  # of the tracker's run
        self._logged = 0  # steps until the last epoch that it knows
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
            known = _known_runs(trainer.out).get(self.name, {}) if trainer.steps else {}
            self._id, self._logged = self.start(trainer, known.get("run")), known.get("step", 0)
            self._remember(trainer)
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
        """Log the scores, and the first samples with their predictions as `samples/<name>`.

        An epoch that a resumed run repeats is not logged again.
        """
        step = trainer.steps
        if step > self._logged:
            self._try(trainer, lambda: self.scores({k: v for k, v in row.items() if math.isfinite(v)}, step))
            shown = {f"samples/{name}": image for name, image in self._samples.images(trainer.labels).items()}
            self._try(trainer, lambda: self.images(shown, step))
            self._logged = step
            self._try(trainer, lambda: self._remember(trainer))
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

    def _remember(self, trainer: RunningTrainer) -> None:
        if self._id and trainer.out is not None:
            run = {"run": self._id, "step": self._logged}
            write_json(trainer.out / RUNS, {**_known_runs(trainer.out), self.name: run})

    def _begin_evaluation(self, trainer: RunningTrainer) -> None:
        from ..report.gallery import First

        self._samples = First(IMAGES, trainer.metrics.get("mask"))

    def _try(self, trainer: RunningTrainer, call: Callable[[], None]) -> None:
        if not self._running:
            return
        try:
            call()
        except Exception as error:  # a service may raise anything
            self._running = False
            trainer.say("tracker", f"{self.name} failed, and the run goes on without it: {describe(error)}")


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


def run_name(trainer: RunningTrainer) -> str:
    """Return the name of the run folder, or "run"."""
    return "run" if trainer.out is None else trainer.out.resolve().name


def pages(folder: Path) -> Iterator[Path]:
    """Iterate over the report and the figures in a run folder."""
    return (folder / page for page in PAGES if (folder / page).is_file())


def _known_runs(folder: Path | None) -> dict[str, dict[str, Any]]:
    try:
        return json.loads((Path(str(folder)) / RUNS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
