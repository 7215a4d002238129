"""Check that a resumed run continues as if it had never stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import CheckpointMismatchError
from .schedule import Stage
from .settings import Settings
from .state import TrainState

# Settings a resumed run may change: its length, and those that do not affect results. The data root may change too.
FREE = {
    "train.epochs", "train.steps", "train.patience", "train.workers", "train.keep", "train.checkpoint_epochs",
    "train.checkpoint_steps", "train.find_unused_parameters", "train.log", "train.callbacks",
}  # fmt: skip


def fingerprint(
    settings: Settings, stages: Sequence[Stage], samples: int, processes: int, state: TrainState
) -> dict[str, Any]:
    """Return what must be the same, besides the record, for a run to continue as if it had never stopped.

    Args:
        settings: Settings of the Trainer.
        stages: Stages of the run.
        samples: Length of the training data.
        processes: Number of training processes.
        state: State of the run, with optimizer and schedule.
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
    """Compare a checkpoint's plain values with the run that continues from it.

    Args:
        saved: Plain values of the checkpoint.
        record: The run's record.
        settings: The run's `fingerprint`.
        steps: Optimizer steps of the whole run.
        out: The run folder.

    Raises:
        CheckpointMismatchError: They differ, or the checkpoint has more steps than the run.
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
    """Refuse to continue a run with settings that would change its results. Its length may change.

    Raises:
        CheckpointMismatchError: Settings differ; the message names them.
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
    """Flatten nested tables into one with dotted keys.

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
