"""The Trainer: one loop over epochs, on `accelerate`, with plain objects.

accelerate places the network and joins the processes; precision, loaders and schedulers are ours, since its own are
global to the process. Evaluation uses the bare network over unpadded shares, and adds up metric states.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object
from torch import Tensor, nn

from ..errors import CheckpointMismatchError, ConfigError, DataError, NonFiniteError, did_you_mean
from ..inference import predict
from ..registry import keywords
from . import checkpoint
from .heads import as_float, fit_targets, heads_of, without_labels
from .loader import make_loader
from .progress import Progress

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Trainer:
    """Trains and evaluates a network.

    Args:
        net: The network.
        loss: `loss(output, target, *, weight=None)`, or one with `terms(output, batch) -> dict` (see the loss
            `multitask`), whose terms are summed and logged by name.
        metrics: For each head ("mask", "depth") a metric; or one metric for the mask.
        optimizer: A torch optimizer over the network's parameters; AdamW at 1e-3 by default.
        scheduler: A torch scheduler, stepped once an epoch (ReduceLROnPlateau with the monitored score).
        epochs: Passes over the training data.
        batch_size: Samples a step and process.
        seed: Of order, augmentation and dropout.
        precision: "fp32", "bf16" or "fp16" (autocast; fp16 with gradient scaling).
        workers: Loader processes.
        clip: Largest gradient norm.
        monitor: The score that says which epoch is best; the first of the metric by default.
        mode: Whether a larger ("max") or smaller ("min") score is better.
        tile: Evaluate by exact tiles of this size, for pictures that do not fit as a whole.
        out: Run folder, for log, checkpoints and the best network; nothing is written without it.
        keep: Checkpoints to keep, at least two.
        record: What stands in every checkpoint beside the weights, e.g. the recipe; a resumed run must match it.
        progress: Show a progress bar.

    Raises:
        ConfigError: Wrong settings.

    Examples:
        >>> import unetzoo
        >>> net = unetzoo.build("bnunet", classes=2, encoder_channels=(4, 8, 16))
        >>> trainer = unetzoo.Trainer(net, unetzoo.LOSSES.build("ce"), epochs=1, progress=False)
        >>> trainer.epochs
        1
    """

    def __init__(
        self,
        net: nn.Module,
        loss: Any,
        *,
        metrics: Any = None,
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: Any = None,
        epochs: int = 10,
        batch_size: int = 8,
        seed: int = 0,
        precision: str = "fp32",
        workers: int = 0,
        clip: float | None = None,
        monitor: str | None = None,
        mode: str = "max",
        tile: int | None = None,
        out: str | Path | None = None,
        keep: int = 2,
        record: Mapping[str, Any] | None = None,
        progress: bool = True,
    ) -> None:
        if precision not in PRECISIONS:
            raise ConfigError("wrong precision", found=precision, hint=did_you_mean(precision, PRECISIONS, "precision"))
        if mode not in ("max", "min"):
            raise ConfigError("wrong mode", expected="'max' or 'min'", found=repr(mode))
        for name, value in (("epochs", epochs), ("batch_size", batch_size)):
            if value < 1:
                raise ConfigError(f"wrong {name}", expected="at least 1", found=value)
        config = getattr(net, "config", None)
        activation = config.get("activation") if isinstance(config, Mapping) else None
        if metrics and activation not in (None, "identity"):
            raise ConfigError(
                "scores are computed from logits",
                expected="a network without output activation",
                found=f"activation={activation!r}",
                hint="leave activation out; the losses and metrics apply it themselves",
            )
        on_cpu = not torch.accelerator.is_available()  # unless told, accelerate joins no processes there
        self.accelerator = Accelerator(mixed_precision="no", cpu=on_cpu, step_scheduler_with_optimizer=False)
        self.device = self.accelerator.device
        self.net = net.to(self.device)
        self.loss: Any = loss.to(self.device) if isinstance(loss, nn.Module) else loss
        self.metrics: dict[str, Any] = dict(metrics) if isinstance(metrics, Mapping) else {"mask": metrics}
        self.metrics = {head: metric for head, metric in self.metrics.items() if metric is not None}
        self.optimizer = optimizer or torch.optim.AdamW(net.parameters(), lr=1e-3)
        self.scheduler, self.epochs, self.batch_size, self.seed = scheduler, epochs, batch_size, seed
        self.dtype, self.workers, self.clip, self.tile = PRECISIONS[precision], workers, clip, tile
        self.monitor, self.mode, self.keep = monitor, mode, keep
        self.out = Path(out) if out is not None else None
        self.record, self.progress = dict(record or {}), Progress(progress and self.accelerator.is_main_process)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.history: list[dict[str, float]] = []
        self.best: float | None = None
        self.steps = 0

    def fit(self, train: Any, val: Any = None, *, resume: bool = False) -> list[dict[str, float]]:
        """Train, evaluating after every epoch.

        Args:
            train: A dataset.
            val: A dataset to evaluate; without it the last epoch counts as the best.
            resume: Go on from the newest whole checkpoint in `out`.

        Returns:
            A row an epoch: `epoch`, `lr`, `seconds`, `train/<term>`, and the scores of `evaluate`.

        Raises:
            NonFiniteError: The loss is no longer finite; nothing of that epoch is saved.
            CheckpointError: Nothing to resume from, or a checkpoint of another network or recipe.
        """
        loader = self._loader(train, train=True)
        torch.manual_seed(self.seed + self.accelerator.process_index)
        first = self._resume() if resume else 0
        model = self.accelerator.prepare_model(self.net) if self.accelerator.num_processes > 1 else self.net
        with self.progress.running(self.epochs * len(loader), done=first * len(loader)):
            for epoch in range(first, self.epochs):
                started = time.perf_counter()
                row = {"epoch": epoch + 1.0, "lr": self.optimizer.param_groups[0]["lr"]}
                row |= self._train_epoch(model, loader, epoch)
                row |= self.evaluate(val) if val is not None else {}
                self._after_epoch(row | {"seconds": time.perf_counter() - started})
        return self.history

    def _train_epoch(self, model: nn.Module, loader: Any, epoch: int) -> dict[str, float]:
        model.train()
        loader.sampler.epoch = epoch
        sums: dict[str, Tensor] = {}
        batch: dict[str, Any] = {}
        for batch in map(self._to_device, loader):
            self.optimizer.zero_grad(set_to_none=True)
            with self._autocast():
                output = model(batch["image"])
            terms = self._terms(output, batch)
            total = torch.stack(list(terms.values())).sum()
            self.scaler.scale(total).backward()
            if self.clip is not None:
                self.scaler.unscale_(self.optimizer)
                nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.steps += 1
            for name, value in {"loss": total, **terms}.items():
                sums[name] = sums.get(name, 0.0) + value.detach()
            self.progress.advance()
            if self.progress.due():  # the host waits for the device only when the bar is written anew
                self._check_finite(total.detach(), batch)
                self.progress.tell(epoch + 1, float(total.detach()))
        self._check_finite(sums["loss"], batch)
        return {f"train/{name}": float(value) / len(loader) for name, value in sums.items()}

    @torch.inference_mode()
    def evaluate(self, dataset: Any) -> dict[str, float]:
        """Scores over a dataset, whole pictures at their own size.

        Returns:
            `val/<term>` of the loss, and each metric's scores (those of other heads than the mask as `head/score`).
        """
        for metric in self.metrics.values():
            metric.reset()
        sums: dict[str, Tensor] = {}
        for batch, output in self.answers(dataset):
            for name, value in self._terms(output, batch).items():
                sums[name] = sums.get(name, 0.0) + value.detach().double() * len(batch["image"])
            self._update_metrics(output, batch)
        totals: Counter[str] = Counter()
        for share in gather_object([{name: float(value) for name, value in sums.items()}]):  # one may have no sample
            totals.update(share)
        row = {f"val/{name}": total / len(dataset) for name, total in totals.items()}
        row["val/loss"] = sum(totals.values()) / len(dataset)
        for head, metric in self.metrics.items():
            if self.accelerator.num_processes > 1:
                metric.load_state({name: self._summed(part) for name, part in metric.state().items()})
            prefix = "" if head == "mask" else f"{head}/"
            row |= {prefix + name: value for name, value in metric.compute().items()}
        return row

    @torch.inference_mode()
    def answers(self, dataset: Any) -> Iterator[tuple[dict[str, Any], Any]]:
        """(batch, output) over this process's share of a dataset, in evaluation mode.

        A padded network takes the batch as it is; one with a smaller output, or `tile`, goes through
        `unetzoo.predict`: mirrored borders, one answer for every pixel.
        """
        was_training = self.net.training
        self.net.eval()
        for buffer in self.net.buffers():  # each process kept batch-norm statistics of its own share
            broadcast(buffer)
        try:
            for batches in self._loader(dataset, train=False):
                for batch in map(self._to_device, batches):
                    with self._autocast():
                        output = self._answer(batch["image"])
                    yield batch, output
        finally:  # also when the caller stops early
            self.net.train(was_training)

    @property
    def _geometry(self) -> Any:
        return getattr(self.net, "geometry", None)

    def _answer(self, images: Tensor) -> Any:
        geometry = self._geometry
        whole = geometry is None or (geometry.margin == 0 and all(geometry.accepts(n) for n in images.shape[-2:]))
        if whole and self.tile is None:
            return self.net(images)
        answers = [predict(self.net, image, tile=self.tile) for image in images]
        if isinstance(answers[0], Tensor):
            return torch.stack(answers)
        return type(answers[0])(*(torch.stack(head) for head in zip(*answers, strict=True)))

    def _terms(self, output: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
        output = without_labels(output)
        batch = fit_targets(batch, heads_of(output)["mask"], self._geometry)
        if hasattr(self.loss, "terms"):
            return self.loss.terms(as_float(output), batch)
        if "mask" not in batch:
            raise DataError("samples hold no mask", found=sorted(batch), hint="use a dataset that gives 'mask'")
        weight = {"weight": batch["weight"]} if "weight" in batch else {}
        return {"loss": self.loss(heads_of(as_float(output))["mask"], batch["mask"], **weight)}

    def _update_metrics(self, output: Any, batch: dict[str, Any]) -> None:
        heads = heads_of(as_float(without_labels(output)))
        batch = fit_targets(batch, heads["mask"], self._geometry)
        for head, metric in self.metrics.items():
            if head not in heads:
                raise ConfigError(
                    "a metric for a head the network lacks", subject=head, found=f"heads {', '.join(heads)}"
                )
            valid = {"valid": batch["valid"]} if "valid" in batch and "valid" in keywords(metric.update) else {}
            metric.update(heads[head], batch[head], **valid)

    def _after_epoch(self, row: dict[str, float]) -> None:
        self.history.append(row)
        name = self.monitor or next((key for key in row if "/" not in key and key not in ROW_KEYS), "train/loss")
        if name not in row:
            raise ConfigError(f"unknown monitor {name!r}", hint=did_you_mean(name, row, "score"))
        score = row[name] if self.mode == "max" else -row[name]
        if name == "train/loss" and self.monitor is None:
            score = float(len(self.history))  # nothing was evaluated: the last epoch is the one to keep
        better = not math.isnan(score) and (self.best is None or score > self.best)
        self.best = score if better else self.best
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step(row[name])
        elif self.scheduler is not None:
            self.scheduler.step()
        self.progress.report(row, name, better)
        if self.out is not None and self.accelerator.is_main_process:
            self._write(row, better)
        self.accelerator.wait_for_everyone()

    def _write(self, row: dict[str, float], better: bool) -> None:
        assert self.out is not None
        if better and isinstance(save := getattr(self.net, "save_pretrained", None), Callable):
            save(self.out / "best")
        tensors, plain = checkpoint.pack_optimizer(self.optimizer)
        state = {
            "epoch": len(self.history),
            "steps": self.steps,
            "best": self.best,
            "history": self.history,
            "optimizer": plain,
            "scheduler": self.scheduler.state_dict() if self.scheduler is not None else None,
            "scaler": self.scaler.state_dict(),
            "rng": checkpoint.pack_rng(),
            "record": self.record,
        }
        content = checkpoint.Checkpoint({"model": self.net.state_dict(), "optimizer": tensors}, state)
        checkpoint.save(self.out / "checkpoints", self.steps, content, keep=self.keep)
        lines = [json.dumps(line) + "\n" for line in self.history]
        (self.out / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")

    def _resume(self) -> int:
        if self.out is None:
            raise ConfigError("cannot resume without a run folder", hint="give out=")
        saved = checkpoint.latest(self.out / "checkpoints")
        if saved.state["record"] != json.loads(json.dumps(self.record)):
            raise CheckpointMismatchError(
                "the run was made by another recipe", subject=self.out, hint="resume with its own, or start a new run"
            )
        try:
            self.net.load_state_dict(saved.tensors["model"])
        except RuntimeError as error:
            raise CheckpointMismatchError("a checkpoint of another network", subject=self.out, found=error) from error
        checkpoint.unpack_optimizer(self.optimizer, saved.tensors["optimizer"], saved.state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(saved.state["scheduler"])
        self.scaler.load_state_dict(saved.state["scaler"])
        checkpoint.unpack_rng(saved.state["rng"])
        self.history, self.best, self.steps = saved.state["history"], saved.state["best"], saved.state["steps"]
        return saved.state["epoch"]

    def _loader(self, dataset: Any, *, train: bool) -> Any:
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        return make_loader(
            dataset,
            batch_size=self.batch_size,
            seed=self.seed,
            workers=self.workers,
            rank=rank,
            world=world,
            train=train,
        )

    def _to_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {k: v.to(self.device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}

    def _summed(self, part: Tensor) -> Tensor:
        return cast(Tensor, self.accelerator.reduce(part.to(self.device), "sum"))

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=self.dtype) if self.dtype else contextlib.nullcontext()

    def _check_finite(self, loss: Tensor, batch: dict[str, Any]) -> None:
        if not torch.isfinite(loss):
            raise NonFiniteError(
                "the loss is not finite",
                subject=f"step {self.steps}, samples {batch.get('id')}",
                found=float(loss),
                hint="lower the learning rate, set train.clip, or train in fp32; the last checkpoint stands",
            )


ROW_KEYS = {"epoch", "lr", "seconds"}
