"""The folder of a run: log, events, checkpoints, the best network. Only one process writes it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_model
from torch import nn

from .. import io
from ..bundle import WEIGHTS, ModelBundle
from ..errors import CheckpointWriteError, ConfigError
from ..io import temporary_name, write_json, write_text
from ..labels import LabelSpec
from . import checkpoint
from .lock import RunLock
from .logs import as_csv, as_jsonl


class RunFolder:
    """Where a run is kept.

    Args:
        path: The folder; None keeps nothing.
        keep: Checkpoints to keep.
    """

    def __init__(self, path: Path | None, keep: int) -> None:
        self.path, self.keep = path, keep

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints lie."""
        if self.path is None:
            raise ConfigError("cannot resume without a run folder", hint="give out=")
        return self.path / "checkpoints"

    def lock(self) -> RunLock:
        """Held while the run is written."""
        return RunLock(self.path)

    def begin(self, resume: bool) -> None:
        """Sweep up after a killed writer; refuse to mix two runs.

        Raises:
            ConfigError: A new run in the folder of another.
        """
        if self.path is None:
            return
        if not resume and checkpoint.found(self.checkpoints):
            raise ConfigError(
                "the run folder holds a run already", subject=self.path, hint="resume it, or give another folder"
            )
        checkpoint.clean(self.checkpoints)
        checkpoint.clean(self.path)

    def describe(self, labels: Any, environment: Mapping[str, Any]) -> None:
        """Write `labels.json` and `environment.json`."""
        if isinstance(labels, LabelSpec):
            self.write_json("labels.json", labels.to_dict())
        self.write_json("environment.json", environment)

    def save(self, step: int, content: checkpoint.Checkpoint) -> None:
        """Write a checkpoint."""
        if self.path is not None:
            checkpoint.save(self.checkpoints, step, content, keep=self.keep)

    def save_best(self, net: nn.Module) -> None:
        """Keep a network as the best (a plain module's weights); at any moment the old one or the new one is there."""
        if self.path is None:
            return
        save = getattr(net, "save_pretrained", None) or partial(_save_weights, net)
        aside = temporary_name(self.path / "best")

        def write() -> None:
            save(aside)
            if not (aside / io.MANIFEST).is_file():  # networks of ours have done it themselves
                ModelBundle.of(net).save(aside)
            io.replace_folder(aside, aside.with_name("best"))

        self._write("the best network", write)

    def write_log(self, history: Sequence[Mapping[str, float]]) -> None:
        """Write `metrics.jsonl` and `metrics.csv`, a line an epoch; those of epochs that are undone are gone."""
        if self.path is not None:
            texts = {self.path / "metrics.jsonl": as_jsonl(history), self.path / "metrics.csv": as_csv(history)}
            for path, text in texts.items():
                self._write("the log", lambda path=path, text=text: write_text(path, text))

    def write_json(self, name: str, content: Any) -> None:
        """Write a file of facts."""
        if self.path is not None:
            path = self.path / name
            self._write(name, lambda: write_json(path, content))

    def load_latest(self) -> checkpoint.Checkpoint:
        """The newest whole checkpoint."""
        return checkpoint.latest(self.checkpoints)

    def note(self, event: str, **facts: Any) -> None:
        """Add a line to `events.jsonl`."""
        if self.path is not None:
            path = self.path / "events.jsonl"

            def write() -> None:
                with open(path, "a", encoding="utf-8") as file:
                    file.write(json.dumps({"event": event, **facts}) + "\n")

            self._write("the events", write)

    def _write(self, what: str, work: Callable[[], None]) -> None:
        try:
            work()
        except (OSError, SafetensorError) as error:
            for aside in self.path.glob(".tmp-*") if self.path else ():
                shutil.rmtree(aside, ignore_errors=True)
            raise CheckpointWriteError(
                f"cannot write {what}", subject=self.path, found=str(error), hint="free some space, then --resume"
            ) from error


def _save_weights(net: nn.Module, folder: Path) -> None:
    folder.mkdir(parents=True)
    save_model(net, str(folder / WEIGHTS))
