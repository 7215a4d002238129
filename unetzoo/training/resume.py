"""A Trainer's whole state as a checkpoint, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from torch import nn

from ..errors import CheckpointMismatchError, NonFiniteError
from . import checkpoint, rng
from .evaluation import widest
from .numerics import not_finite

if TYPE_CHECKING:
    from .trainer import Trainer

PLAIN = ("steps", "history", "names", "seconds")
FREE = ("train.epochs", "train.steps", "train.tensorboard")  # what a resumed run may change


def capture(trainer: Trainer) -> checkpoint.Checkpoint:
    """Everything that the rest of the run depends on. All processes call it together.

    Raises:
        NonFiniteError: Weights that are not finite are never saved.
    """
    modules = _modules(trainer)
    tensors = {group: module.state_dict() for group, module in modules.items()}
    spoiled = not_finite((f"{group}.{name}", value) for group, held in tensors.items() for name, value in held.items())
    if spoiled:
        raise NonFiniteError(
            "the weights are not finite",
            subject=f"step {trainer.steps}",
            found=", ".join(spoiled[:3]),
            hint="lower the learning rate; the last checkpoint stands",
        )
    tensors["optimizer"], plain = checkpoint.pack_optimizer(trainer.optimizer)
    ours = {"rng": rng.pack(rng.take()), "sums": [] if trainer.sums is None else trainer.sums.tolist()}
    state = {name: getattr(trainer, name) for name in PLAIN}
    state |= {
        "best": trainer.best.state_dict(),
        "parts": trainer.parts.count,
        "skipped": [trainer.judge.skipped, trainer.judge.in_a_row],
        "optimizer": plain,
        "scheduler": trainer.schedule.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "processes": gather_object([ours]),
        "settings": fingerprint(trainer),
        "record": trainer.record,
    }
    return checkpoint.Checkpoint(tensors, state)


def restore(trainer: Trainer, saved: checkpoint.Checkpoint) -> None:
    """Put a Trainer where a checkpoint left it.

    Raises:
        CheckpointMismatchError: The checkpoint is of another network, recipe or setting; it says which.
    """
    state = saved.state
    check_same(state["record"], trainer.record, trainer.out)
    for group, module in _modules(trainer).items():
        try:
            module.load_state_dict(saved.tensors.get(group, {}))
        except RuntimeError as error:
            whose = "loss" if group == "loss" else "network"
            raise CheckpointMismatchError(
                f"a checkpoint of another {whose}", subject=trainer.out, found=error
            ) from error
    check_same(state["settings"], fingerprint(trainer), trainer.out)
    if state["steps"] > trainer.plan.steps:
        raise CheckpointMismatchError(
            "the run is longer already",
            subject=trainer.out,
            expected=f"at least {state['steps']} optimizer steps",
            found=trainer.plan.steps,
            hint="raise train.epochs or train.steps",
        )
    checkpoint.unpack_optimizer(trainer.optimizer, saved.tensors["optimizer"], state["optimizer"])
    trainer.schedule.load_state_dict(state["scheduler"])
    trainer.scaler.load_state_dict(state["scaler"])
    trainer.best.load_state_dict(state["best"])
    trainer.parts.count = state["parts"]
    trainer.judge.skipped, trainer.judge.in_a_row = state["skipped"]
    for name in PLAIN:
        setattr(trainer, name, state[name])
    ours = state["processes"][trainer.accelerator.process_index]
    sums = torch.tensor(ours["sums"], dtype=widest(trainer.device), device=trainer.device)
    trainer.sums = sums if ours["sums"] else None
    rng.give(rng.unpack(ours["rng"]))


def fingerprint(trainer: Trainer) -> dict[str, Any]:
    """What must be the same for a run to go on as if it had never stopped."""
    return {
        "train": trainer.settings.model_dump(mode="json"),
        "stages": [[stage.epochs, stage.batch_size] for stage in trainer.stages],
        "samples": trainer.samples,
        "processes": trainer.world,
        "optimizer": type(trainer.optimizer).__name__,
        "scheduler": type(trainer.schedule.scheduler).__name__,
    }


def check_same(saved: Mapping[str, Any], now: Mapping[str, Any], subject: Path | None) -> None:
    """Refuse to go on with other settings; only the run's length may grow.

    Raises:
        CheckpointMismatchError: Naming what differs.
    """
    before, after = flat(saved), flat(json.loads(json.dumps(now)))
    missing = object()
    differing = [
        f"{key}: {_shown(before.get(key))} → {_shown(after.get(key))}"
        for key in sorted({*before, *after})
        if before.get(key, missing) != after.get(key, missing) and key not in FREE
    ]
    if differing:
        raise CheckpointMismatchError(
            "the run was made by another recipe",
            subject=subject,
            found="; ".join(differing[:5]),
            hint="resume with its own (only train.epochs or train.steps may grow), or start a new run",
        )


def _modules(trainer: Trainer) -> dict[str, nn.Module]:
    modules: dict[str, nn.Module] = {"model": trainer.net}
    if trainer.ema is not None:
        modules["ema"] = trainer.ema.net
    if isinstance(trainer.loss, nn.Module) and trainer.loss.state_dict():
        modules["loss"] = trainer.loss
    return modules


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A table of tables as one, with dotted keys.

    Examples:
        >>> flat({"train": {"epochs": 3}, "name": "one"})
        {'train.epochs': 3, 'name': 'one'}
    """
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _shown(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value)
