"""The state of a run: everything its next steps depend on, in one object that checkpoints store."""

from __future__ import annotations

import contextlib
import copy
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from ..errors import CheckpointMismatchError, NonFiniteError
from . import checkpoint, rng
from .schedule import Schedule

PLAIN = ("steps", "history", "term_names", "seconds", "micro_batches", "skipped", "skipped_in_a_row")


class Best:
    """Tracks the best value of a score over epochs.

    Args:
        mode: Whether a larger ("max") or smaller ("min") score is better.
        patience: Epochs without a better score after which to stop.
        latest: Count the latest epoch as the best, for runs without evaluation.

    Examples:
        >>> best = Best("max", patience=2)
        >>> [best.follow(score) for score in (0.1, 0.3, 0.2)], best.is_over
        ([True, True, False], False)
        >>> best.follow(float("nan")), best.is_over
        (False, True)
    """

    def __init__(self, mode: str = "max", patience: int | None = None, latest: bool = False) -> None:
        self.mode, self.patience, self.latest = mode, patience, latest
        self.score: float | None = None
        self.epoch = self.epochs = 0

    def follow(self, value: float) -> bool:
        """Add the score of an epoch and return whether it is the best so far."""
        self.epochs += 1
        score = float(self.epochs) if self.latest else value if self.mode == "max" else -value
        better = not math.isnan(score) and (self.score is None or score > self.score)
        if better:
            self.score, self.epoch = score, self.epochs
        return better

    @property
    def is_over(self) -> bool:
        """Whether the patience is exhausted."""
        return self.patience is not None and self.epochs - self.epoch >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Return the state as JSON-serializable values."""
        return {"score": self.score, "epoch": self.epoch, "epochs": self.epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.score, self.epoch, self.epochs = state["score"], state["epoch"], state["epochs"]


class Buffers:
    """Buffers of a network, looked up at each call since moving a network replaces them.

    Args:
        net: The network.
    """

    def __init__(self, net: nn.Module) -> None:
        self._slots = [
            (m._buffers, name) for m in net.modules() for name, held in m._buffers.items() if held is not None
        ]

    def now(self) -> list[Tensor]:
        """Return the current buffers."""
        return [cast(Tensor, held[name]) for held, name in self._slots]

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Restore the buffers after the block."""
        saved = [buffer.clone() for buffer in self.now()]
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, before in zip(self.now(), saved, strict=True):
                    buffer.copy_(before)


