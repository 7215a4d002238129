"""Callbacks of a run: progress, logs, warnings, checkpoints, and your own.

A callback overrides any of these methods; each is given the `Trainer`:

    on_begin(trainer)                   the run begins, or continues after `trainer.steps` optimizer steps
    on_step(trainer, samples)           an optimizer step is done; must not wait for the device (`Trainer.mean_loss`)
    on_evaluate(trainer, output, batch) one more batch is validated, targets on the output's grid; must not wait either
    on_epoch(trainer, row, better)      an epoch is scored; better: it is the best so far
    on_message(trainer, event, text)    a message for the user, e.g. that predictions have collapsed
    on_end(trainer)                     the run ends, also by an error (`trainer.finished` is False then)

`Trainer(callbacks=[…])` takes objects; a recipe names them: `[train] callbacks = ["acme-slack"]`. Packages register
theirs in the entry-point group `unetzoo.callbacks`. Trackers such as TensorBoard are callbacks: see `unetzoo.trackers`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

from ..errors import CheckpointWriteError, DataError
from ..heads import heads_of
from ..labels import LabelSpec
from .checkpoint import RunFolder
from .collapse import Circumstances, Collapse, CollapseTracker, Spread, causes, class_collapse, reported_states
from .logs import read_jsonl
from .schedule import Plan
from .state import EMA, Best, TrainState
from .step import NonFiniteMonitor

SHARE_OF_TIME = 0.02  # for writing checkpoints by default


class RunningTrainer:
    """The part of the `Trainer` that callbacks may use."""

    net: nn.Module
    state: TrainState
    metrics: dict[str, Any]  # by head
    labels: LabelSpec | None  # of the data, if it has any
    monitor: str  # the score that decides what is best
    record: dict[str, Any]  # the recipe, if there is one
    plan: Plan  # where each epoch lies: plan.steps, plan.epochs
    out: Path | None  # the run folder, in every process
    folder: RunFolder  # its writer, which writes in the main process only
    nonfinite: NonFiniteMonitor
    finished: bool  # whether the run was completed

    @property
    def steps(self) -> int:
        """Optimizer steps done."""
        return self.state.steps

    @property
    def history(self) -> list[dict[str, float]]:
        """One row per epoch."""
        return self.state.history

    @property
    def best(self) -> Best:
        """The best epoch so far."""
        return self.state.best

    @property
    def ema(self) -> EMA | None:
        """The moving average of the weights, if there is one."""
        return self.state.ema

    @property
    def network(self) -> nn.Module:
        """The network that is evaluated and kept as the best: the trained one, or the moving average of its weights."""
        return self.state.network

    @property
    def stopping(self) -> bool:
        """Whether a process received a signal, which ends the run after this step."""
        return bool(self.nonfinite.signal)

    @property
    def ended(self) -> bool:
        """Whether no more epochs will be trained."""
        return len(self.history) >= self.plan.epochs or self.best.is_over or self.stopping

    def mean_loss(self) -> float:
        """The mean loss of the epoch so far; the host waits for the device."""
        epoch, sums = len(self.history), self.state.sums
        samples = (self.steps - self.plan.first_step(epoch)) * self.plan.step_size(epoch)
        return float("nan") if sums is None else float(sums[0]) / samples

    def save(self) -> None:
        """Write a checkpoint. All processes call it together."""
        raise NotImplementedError

    def say(self, event: str, text: str, **facts: Any) -> None:
        """Print a message, note it in `events.jsonl`, and pass it to all callbacks."""
        raise NotImplementedError


class Callback:
    """Base of callbacks; every method does nothing.

    An `OSError` that a method raises is reported as `CheckpointWriteError`.

    Examples:
        >>> import unetzoo
        >>> class Losses(Callback):
        ...     def on_epoch(self, trainer, row, better):
        ...         print(f"epoch {row['epoch']:.0f}: {row['train/loss'] > 0}")
        >>> data = unetzoo.DATASETS.build("composites", size=32, length=4)
        >>> data.transform = unetzoo.datasets.Transform()
        >>> net = unetzoo.build("bnunet", in_channels=6, encoder_channels=(4, 8, 8))
        >>> trainer = unetzoo.Trainer(net, unetzoo.LOSSES.build("bce"), epochs=1, callbacks=[Losses()], progress=False)
        >>> _ = trainer.fit(data)
        epoch 1: True
    """

    every_process = False  # the methods are called in the main process only

    def on_begin(self, trainer: RunningTrainer) -> None:
        """The run begins, or continues: logs of steps after `trainer.steps` are no longer valid."""

    def on_step(self, trainer: RunningTrainer, samples: int) -> None:
        """An optimizer step is done, over so many samples of all processes."""

    def on_evaluate(self, trainer: RunningTrainer, output: Any, batch: Mapping[str, Any]) -> None:
        """One more batch of the validation data is scored."""

    def on_epoch(self, trainer: RunningTrainer, row: Mapping[str, float], better: bool) -> None:
        """An epoch is scored; the metrics hold the counts of all processes."""

    def on_message(self, trainer: RunningTrainer, event: str, text: str) -> None:
        """A message for the user."""

    def on_end(self, trainer: RunningTrainer) -> None:
        """The run ends."""


class Callbacks:
    """Calls several callbacks in order.

    Args:
        callbacks: The callbacks.
        main: Whether this is the main process.
    """

    def __init__(self, callbacks: Sequence[Callback], *, main: bool = True) -> None:
        self.all = [callback for callback in callbacks if main or callback.every_process]

    def call(self, method: str, trainer: RunningTrainer, *given: Any) -> None:
        """Call a method of every callback.

        Raises:
            CheckpointWriteError: In place of an `OSError`.
        """
        for callback in self.all:
            try:
                getattr(callback, method)(trainer, *given)
            except CheckpointWriteError:
                raise
            except OSError as error:
                raise CheckpointWriteError(
                    "a callback cannot write",
                    subject=type(callback).__name__,
                    found=error,
                    hint="free some space, then --resume",
                ) from error


class Checkpoints(Callback):
    """Writes checkpoints: every `epochs` epochs and `steps` steps, after the last epoch, and after a signal.

    The best network is written as soon as an epoch is the best so far, the log after every epoch.

    Args:
        epochs: Epochs from one checkpoint to the next. By default one, or as many as it takes for writing to need no
            more than 2 % of the time.
        steps: Optimizer steps from one checkpoint to the next, if any.
    """

    every_process = True  # the random states of all processes are saved

    def __init__(self, epochs: int | None = None, steps: int | None = None) -> None:
        self.epochs, self.steps = epochs, steps
        self._cost = self._written = 0.0

    def on_step(self, trainer: RunningTrainer, samples: int) -> None:
        """Write a checkpoint if one is due."""
        if trainer.stopping or (self.steps and trainer.steps % self.steps == 0):
            trainer.save()

    def on_epoch(self, trainer: RunningTrainer, row: Mapping[str, float], better: bool) -> None:
        """Write the best network, the log, and a checkpoint if one is due."""
        started, epoch = time.perf_counter(), len(trainer.history)
        if better:
            trainer.folder.save_best(trainer.network)
        if trainer.plan.is_whole(epoch - 1) and (trainer.ended or self._due(epoch, started)):
            trainer.save()
            self._written = time.perf_counter()
            self._cost = self._written - started
        trainer.folder.write_log(trainer.history)

    def _due(self, epoch: int, now: float) -> bool:
        if self.epochs:
            return epoch % self.epochs == 0
        due = [self._cost <= SHARE_OF_TIME * (now - self._written)]
        return broadcast_object_list(due)[0]  # all processes write together


class CollapseMonitor(Callback):
    """Warns when predictions are the same everywhere, with the likely causes (see `collapse`)."""

    every_process = True  # their findings are added up

    def on_begin(self, trainer: RunningTrainer) -> None:
        """Continue from what the run has reported already."""
        self.tracker = CollapseTracker(self._reported(trainer))
        self._begin_evaluation()

    def on_evaluate(self, trainer: RunningTrainer, output: Any, batch: Mapping[str, Any]) -> None:
        """Add up the spread of predicted planes; the host does not wait."""
        from ..report.samples import is_plane

        if self._input is None:
            images = batch["image"].float()
            self._input = torch.stack([images.mean(), images.std(correction=0)])
        for head, predicted in heads_of(output).items():
            if is_plane(batch, head, predicted):
                part = Spread.of(predicted, batch[head], batch.get("valid"))
                self._spreads[head] = self._spreads[head] + part if head in self._spreads else part

    def on_epoch(self, trainer: RunningTrainer, row: Mapping[str, float], better: bool) -> None:
        """Look for collapses, and report changes."""
        found: dict[str, Collapse | None] = {
            head: class_collapse(metric.confusion, metric.names)
            for head, metric in trainer.metrics.items()
            if hasattr(metric, "confusion")
        }
        found |= {head: spread.collapse() for head, spread in self._summed_spreads().items()}
        for head, collapse in self.tracker.changes(found, trainer.steps, last=trainer.ended).items():
            self._say(trainer, head, collapse, row)
        self._begin_evaluation()

    def _begin_evaluation(self) -> None:
        self._spreads: dict[str, Spread] = {}
        self._input: Tensor | None = None

    def _summed_spreads(self) -> dict[str, Spread]:
        summed: dict[str, Spread] = {}
        for share in gather_object([{head: spread.sums.tolist() for head, spread in self._spreads.items()}]):
            for head, sums in share.items():
                part = Spread(torch.tensor(sums, dtype=torch.float64))
                summed[head] = summed[head] + part if head in summed else part
        return summed

    def _say(self, trainer: RunningTrainer, head: str, collapse: Collapse | None, row: Mapping[str, float]) -> None:
        epoch = int(row["epoch"])
        if collapse is None:
            event, reasons = "recovered", []
            said = f"epoch {epoch}: the predicted {head} is no longer the same everywhere"
        else:
            mean, deviation = self._input.tolist() if self._input is not None else (0.0, 1.0)
            event, said = "collapse", collapse.message(head, epoch)
            run = str(trainer.out or "PATH")
            rate = max(past["lr"] for past in (*trainer.history, row))  # a schedule may have lowered it
            reasons = causes(collapse, Circumstances(rate, trainer.steps, mean, deviation, run))
        text = "\n".join([said, *(f"  likely cause: {reason}" for reason in reasons)])
        state = collapse.state if collapse else ""
        trainer.say(event, text, epoch=epoch, head=head, state=state, said=said, causes=reasons)

    def _reported(self, trainer: RunningTrainer) -> dict[str, str]:
        if trainer.out is None or not trainer.history:
            return {}
        try:
            return reported_states(read_jsonl(trainer.out / "events.jsonl").rows, len(trainer.history))
        except DataError:  # nothing happened
            return {}
