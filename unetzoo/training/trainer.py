"""The Trainer: one loop over epochs and optimizer steps, with plain objects.

accelerate places the network and joins the processes; precision, loaders and schedulers are ours, since its own are
global to the process. An optimizer step is a transaction over a group of batches (`step`): it can be repeated in
smaller parts (`memory`), undone when something is not finite (`numerics`), and a run can stop and resume at its edges.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import broadcast, gather_object
from torch import Tensor, nn

from ..errors import ConfigError
from ..modules import evaluation_mode
from . import memory, resume, rng
from .best import Best
from .bundling import attach_bundle
from .ema import EMA
from .environment import environment
from .evaluation import Evaluation, Seen
from .folder import RunFolder
from .loader import Loader, Loaders, first_batch, in_groups, ready, with_transform
from .logs import Log
from .numerics import Flags, Guard, Judge
from .objective import Objective
from .optim import Schedule, follow, make_optimizer
from .parts import by_head, check_activation, check_trained, join_processes, make_ready
from .progress import Progress
from .settings import PRECISIONS, Settings
from .signals import Signals
from .stages import Plan, Stage
from .step import Transaction
from .watch import Watch
from .wrapped import Wrapped

Batch = dict[str, Any]


class Trainer:
    """Trains and evaluates a network.

    Args:
        net: The network.
        loss: `loss(output, target, *, weight=None)`, or one with `terms(output, batch) -> dict` (see the loss
            `multitask`), whose terms are summed and logged by name. Parameters of its own are trained too.
        metrics: For each head ("mask", "depth") a metric; or one metric for the mask.
        optimizer: A torch optimizer over the parameters of network and loss; AdamW at 1e-3 by default.
        scheduler: A `Schedule`, or a torch scheduler, stepped once an epoch (OneCycleLR and CyclicLR: once a step;
            ReduceLROnPlateau with the monitored score).
        epochs: Passes over the training data; 10 unless `steps` or `stages` say how long to train.
        steps: Optimizer steps.
        stages: Progressive resizing: epochs, batch size and transform of each `Stage`.
        batch_size: Samples a batch and process.
        accumulate: Batches an optimizer step; gradients are averaged over their samples.
        seed: Of order, augmentation and dropout.
        precision: "fp32", "bf16" or "fp16" (autocast; fp16 with gradient scaling, on a GPU).
        workers: Loader processes.
        clip: Largest gradient norm.
        ema: Decay of the running mean of the weights, which is then what is evaluated and kept as the best.
        freeze_encoder: Epochs in which the encoder is frozen.
        channels_last: Keep weights and images in this memory layout.
        compile: Compile the forward pass of training.
        save_memory: Recompute cheap maps in the backward pass: less memory for a little more time, the same gradients
            (`unetzoo.recompute.save_memory`); a compiled network chooses by itself.
        sync_bn: Batch-norm statistics over all processes (on GPUs).
        monitor: The score that says which epoch is best; the first of the metric by default.
        mode: Whether a larger ("max") or smaller ("min") score is better; by default smaller for losses.
        patience: Epochs without a better score after which training stops.
        tile: Evaluate by exact tiles of this size, for images that do not fit as a whole.
        out: Run folder, for log, checkpoints and the best network; nothing is written without it.
        keep: Checkpoints to keep, at least two.
        checkpoint_epochs: Write one after so many epochs, and after the last.
        checkpoint_steps: Write one after so many optimizer steps, too.
        batch_transform: Applied to every training batch on its device, before the network.
        record: What stands in every checkpoint beside the weights, e.g. the recipe; a resumed run must match it.
        logs: Further logs, e.g. `unetzoo.training.TensorBoard("runs/one")`.
        progress: Show a progress bar.

    Raises:
        ConfigError: Wrong settings, or ones that do not fit together.

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
        epochs: int | None = None,
        steps: int | None = None,
        stages: Sequence[Stage] | None = None,
        batch_size: int = 8,
        accumulate: int = 1,
        seed: int = 0,
        precision: str = "fp32",
        workers: int = 0,
        clip: float | None = None,
        ema: float | None = None,
        freeze_encoder: int = 0,
        channels_last: bool = False,
        compile: bool = False,
        save_memory: bool = False,
        sync_bn: bool = False,
        monitor: str | None = None,
        mode: str | None = None,
        patience: int | None = None,
        tile: int | None = None,
        out: str | Path | None = None,
        keep: int = 2,
        checkpoint_epochs: int = 1,
        checkpoint_steps: int | None = None,
        batch_transform: Callable[[Batch], Batch] | None = None,
        record: Mapping[str, Any] | None = None,
        logs: Sequence[Log] = (),
        progress: bool = True,
    ) -> None:
        given = locals()
        self.settings = settings = Settings.checked(**{name: given[name] for name in Settings.model_fields})
        if stages and (epochs or steps):
            raise ConfigError("two lengths of a run", found="stages beside epochs or steps", hint="leave one out")
        self.stages = list(stages or ())
        if metrics:
            check_activation(net)
        self.accelerator = accelerator = join_processes(net)
        self.device, self.world, first = accelerator.device, accelerator.num_processes, accelerator.is_main_process
        self.net = make_ready(net, settings, self.device, self.world)
        self.loss: Any = loss.to(self.device) if isinstance(loss, nn.Module) else loss
        self.objective = Objective(
            self.net, self.loss, dtype=PRECISIONS[precision], compile=compile, save_memory=save_memory
        )
        self.optimizer = optimizer or make_optimizer(self.net, "adamw", lr=1e-3, loss=loss)
        check_trained(self.objective, self.optimizer)
        follow(self.optimizer)
        self.schedule, self.batch_transform = Schedule.of(scheduler), batch_transform
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.ema = EMA(self.net, ema) if ema is not None else None
        self.metrics = by_head(metrics)
        self.signals, self.record = Signals(out is not None), dict(record or {})
        self.out = Path(out) if out is not None else None
        self.folder = RunFolder(self.out if first else None, keep)
        self.progress = Progress(progress and first)
        self.watch = Watch(self.folder, self.progress, self.metrics, logs if first else ())
        self.loaders = Loaders(seed=seed, workers=workers, rank=accelerator.process_index, world=self.world)
        trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        scaled = self.scaler.is_enabled()
        self.guard = Guard(self.objective, trained, reduce=self._summed, scaled=scaled, clip=clip)
        self.transaction = Transaction(
            self.optimizer, self.scaler, self.guard, ready=self._ready_to_train, no_sync=accelerator.no_sync
        )
        self.parts = self.transaction.parts
        self.evaluation = Evaluation(
            self.objective, self.metrics, accelerator, self._shares, tile=tile, between=self._stop_alone
        )
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.history: list[dict[str, float]] = []
        self.steps, self.seconds = 0, 0.0
        self.names: list[str] = []  # of the terms of the loss
        self.sums: Tensor | None = None  # of the loss and its terms over the samples of this epoch
        self.best, self.judge, self.parts.count = Best(), Judge(self.scaler.is_enabled()), 1
        self.wrapped = Wrapped(self.objective, self.accelerator, self.settings.freeze_encoder)
        self.guard.flush()  # a run that ended by an error may have left flags behind

    @property
    def network(self) -> nn.Module:
        """What is evaluated and kept as the best: the network, or the running mean of its weights."""
        return self.net if self.ema is None else self.ema.net

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, machine, and the network's parameters."""
        parameters = sum(parameter.numel() for parameter in self.net.parameters())
        return environment(self.device, self.world) | {"parameters": parameters}

    def fit(self, train: Any, val: Any = None, *, resume: bool = False) -> list[dict[str, float]]:
        """Train, evaluating after every epoch.

        Args:
            train: A dataset.
            val: A dataset to evaluate; without it the last epoch counts as the best.
            resume: Go on from the newest whole checkpoint in `out`, at the very step.

        Returns:
            A row an epoch: `epoch`, `lr`, `seconds`, `train/<term>`, and the scores of `evaluate`.

        Raises:
            ConfigError: Parts that do not fit together, found before the first step.
            NonFiniteError: The loss is no longer finite; nothing of that step reaches weights or files.
            MemoryExhaustedError: Not even one sample at a time fits.
            CheckpointError: Nothing to resume from, a checkpoint of another network or recipe, or a full disk.
            RunLockedError: Another process writes to `out`.
            SystemExit: SIGTERM or SIGINT came: the checkpoint is written, the code is 143 or 130.
        """
        with self.signals, self.folder.lock(), memory.explained("training"), self.loaders:
            self._begin(train, val, resume)
            self.watch.begin(val, self.steps, len(self.history))
            shown = self.progress.running(self.plan.steps, done=self.steps)
            with contextlib.closing(self.watch), contextlib.closing(self.wrapped), shown:
                while len(self.history) < self.plan.epochs and not self.best.is_over and not self.judge.signal:
                    self._train_epoch(len(self.history))
                    self._close_epoch(val, len(self.history))
            if signal := max(gather_object([self.judge.signal or self.signals.received])):
                raise SystemExit(128 + signal)
        return self.history

    def _begin(self, train: Any, val: Any, resuming: bool) -> None:
        settings = self.settings
        self._begin_anew()
        self.folder.begin(resuming)
        self.samples = len(train)
        stages = self.stages or [Stage(settings.epochs or 10)]
        self._data = [train if s.transform is None else with_transform(train, s.transform) for s in stages]
        share = len(self.loaders.epoch(train, settings.batch_size, epoch=0, skip=0).keys)
        size, accumulate = settings.batch_size, settings.accumulate
        self.plan = Plan(stages, samples=share, batch_size=size, accumulate=accumulate, steps=settings.steps)
        names = self._rehearse(val)
        self.monitor = settings.monitor_among(names)
        mode, unscored = settings.mode_of(self.monitor), settings.monitor is None and self.monitor == "train/loss"
        self.best = Best(mode, settings.patience, latest=unscored)
        self.schedule.build(self.optimizer, epochs=self.plan.epochs, steps=self.plan.steps, mode=mode)
        data = train if val is None else val
        for net in {self.net, self.network}:
            attach_bundle(net, data, self.metrics.get("mask"))
        self.folder.describe(getattr(data, "labels", None), self.environment)
        rng.seed_all(settings.seed + self.accelerator.process_index)
        if resuming:
            resume.restore(self, RunFolder(self.out, settings.keep).load_latest())
            self.folder.write_log(self.history)

    def _rehearse(self, val: Any) -> list[str]:
        """One sample of every stage and of the validation data, without a step: what does not fit is found now."""
        held = rng.take()
        names: list[str] = []
        with evaluation_mode(self.objective), torch.no_grad():
            for data in self._data:
                terms = self.objective(self._first(data))
                names = ["train/loss", *(f"train/{name}" for name in terms)]
        if val is not None:
            names += self.evaluation.names(self.network, ready(first_batch(val, self.settings.seed), self.device))
        rng.give(held)
        return names

    def _train_epoch(self, epoch: int) -> None:
        started, first = time.perf_counter(), self.plan.first_step(epoch)
        accumulate, every, size = self.settings.accumulate, self.settings.checkpoint_steps, self.plan.step_size(epoch)
        data = self._data[self.plan.stage(epoch)]
        loader = self.loaders.epoch(data, size // accumulate, epoch, skip=(self.steps - first) * size)
        self.wrapped.at(epoch, lambda: self._first(data), several=self.world > 1)
        remaining = first + self.plan.steps_in(epoch) - self.steps
        for group in itertools.islice(in_groups(loader, accumulate), remaining):
            self._judge(self._step(group))
            self.progress.advance(sum(len(batch["image"]) for batch in group) * self.world)
            if self.progress.due() and self.sums is not None:  # only then does the host wait for the device
                self.progress.tell(epoch + 1, float(self.sums[0]) / ((self.steps - first) * size))
            if self.judge.signal or (every and self.steps % every == 0):
                self._judge(self.guard.flush())
                self._save()
            if self.judge.signal:
                raise SystemExit(128 + self.judge.signal)
        self._judge(self.guard.flush())
        self.seconds += time.perf_counter() - started

    def _step(self, group: list[Batch]) -> Flags | None:
        """One optimizer step over some batches; gives what was found in the step before."""
        sums = self.transaction.gradients(self.wrapped.model, group, self._say_parts, alone=self.world == 1)
        self.judge.expect(self.steps, [name for batch in group for name in batch.get("id", ())])
        flags = self.transaction.apply(sums, self.schedule.rates(self.steps), self.signals.received)
        self.steps += 1
        if self.ema is not None:
            self.ema.update(self.steps)
        self.names, self.sums = sums.names, sums.values if self.sums is None else self.sums + sums.values
        return flags

    def _say_parts(self, said: str) -> None:
        self.progress.say(said)
        self.folder.note("out_of_memory", step=self.steps, parts=self.parts.count, said=said)

    def _judge(self, flags: Flags | None) -> None:
        """Stop at what is not finite; all processes see the same flags of the same step."""
        self.judge.rule(flags, self.folder, self.accelerator.process_index)

    def _close_epoch(self, val: Any, epoch: int) -> None:
        """Score, log, and keep what is to be kept."""
        if not self.plan.is_whole(epoch):
            self._save()  # a longer run goes on inside this epoch
        started = time.perf_counter()
        row = {"epoch": epoch + 1.0, "lr": self.schedule.rate(self.steps - 1)} | self._train_scores(epoch)
        try:
            row |= self.evaluate(val, self.watch.look) if val is not None else {}
        except _StoppedError:
            self._save()
            raise SystemExit(128 + self.signals.received) from None
        if self.scaler.is_enabled():
            row["skipped"] = float(self.judge.skipped)
        row["seconds"] = self.seconds + time.perf_counter() - started
        better = self.best.follow(row[self.monitor])
        self.history.append(row)
        self.schedule.after_epoch(row[self.monitor])
        self.sums, self.seconds, self.judge.skipped = None, 0.0, 0
        self.progress.report(row, self.monitor, better)
        if better:
            self.folder.save_best(self.network)
        ended = bool(len(self.history) == self.plan.epochs or self.best.is_over or self.judge.signal)
        self.watch.close_epoch(row, self.steps, last=ended)
        if self.plan.is_whole(epoch) and (ended or (epoch + 1) % self.settings.checkpoint_epochs == 0):
            self._save()
        self.folder.write_log(self.history)
        self.accelerator.wait_for_everyone()

    def evaluate(self, dataset: Any, seen: Seen | None = None, *, split: str = "val") -> dict[str, float]:
        """Scores over a dataset, whole images at their own size. All processes call it together.

        Args:
            dataset: The dataset.
            seen: Called with every (output, batch) that is scored, targets on the output's grid.
            split: Which part of the data that is, to stand before the loss.

        Returns:
            `<split>/<term>` of the loss, and each metric's scores (those of other heads than the mask as `head/score`).
        """
        for buffer in self.network.buffers() if self.world > 1 else ():  # each kept statistics of its own share
            broadcast(buffer)
        with self.loaders:
            return self.evaluation.scores(self.network, dataset, seen, split=split)

    def answers(self, dataset: Any) -> Iterator[tuple[Batch, Any]]:
        """(batch, output) over this process's share of a dataset, in evaluation mode.

        Outputs are those of `unetzoo.predict`: mirrored borders, a value for every pixel.
        """
        with self.loaders:
            yield from self.evaluation.answers(self.network, dataset)

    def _save(self) -> None:
        if self.out is not None:
            content = resume.capture(self)
            self.folder.save(self.steps, content)

    def _ready_to_train(self, batch: Batch) -> Batch:
        return ready(batch, self.device, self.batch_transform, channels_last=self.settings.channels_last)

    def _first(self, data: Any) -> Batch:
        return self._ready_to_train(first_batch(data, self.settings.seed))

    def _shares(self, data: Any) -> Loader:
        return self.loaders.get(data, self.settings.batch_size, train=False)

    def _train_scores(self, epoch: int) -> dict[str, float]:
        samples = min(self.plan.steps_in(epoch) * self.plan.step_size(epoch), self.plan.samples) * self.world
        sums = self._summed(cast(Tensor, self.sums)).tolist()
        return {f"train/{name}": value / samples for name, value in zip(["loss", *self.names], sums, strict=True)}

    def _summed(self, part: Tensor) -> Tensor:
        return cast(Tensor, self.accelerator.reduce(part.to(self.device), "sum")) if self.world > 1 else part

    def _stop_alone(self) -> None:
        if self.world == 1 and self.signals.pending():
            raise _StoppedError


class _StoppedError(Exception):
    """A signal came during an evaluation."""