class EMA:
    """Exponential moving average of the parameters and floating-point buffers of a network; other buffers are copied.

    The decay is smaller in the first steps: at step n it is `min(decay, (1 + n) / (10 + n))`.

    Args:
        net: The network that is trained.
        decay: Fraction of the previous average kept in each step, e.g. 0.999.

    Examples:
        >>> net = nn.Linear(1, 1, bias=False)
        >>> average = EMA(net, 0.5)
        >>> before = net.weight.item()
        >>> _ = net.weight.data.add_(1.0)
        >>> average.update(step=100)
        >>> round(average.net.weight.item() - before, 6)
        0.5
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self._means: list[Tensor] = list(self.net.parameters())
        self._values: list[Tensor] = list(net.parameters())
        self._mean_buffers, self._buffers = Buffers(self.net), Buffers(net)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average after optimizer step number `step`, counted from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        means, values = list(self._means), list(self._values)
        for mean, value in zip(self._mean_buffers.now(), self._buffers.now(), strict=True):
            if mean.is_floating_point():
                means.append(mean)
                values.append(value)
            else:
                mean.copy_(value)
        torch._foreach_lerp_(means, values, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]


@dataclass
class TrainState:
    """Progress of a run, and the objects whose states belong to it.

    Args:
        net: The network that is trained.
        loss: The loss. If it is a module, its parameters and buffers are part of the state.
        optimizer: The optimizer.
        schedule: The learning rate schedule.
        scaler: The gradient scaler for fp16; does nothing if disabled.
        ema: The moving average of the weights, if there is one.
        best: The best epoch so far.
        steps: Number of optimizer steps taken.
        history: One row per epoch.
        term_names: Names of the loss terms.
        sums: The loss and its terms, summed over the samples of the current epoch; on the device.
        seconds: Time spent in the current epoch.
        micro_batches: Number of parts each batch is split into; increases when memory runs out.
        skipped: Number of steps in the current epoch that the scaler skipped.
        skipped_in_a_row: Number of steps skipped since the last one that was not.
    """

    net: nn.Module
    loss: Any
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    ema: EMA | None = None
    best: Best = field(default_factory=Best)
    steps: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    term_names: list[str] = field(default_factory=list)
    sums: Tensor | None = None
    seconds: float = 0.0
    micro_batches: int = 1
    skipped: int = 0
    skipped_in_a_row: int = 0

    @property
    def network(self) -> nn.Module:
        """The network that is evaluated and kept as the best: the trained one, or the moving average of its weights."""
        return self.net if self.ema is None else self.ema.net

    def begin_anew(self) -> None:
        """Reset the progress of a previous run; weights and the state of the optimizer are kept."""
        self.best, self.steps, self.history, self.term_names = Best(), 0, [], []
        self.sums, self.seconds, self.micro_batches, self.skipped, self.skipped_in_a_row = None, 0.0, 1, 0, 0

    def mean_terms(self, samples: int, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Return the loss and its terms, averaged over the current epoch.

        Args:
            samples: Number of samples that all processes have seen in it.
            reduce: Sums a tensor over the processes.
        """
        sums, names = reduce(cast(Tensor, self.sums)).tolist(), ["loss", *self.term_names]
        return {f"train/{name}": value / samples for name, value in zip(names, sums, strict=True)}

    def close_epoch(self, row: dict[str, float], score: float) -> None:
        """Add an epoch's row to the history, step the schedule with its monitored score, and reset the epoch's sums."""
        self.history.append(row)
        self.schedule.after_epoch(score)
        self.sums, self.seconds, self.skipped = None, 0.0, 0

    def state_dict(self) -> checkpoint.Checkpoint:
        """Return everything the rest of the run depends on. All processes must call it together.

        Raises:
            NonFiniteError: Weights are not finite; these are never saved.
        """
        tensors = {group: module.state_dict() for group, module in self._modules().items()}
        named = ((f"{group}.{name}", value) for group, held in tensors.items() for name, value in held.items())
        spoiled = [name for name, value in named if value.is_floating_point() and not _is_finite(value)]
        if spoiled:
            raise NonFiniteError(
                "the weights are not finite",
                subject=f"step {self.steps}",
                found=", ".join(spoiled[:3]),
                hint="lower the learning rate; the last checkpoint is kept",
            )
        tensors["optimizer"], plain = checkpoint.pack_optimizer(self.optimizer)
        own = {"rng": rng.pack(rng.take()), "sums": [] if self.sums is None else self.sums.tolist()}
        state = {name: getattr(self, name) for name in PLAIN} | {
            "best": self.best.state_dict(),
            "optimizer": plain,
            "scheduler": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "processes": gather_object([own]),
            "threads": torch.get_num_threads(),
        }
        return checkpoint.Checkpoint(tensors, state)

    def load_state_dict(self, saved: checkpoint.Checkpoint, process: int, device: torch.device) -> None:
        """Continue from a checkpoint.

        Args:
            saved: The checkpoint returned by `state_dict`.
            process: The index of this process.
            device: The device of the network.

        Raises:
            CheckpointMismatchError: The checkpoint belongs to another network, loss or optimizer.
        """
        state = saved.state
        for group, module in self._modules().items():
            try:
                module.load_state_dict(saved.tensors.get(group, {}))
            except RuntimeError as error:
                whose = "loss" if group == "loss" else "network"
                raise CheckpointMismatchError(f"a checkpoint of another {whose}", subject=whose, found=error) from error
        checkpoint.unpack_optimizer(self.optimizer, saved.tensors["optimizer"], state["optimizer"])
        self.schedule.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        self.best.load_state_dict(state["best"])
        for name in PLAIN:
            setattr(self, name, state[name])
        own = state["processes"][process]
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.tensor(own["sums"], dtype=dtype, device=device) if own["sums"] else None
        rng.give(rng.unpack(own["rng"]))
        if state["threads"] != torch.get_num_threads():
            warnings.warn(
                f"the checkpoint was written with {state['threads']} threads, this process has "
                f"{torch.get_num_threads()}: sums differ in their last bits (set OMP_NUM_THREADS to go on bit by bit)",
                stacklevel=2,
            )

    def _modules(self) -> dict[str, nn.Module]:
        modules: dict[str, nn.Module] = {"model": self.net}
        if self.ema is not None:
            modules["ema"] = self.ema.net
        if isinstance(self.loss, nn.Module) and self.loss.state_dict():
            modules["loss"] = self.loss
        return modules


def _is_finite(tensor: Tensor) -> bool:
    """Whether all values are finite, in most cases from their sum, which takes a fraction of the time."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())
