"""The Trainer: one loop over epochs and optimizer steps, with plain objects.

accelerate places the network and joins the processes; precision, loaders and schedulers are ours, since its own are
global to the process. An optimizer step is a transaction over a group of batches: it can be repeated in smaller parts
(`memory`), undone when something is not finite (`numerics`), and a run can stop and resume at its edges.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast, gather_object
from torch import Tensor, nn

from ..errors import ConfigError, NonFiniteError, did_you_mean
from . import memory, resume, rng
from .best import Best
from .ema import EMA
from .evaluation import Evaluation, Seen, evaluating, wide
from .folder import RunFolder
from .loader import Loaders, first_batch, in_groups, to_device, with_transform
from .logs import Log
from .numerics import Flags, Guard, Judge
from .objective import Objective
from .optim import Schedule, make_optimizer
from .parts import check_activation, check_trained, make_ready
from .progress import Progress
from .settings import PRECISIONS, Settings
from .signals import Signals
from .stages import Plan, Stage
from .watch import Watch

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
        channels_last: Keep weights and pictures in this memory layout.
        compile: Compile the forward pass of training.
        sync_bn: Batch-norm statistics over all processes (on GPUs).
        monitor: The score that says which epoch is best; the first of the metric by default.
        mode: Whether a larger ("max") or smaller ("min") score is better; by default smaller for losses.
        patience: Epochs without a better score after which training stops.
        tile: Evaluate by exact tiles of this size, for pictures that do not fit as a whole.
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
        on_cpu = not torch.accelerator.is_available()  # unless told, accelerate joins no processes there
        unused = getattr(net, "classification_head", None) is not None
        self.accelerator = Accelerator(
            mixed_precision="no",
            cpu=on_cpu,
            step_scheduler_with_optimizer=False,
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=unused)],
        )
        self.device, self.world = self.accelerator.device, self.accelerator.num_processes
        self.net = make_ready(net, settings, self.device, self.world)
        self.loss: Any = loss.to(self.device) if isinstance(loss, nn.Module) else loss
        self.objective = Objective(self.net, self.loss, dtype=PRECISIONS[precision], compile=compile)
        self.optimizer = optimizer or make_optimizer(self.net, "adamw", lr=1e-3, loss=loss)
        check_trained(self.objective, self.optimizer)
        self.schedule, self.batch_transform = Schedule.of(scheduler), batch_transform
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.ema = EMA(self.net, ema) if ema is not None else None
        self.metrics: dict[str, Any] = dict(metrics) if isinstance(metrics, Mapping) else {"mask": metrics}
        self.metrics = {head: metric for head, metric in self.metrics.items() if metric is not None}
        self.signals, self.record = Signals(out is not None), dict(record or {})
        self.out = Path(out) if out is not None else None
        self.folder = RunFolder(self.out if self.accelerator.is_main_process else None, keep)
        self.progress = Progress(progress and self.accelerator.is_main_process)
        self.watch = Watch(self.folder, self.progress, logs if self.accelerator.is_main_process else ())
        self.loaders = Loaders(
            seed=seed, workers=workers, rank=self.accelerator.process_index, world=self.accelerator.num_processes
        )
        self.guard = Guard(
            self.objective,
            [parameter for group in self.optimizer.param_groups for parameter in group["params"]],
            reduce=self._summed,
            scaled=precision == "fp16",
            clip=clip,
        )
        self.evaluation = Evaluation(
            self.objective,
            self.metrics,
            self.accelerator,
            lambda data: self.loaders.get(data, batch_size, train=False),
            tile=tile,
            between=self._stop_alone,
        )
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.history: list[dict[str, float]] = []
        self.steps, self.seconds = 0, 0.0
        self.names: list[str] = []  # of the terms of the loss
        self.sums: Tensor | None = None  # of the loss and its terms over the samples of this epoch
        self.best, self.parts, self.judge = Best(), memory.Parts(), Judge(self.scaler.is_enabled())
        self._recent: deque[tuple[int, list[Any]]] = deque(maxlen=2)  # (step, samples)
        self._model: nn.Module | None = None
        self._frozen: bool | None = None

    @property
    def network(self) -> nn.Module:
        """What is evaluated and kept as the best: the network, or the running mean of its weights."""
        return self.net if self.ema is None else self.ema.net

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
            with contextlib.closing(self.watch), self.progress.running(self.plan.steps, done=self.steps):
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
        self.plan = Plan(
            stages,
            samples=len(self.loaders.epoch(train, settings.batch_size, epoch=0, skip=0).keys),
            batch_size=settings.batch_size,
            accumulate=settings.accumulate,
            steps=settings.steps,
        )
        names = self._rehearse(val)
        self.monitor = settings.monitor or next((name for name in names if "/" not in name), "train/loss")
        if self.monitor not in names:
            raise ConfigError(f"unknown monitor {self.monitor!r}", hint=did_you_mean(self.monitor, names, "score"))
        mode, unscored = settings.mode_of(self.monitor), settings.monitor is None and self.monitor == "train/loss"
        self.best = Best(mode, settings.patience, latest=unscored)
        self.schedule.build(self.optimizer, epochs=self.plan.epochs, steps=self.plan.steps, mode=mode)
        rng.seed_all(settings.seed + self.accelerator.process_index)
        if resuming:
            resume.restore(self, RunFolder(self.out, settings.keep).load_latest())
            self.folder.write_log(self.history)

    def _rehearse(self, val: Any) -> list[str]:
        """One sample of every stage and of the validation data, without a step: what does not fit is found now."""
        held = rng.take()
        names: list[str] = []
        with evaluating(self.objective), torch.no_grad():
            for data in self._data:
                terms = self.objective(self._on_device(first_batch(data, self.settings.seed), train=True))
                names = ["train/loss", *(f"train/{name}" for name in terms)]
        if val is not None:
            names += self.evaluation.names(self.network, self._on_device(first_batch(val, self.settings.seed)))
        rng.give(held)
        return names

    def _train_epoch(self, epoch: int) -> None:
        started, first = time.perf_counter(), self.plan.first_step(epoch)
        accumulate, every, size = self.settings.accumulate, self.settings.checkpoint_steps, self.plan.step_size(epoch)
        data = self._data[self.plan.stage(epoch)]
        loader = self.loaders.epoch(data, size // accumulate, epoch, skip=(self.steps - first) * size)
        self._set_model(epoch)
        remaining = first + self.plan.steps_in(epoch) - self.steps
        for group in itertools.islice(in_groups(loader, accumulate), remaining):
            self._judge(self._step(group), 0)
            self.progress.advance(sum(len(batch["image"]) for batch in group) * self.world)
            if self.progress.due() and self.sums is not None:  # only then does the host wait for the device
                self.progress.tell(epoch + 1, float(self.sums[0]) / ((self.steps - first) * size))
            if self.judge.signal or (every and self.steps % every == 0):
                self._judge(self.guard.flush(), -1)
                self._save()
            if self.judge.signal:
                raise SystemExit(128 + self.judge.signal)
        self._judge(self.guard.flush(), -1)
        self.seconds += time.perf_counter() - started

    def _step(self, group: list[Batch]) -> Flags | None:
        """One optimizer step over some batches; gives what was found in the step before."""
        self.guard.remember()
        held = rng.take()
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            try:
                sums, samples = self._gradients(group)
                break
            except RuntimeError as error:
                if not memory.is_exhausted(error):
                    raise
                failure = str(error)
            said = self.parts.more(len(group[0]["image"]), failure, alone=self.world == 1)
            self.progress.say(said)
            self.folder.note("out_of_memory", step=self.steps, parts=self.parts.count, said=said)
            self.guard.restore()
            rng.give(held)
        self._recent.append((self.steps, [name for batch in group for name in batch.get("id", ())]))
        self.scaler.unscale_(self.optimizer)
        flags = self.guard.check(sums[0] / samples, self.signals.received)
        with self.schedule.rates(self.steps):
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.steps += 1
        if self.ema is not None:
            self.ema.update(self.steps)
        self.sums = sums if self.sums is None else self.sums + sums
        return flags

    def _gradients(self, group: list[Batch]) -> tuple[Tensor, int]:
        """Gradients of the mean over all samples; gives the sums of the loss and its terms, and the samples."""
        assert self._model is not None
        samples, sums = sum(len(batch["image"]) for batch in group), None
        for place, batch in enumerate(group):
            parts = memory.cut(self._on_device(batch, train=True), self.parts.count)
            for number, part in enumerate(parts, start=1):
                last = place == len(group) - 1 and number == len(parts)
                with contextlib.nullcontext() if last else self.accelerator.no_sync(self._model):
                    terms = self._model(part)
                    values, share = torch.stack(list(terms.values())), len(part["image"])
                    total = values.sum()
                    self.scaler.scale(total if share == samples else total * (share / samples)).backward()
                self.names = list(terms)
                seen = wide(torch.cat([total[None], values])) * share
                sums = seen if sums is None else sums + seen
        return cast(Tensor, sums), samples

    def _judge(self, flags: Flags | None, which: int) -> None:
        """Stop at what is not finite; all processes see the same flags of the same step."""
        what = flags and self.judge.fault(flags)
        if not what:
            return
        step, samples = self._recent[which]
        shares = gather_object([{"process": self.accelerator.process_index, "samples": samples}])
        self.folder.write_json("nonfinite.json", {"step": step, "what": what, "processes": shares})
        raise NonFiniteError(
            f"the {what} is not finite",
            subject=f"step {step}, samples {samples}",
            found="NaN or infinity",
            hint="look at these samples, lower the learning rate, set train.clip, or train in fp32; "
            "the last checkpoint stands",
        )

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
        self.watch.close_epoch(row, self.steps, self.metrics, last=ended)
        if self.plan.is_whole(epoch) and (ended or (epoch + 1) % self.settings.checkpoint_epochs == 0):
            self._save()
        self.folder.write_log(self.history)
        self.accelerator.wait_for_everyone()

    def evaluate(self, dataset: Any, seen: Seen | None = None) -> dict[str, float]:
        """Scores over a dataset, whole pictures at their own size. All processes call it together.

        Args:
            dataset: The dataset.
            seen: Called with every (output, batch) that is scored, targets on the output's grid.

        Returns:
            `val/<term>` of the loss, and each metric's scores (those of other heads than the mask as `head/score`).
        """
        for buffer in self.network.buffers() if self.world > 1 else ():  # each kept statistics of its own share
            broadcast(buffer)
        with self.loaders:
            return self.evaluation.scores(self.network, dataset, seen)

    def answers(self, dataset: Any) -> Iterator[tuple[Batch, Any]]:
        """(batch, output) over this process's share of a dataset, in evaluation mode.

        A padded network takes the batch as it is; one with a smaller output, or `tile`, goes through
        `unetzoo.predict`: mirrored borders, one answer for every pixel.
        """
        with self.loaders:
            yield from self.evaluation.answers(self.network, dataset)

    def _save(self) -> None:
        if self.out is not None:
            content = resume.capture(self)
            self.folder.save(self.steps, content)

    def _set_model(self, epoch: int) -> None:
        """What the loop calls: the objective, over processes; wrapped anew when the encoder thaws."""
        frozen = epoch < self.settings.freeze_encoder
        if self.settings.freeze_encoder and frozen != self._frozen:
            net = cast(Any, self.net)
            (net.freeze_encoder if frozen else net.unfreeze_encoder)()
            self._frozen, self._model = frozen, None
        if self._model is None:
            self.accelerator.free_memory()  # it would keep the wrapper of before
            several = self.world > 1
            self._model = self.accelerator.prepare_model(self.objective) if several else self.objective
            if several:
                self._order_gradients(self._data[self.plan.stage(epoch)])
        self.objective.train()

    def _order_gradients(self, data: Any) -> None:
        """One backward pass for nothing: DistributedDataParallel orders what it sums by the first one that it sees.

        Sums of floats depend on their order, so a resumed run must not begin in another one.
        """
        held = rng.take()
        with evaluating(self.objective):
            terms = cast(nn.Module, self._model)(self._on_device(first_batch(data, self.settings.seed), train=True))
            torch.stack(list(terms.values())).sum().backward()
        self.optimizer.zero_grad(set_to_none=True)
        rng.give(held)

    def _on_device(self, batch: Batch, *, train: bool = False) -> Batch:
        batch = to_device(batch, self.device)
        if train and self.batch_transform is not None:
            batch = self.batch_transform(batch)
        layout = torch.channels_last if self.settings.channels_last else torch.preserve_format
        return {**batch, "image": batch["image"].to(memory_format=layout)}

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
