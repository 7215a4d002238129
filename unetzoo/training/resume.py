"""What must be the same for a run to go on as if it had never stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import CheckpointMismatchError
from .schedule import Stage
from .settings import Settings
from .state import TrainState

# What a resumed run may change: its length, and what does not change results. The root of the data may move, too.
FREE = {
    "train.epochs", "train.steps", "train.patience", "train.workers", "train.keep", "train.checkpoint_epochs",
    "train.checkpoint_steps", "train.find_unused_parameters", "train.tensorboard", "train.callbacks",
}  # fmt: skip


def fingerprint(
    settings: Settings, stages: Sequence[Stage], samples: int, processes: int, state: TrainState
) -> dict[str, Any]:
    """What must be the same for a run to continue as if it had never stopped, besides its record.

    Args:
        settings: Of the Trainer.
        stages: Its stages.
        samples: Length of the training data.
        processes: How many train together.
        state: Has the optimizer and the schedule.
    """
    return {
        "train": settings.model_dump(mode="json"),
        "stages": [[stage.epochs, stage.batch_size] for stage in stages],
        "samples": samples,
        "processes": processes,
        "optimizer": type(state.optimizer).__name__,
        "scheduler": type(state.schedule.scheduler).__name__,
    }


def check_resumable(
    saved: Mapping[str, Any],
    record: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    steps: int,
    out: Path | None,
) -> None:
    """Compare a checkpoint's plain values with the run that is to continue from it.

    Args:
        saved: The values.
        record: The run's record.
        settings: The run's `fingerprint`.
        steps: Optimizer steps of the whole run.
        out: The run folder.

    Raises:
        CheckpointMismatchError: Naming what differs.
    """
    check_same(saved["record"], record, out)
    check_same(saved["settings"], settings, out)
    if saved["steps"] > steps:
        raise CheckpointMismatchError(
            "the run is longer already",
            subject=out,
            expected=f"at least {saved['steps']} optimizer steps",
            found=steps,
            hint="raise train.epochs or train.steps",
        )


def check_same(saved: Mapping[str, Any], now: Mapping[str, Any], subject: Path | None) -> None:
    """Refuse to continue a run with settings that would change its results; it may become longer.

    Raises:
        CheckpointMismatchError: Naming what differs.
    """
    before, after = flat(saved), flat(json.loads(json.dumps(now)))
    missing = object()
    differing = [
        f"{key}: {_shown(before.get(key))} → {_shown(after.get(key))}"
        for key in sorted({*before, *after})
        if before.get(key, missing) != after.get(key, missing) and not _is_free(key)
    ]
    if differing:
        raise CheckpointMismatchError(
            "the run was made by another recipe",
            subject=subject,
            found="; ".join(differing[:5]),
            hint="resume with its own (its length, workers, checkpoints, patience and the data's root may change), "
            "or start a new run",
        )


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


def _is_free(key: str) -> bool:
    return key in FREE or (key.startswith("data.") and key.endswith(".root"))


def _shown(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value)
