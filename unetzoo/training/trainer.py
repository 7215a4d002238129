"""The Trainer: one loop over epochs and optimizer steps, built from plain objects.

accelerate places the network and connects the processes. Precision, loaders and schedulers are our own, since those of
accelerate are global to the process. `TrainState` (`state`) holds everything a run depends on, `TrainStep` (`step`)
takes an optimizer step, and progress, logs and checkpoints are callbacks (`callbacks`).
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..errors import ConfigError
from ..labels import LabelSpec
from ..precision import Precision
from . import memory, rng
from .batches import Batch, in_groups, ready
from .bundling import attach_bundle
from .callbacks import Callback, Callbacks, Checkpoints, CollapseMonitor, RunningTrainer
from .checkpoint import RunFolder
from .data import Loader, Loaders, dataset_of, first_batch, with_transform
from .environment import environment
from .evaluate import Evaluator, Objective, Seen
from .metrics import by_head, due
from .optim import follow, make_optimizer
from .progress import Progress
from .resume import check_resumable, fingerprint
from .schedule import Plan, Schedule, Stage
from .settings import Settings
from .setup import (
    check_parts,
    check_trained,
    fastest_precision,
    join_processes,
    make_ready,
    rehearse,
    trained_precision,
)
from .signals import SignalReceivedError, Signals
from .state import EMA, Best, TrainState
from .step import NonFiniteMonitor, TrainStep


class Trainer(RunningTrainer):
    """Trains and evaluates a network.

    Further keyword arguments are settings: `epochs`, `batch_size`, `precision`, …; see `unetzoo.training.Settings`.

    Args:
        net: The network.
        loss: `loss(output, target, *, weight=None)`, or one with `terms(output, batch) -> dict` (see the loss
            `multitask`), whose terms are summed and logged by name. Parameters of the loss are trained too.
        metrics: A metric of ours or of torchmetrics, or a list of them, by head ("mask", "depth"); else for the mask.
        optimizer: A torch optimizer over the parameters of network and loss. Default: AdamW with learning rate 1e-3.
        scheduler: A `Schedule`, or a torch scheduler, stepped once per epoch (OneCycleLR and CyclicLR: once per step;
            ReduceLROnPlateau: with the monitored score).
        stages: Stages of progressive resizing, each a `Stage` with epochs, batch size and transform.
        out: Run folder for logs, checkpoints and the best network. By default, nothing is written.
        batch_transform: Applied to every training batch on its device, before the network.
        record: Stored in every checkpoint, e.g. the recipe. A resumed run must have the same record.
        callbacks: See `unetzoo.training.callbacks`; e.g. `[unetzoo.trackers.TensorBoard("runs/one")]`.
        progress: Show a progress bar.

    Raises:
        ConfigError: Settings or parts are invalid or do not fit together.

    Examples:
        >>> import unetzoo
        >>> net = unetzoo.build("bnunet", classes=2, encoder_channels=(4, 8, 16))
        >>> trainer = unetzoo.Trainer(net, unetzoo.LOSSES.build("ce"), steps=100, progress=False)
        >>> trainer.settings.steps
        100
    """

    def __init__(
        self,
        net: nn.Module,
        loss: Any,
        *,
        metrics: Any = None,
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: Any = None,
        stages: Sequence[Stage] | None = None,
        out: str | Path | None = None,
        batch_transform: Callable[[Batch], Batch] | None = None,
        record: Mapping[str, Any] | None = None,
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
        **settings: Any,
    ) -> None:
        self.settings = given = Settings.checked(settings)
        self.stages = list(stages or ())
        if self.stages and (given.epochs or given.steps):
            raise ConfigError("two lengths of a run", found="stages beside epochs or steps", hint="leave one out")
        check_parts(net, loss, optimizer, scheduler, callbacks, scored=bool(metrics))
        self.accelerator = accelerator = join_processes(net, given)
        self.device, self.world = accelerator.device, accelerator.num_processes
        self.net = make_ready(net, given, self.device, self.world)
        self.loss: Any = loss.to(self.device) if isinstance(loss, nn.Module) else loss
        self.objective = Objective(
            self.net, self.loss, precision=given.precision, channels_last=given.channels_last,
            compile=given.compile, save_memory=given.save_memory,
        )  # fmt: skip
        self.optimizer = optimizer or make_optimizer(self.net, "adamw", lr=1e-3, loss=loss)
        check_trained(self.objective, self.optimizer)
        follow(self.optimizer)
        self.state = TrainState(
            self.net, self.loss, self.optimizer, Schedule.of(scheduler),
            scaler=torch.amp.GradScaler(self.device.type, enabled=given.precision == "fp16"),
            ema=EMA(self.net, given.ema) if given.ema is not None else None,
        )  # fmt: skip
        self.metrics, self.batch_transform, self.record = by_head(metrics), batch_transform, dict(record or {})
        self.out = Path(out) if out is not None else None
        self.signals = Signals(out is not None)
        self.folder = RunFolder(self.out if accelerator.is_main_process else None, given.keep)
        shown = Progress(progress and accelerator.is_main_process)
        checkpoints = Checkpoints(given.checkpoint_epochs, given.checkpoint_steps)
        own = [shown, CollapseMonitor(), *callbacks, checkpoints]
        self.callbacks = Callbacks(own, main=accelerator.is_main_process)
        self.loaders = Loaders(
            seed=given.seed, workers=given.workers, rank=accelerator.process_index, world=self.world,
            drop_last=given.drop_last,
        )  # fmt: skip
        self.train_step = TrainStep(
            self.objective, self.state, accelerator,
            ready=self._ready_to_train, reduce=self._summed, clip=given.clip,
            say=lambda text: self.say("out_of_memory", text, parts=self.state.micro_batches),
        )  # fmt: skip
        self.evaluator = Evaluator(
            self.objective, self.metrics, accelerator, self._shares, tile=given.tile,
            between=self.signals.check if self.world == 1 else lambda: None,
        )  # fmt: skip
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.state.begin_anew()
        self.nonfinite = NonFiniteMonitor(self.state, self.folder.write_json, self.accelerator.process_index)
        self.train_step.flush()  # a run that ended with an error may have left flags behind
        self.finished = False

    def fit(self, train: Any, val: Any = None, *, resume: bool = False) -> list[dict[str, float]]:
        """Train, evaluating after every epoch.

        Args:
            train: A map-style dataset, or a plain `DataLoader` over one, whose batch size is used.
            val: A dataset to evaluate on. Without it, the last epoch counts as the best.
            resume: Continue from the newest intact checkpoint in `out`, at the exact step.

        Returns:
            One row per epoch: `epoch`, `lr`, `seconds`, `train/<term>`, and the scores of `evaluate`.

        Raises:
            ConfigError: Parts do not fit together. Raised before the first step and before anything is written.
            NonFiniteError: The loss is no longer finite. That step changes neither weights nor files.
            MemoryExhaustedError: Not even a single sample fits into memory.
            CheckpointError: There is nothing to resume from, the checkpoint belongs to another network or recipe, or
                the disk is full.
            RunLockedError: Another process writes to `out`.
            SystemExit: After SIGTERM or SIGINT, with code 143 or 130, once the checkpoint is written.
        """
        if isinstance(train, DataLoader) and train.batch_size:
            given = {"batch_size": train.batch_size, "drop_last": train.drop_last}
            self.settings, self.loaders.drop_last = self.settings.model_copy(update=given), train.drop_last
        train, val = dataset_of(train), None if val is None else dataset_of(val)
        with self.signals, memory.explained("training"), self.loaders, torch.inference_mode(False), torch.enable_grad():
            self.folder.check(resume)
            self._prepare(train, val)
            with self.folder.lock():
                self._begin(train if val is None else val, resume)
                with contextlib.ExitStack() as ending:
                    ending.callback(self.train_step.close)
                    ending.callback(self.callbacks.call, "on_end", self)
                    self.callbacks.call("on_begin", self)
                    while not self.ended:
                        self._train_epoch(len(self.history))
                        with due(self.metrics, len(self.history) + 1, self.plan.epochs):
                            self._close_epoch(val, len(self.history))
                    self.finished = not self.stopping
            if signal := max(gather_object([self.nonfinite.signal or self.signals.received])):
                raise self._stopped(signal)
        return self.history

    def _prepare(self, train: Any, val: Any) -> None:
        """Plan the run and rehearse it with a few samples, without writing anything."""
        settings = self.settings
        self._begin_anew()
        self.samples = len(train)
        stages = self.stages or [Stage(settings.epochs or 10)]
        self._data = [train if s.transform is None else with_transform(train, s.transform) for s in stages]
        share = self.loaders.get(train, settings.batch_size, train=True).keys.share
        self.plan = Plan(
            stages, samples=share, batch_size=settings.batch_size,
            accumulate=settings.accumulate, drop_last=settings.drop_last, steps=settings.steps,
        )  # fmt: skip
        held = rng.take()
        if settings.precision == "auto":
            self.objective.compute_in(self._fastest(train, settings.batch_size))
        first = [partial(self._first, data) for data in self._data]
        names = rehearse(self.objective, first, self.plan, self.train_step.buffers)
        if val is not None:
            names += self.evaluator.names(self.network, ready(first_batch(val, settings.seed), self.device))
        rng.give(held)
        self.monitor = settings.monitor_among(names)
        mode, unscored = settings.mode_of(self.monitor), settings.monitor is None and self.monitor == "train/loss"
        self.state.best = Best(mode, settings.patience, latest=unscored)
        self.state.schedule.build(self.optimizer, epochs=self.plan.epochs, steps=self.plan.steps, mode=mode)
        self._fingerprint = fingerprint(settings, self.stages, self.samples, self.world, self.state)

    def _begin(self, data: Any, resuming: bool) -> None:
        """Seed or restore everything the first step depends on."""
        self.folder.check(resuming)  # again, now that no other process can write to it
        self.folder.begin()
        rng.seed_all(self.settings.seed + self.accelerator.process_index)
        if resuming:
            saved = RunFolder(self.out, self.settings.keep).load_latest()
            check_resumable(saved.state, self.record, self._fingerprint, steps=self.plan.steps, out=self.out)
            self.objective.compute_in(saved.state["precision"])
            self.state.load_state_dict(saved, self.accelerator.process_index, self.device)
            self.folder.write_log(self.history)
        labels = getattr(data, "labels", None)
        self.labels = labels if isinstance(labels, LabelSpec) else None
        for net in {self.net, self.network}:
            attach_bundle(net, data, self.metrics.get("mask"), self.precision)
        facts: dict[str, Any] = {} if self.labels is None else {"labels.json": self.labels.to_dict()}
        facts["environment.json"] = environment(self.net, self.device, self.world, self.precision)
        self.folder.describe(facts)
        if self.settings.precision == "auto" and self.precision != "fp32" and not resuming:
            said = f"computing in {self.precision}, which is fastest here (train.precision=fp32 for float32)"
            self.callbacks.call("on_message", self, "precision", said)

    def _train_epoch(self, epoch: int) -> None:
        started, first = time.perf_counter(), self.plan.first_step(epoch)
        accumulate, size, freeze = self.settings.accumulate, self.plan.step_size(epoch), self.settings.freeze_encoder
        data = self._data[self.plan.stage(epoch)]
        loader = self.loaders.epoch(data, size // accumulate, epoch, skip=(self.steps - first) * size)
        self.train_step.begin_epoch(epoch < freeze if freeze else None, lambda: self._first(data))
        remaining = first + self.plan.steps_in(epoch) - self.steps
        for group in itertools.islice(in_groups(loader, accumulate), remaining):
            self.nonfinite.expect(self.steps, [name for batch in group for name in batch.get("id", ())])
            self.nonfinite.read(self.train_step(group, self.signals.received))
            samples = sum(len(batch["image"]) for batch in group) * self.world
            self.callbacks.call("on_step", self, samples)
            if self.stopping:
                raise self._stopped(self.nonfinite.signal)
        self.nonfinite.read(self.train_step.flush())
        self.state.seconds += time.perf_counter() - started

    def _close_epoch(self, val: Any, epoch: int) -> None:
        """Score the epoch and pass its row to the callbacks."""
        state = self.state
        if not self.plan.is_whole(epoch):
            self.save()  # a longer run continues inside this epoch
        started = time.perf_counter()
        row = {"epoch": epoch + 1.0, "lr": state.schedule.rate(self.steps - 1)}
        row |= state.mean_terms(self.plan.samples_in(epoch) * self.world, self._summed)
        try:
            if val is not None:
                row |= self.evaluate(val, partial(self.callbacks.call, "on_evaluate", self))
        except SignalReceivedError:
            self.save()
            raise self._stopped(self.signals.received) from None
        if state.scaler.is_enabled():
            row["skipped"] = float(state.skipped)
        row["seconds"] = state.seconds + time.perf_counter() - started
        better = state.best.follow(row[self.monitor])
        state.close_epoch(row, row[self.monitor])
        self.callbacks.call("on_epoch", self, row, better)
        self.accelerator.wait_for_everyone()

    def evaluate(self, dataset: Any, seen: Seen | None = None, *, split: str = "val") -> dict[str, float]:
        """Score a dataset on whole images at their original size. All processes must call it together.

        Args:
            dataset: The dataset.
            seen: Called with every scored (output, batch), with targets on the output's grid.
            split: Name of the data, used as prefix of the loss.

        Returns:
            `<split>/<term>` of the loss, and the scores of each metric (as `head/score` for heads other than the mask).
        """
        with self.loaders:
            return self.evaluator.scores(self.network, self._to_evaluate(dataset), seen, split=split)

    def outputs(self, dataset: Any) -> Iterator[tuple[Batch, Any]]:
        """Yield (batch, output) over this process's share of a dataset, in evaluation mode.

        Outputs are the same as those of `unetzoo.predict`: borders are mirrored, and every pixel has a value.
        """
        with self.loaders:
            yield from self.evaluator.outputs(self.network, self._to_evaluate(dataset))

    def save(self) -> None:
        """Write a checkpoint after checking that the last step was finite. All processes must call it together."""
        self.nonfinite.read(self.train_step.flush())
        if self.out is not None:
            saved = self.state.state_dict()
            saved.state.update(settings=self._fingerprint, record=self.record, precision=self.precision)
            self.folder.save(self.steps, saved)

    def say(self, event: str, text: str, **facts: Any) -> None:
        """Print a message, record it in `events.jsonl`, and pass it to all callbacks."""
        self.folder.note(event, step=self.steps, **{"said": text} | facts)
        self.callbacks.call("on_message", self, event, text)

    @property
    def precision(self) -> Precision:
        """The precision the network computes in; "auto" before it has seen data."""
        return self.objective.precision

    def _to_evaluate(self, data: Any) -> Any:
        """Return the dataset of a `DataLoader`, and set the precision if nothing was trained before."""
        data = dataset_of(data)
        if self.precision == "auto":
            self.objective.compute_in(trained_precision(self.net, self.device) or self._fastest(data, 1))
        return data

    def _fastest(self, data: Any, batch_size: int) -> Precision:
        return fastest_precision(self.net, self.device, batch_size, first_batch(data, self.settings.seed)["image"])

    def _stopped(self, signal: int) -> SystemExit:
        """Return the exit of a run stopped by a signal, whose checkpoint is already written."""
        if self.out is not None:
            best = f"; epoch {self.best.epoch} is kept in best/" if self.best.epoch else ""
            go_on = f"unetzoo train {self.out} --resume" if self.record else "fit(…, resume=True)"
            self.say("stopped", f"stopped after step {self.steps}{best}; go on with {go_on}")
        return SystemExit(128 + signal)

    def _ready_to_train(self, batch: Batch) -> Batch:
        return ready(batch, self.device, self.batch_transform, channels_last=self.objective.channels_last)

    def _first(self, data: Any, samples: int = 1) -> Batch:
        return self._ready_to_train(first_batch(data, self.settings.seed, samples))

    def _shares(self, data: Any) -> Loader:
        return self.loaders.get(data, self.settings.batch_size, train=False)

    def _summed(self, part: Tensor) -> Tensor:
        return cast(Tensor, self.accelerator.reduce(part.to(self.device), "sum")) if self.world > 1 else part


Trainer.__signature__ = Settings.signature_of(Trainer)  # pyright: ignore[reportAttributeAccessIssue]
