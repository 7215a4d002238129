"""Checkpoints that survive a kill: written aside, synced, renamed; verified by SHA-256 when they are read.

    checkpoints/step-000123/  model.safetensors  optimizer.safetensors  state.json  manifest.json

The manifest (sizes and hashes) is written last, and the folder takes its name by one rename after everything is on
disk. Nothing that could run code is stored or read.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor
from torch.optim import Optimizer

from ..errors import CheckpointCorruptError, CheckpointError, CheckpointMismatchError, CheckpointWriteError

SCHEMA = 1
NAME = re.compile(r"step-(\d{6,})")


class Checkpoint(NamedTuple):
    """What a checkpoint holds: named groups of tensors, and plain values."""

    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def save(folder: Path, step: int, checkpoint: Checkpoint, *, keep: int = 2) -> Path:
    """Write a checkpoint durably, then drop the oldest ones.

    Args:
        folder: The run's `checkpoints` folder.
        step: Optimizer steps done, which names it.
        checkpoint: Its content.
        keep: How many to keep, at least two.

    Raises:
        CheckpointWriteError: The disk refused; earlier checkpoints are untouched.
    """
    target, aside = folder / f"step-{step:06d}", folder / f".tmp-{uuid.uuid4().hex}"
    try:
        aside.mkdir(parents=True)
        files = {f"{name}.safetensors": save_tensors(_plain(group)) for name, group in checkpoint.tensors.items()}
        files["state.json"] = json.dumps(checkpoint.state).encode()
        manifest = {name: {"size": len(data), "sha256": _sha256(data)} for name, data in files.items()}
        for name, data in files.items():
            _write(aside / name, data)
        _write(aside / "manifest.json", json.dumps({"schema": SCHEMA, "files": manifest}, indent=2).encode())
        _sync_folder(aside)
        if target.exists():
            shutil.rmtree(target)
        aside.rename(target)
        _sync_folder(folder)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise CheckpointWriteError(
            "cannot write the checkpoint", subject=target, found=str(error), hint="free some space, then --resume"
        ) from error
    for old in found(folder)[: -max(keep, 2)]:
        shutil.rmtree(old)
    return target


def load(path: Path) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises:
        CheckpointCorruptError: A file is missing, or is not what was written.
    """
    try:
        listed = json.loads((path / "manifest.json").read_text())
        if listed["schema"] != SCHEMA:
            raise CheckpointError(
                "checkpoint of another version", subject=path, expected=f"schema {SCHEMA}", found=listed["schema"]
            )
        files = {}
        for name, facts in listed["files"].items():
            data = (path / Path(name).name).read_bytes()
            if len(data) != facts["size"] or _sha256(data) != facts["sha256"]:
                raise CheckpointCorruptError("corrupt checkpoint", subject=path / name, expected="its recorded SHA-256")
            files[name] = data
        tensors = {
            name.removesuffix(".safetensors"): load_tensors(data)
            for name, data in files.items()
            if name.endswith(".safetensors")
        }
        return Checkpoint(tensors, json.loads(files["state.json"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointCorruptError(
            "unreadable checkpoint", subject=path, found=f"{type(error).__name__}: {error}"
        ) from error


def found(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    steps = [(int(match[1]), path) for path in folder.glob("step-*") if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(steps)]


def latest(folder: Path) -> Checkpoint:
    """The newest checkpoint that is whole; damaged ones are passed over with a warning.

    Raises:
        CheckpointError: There is none.
    """
    for path in reversed(found(folder)):
        try:
            return load(path)
        except CheckpointCorruptError as error:
            warnings.warn(f"{error}; falling back to the one before", stacklevel=2)
    raise CheckpointError("no checkpoint to resume from", subject=folder, hint="train without --resume")


def clean(folder: Path) -> None:
    """Remove what a killed writer left behind."""
    for aside in folder.glob(".tmp-*"):
        shutil.rmtree(aside, ignore_errors=True)


def pack_optimizer(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as (tensors, plain values)."""
    packed = optimizer.state_dict()
    tensors, values = {}, {}
    for index, slots in packed["state"].items():
        for name, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                values[f"{index}.{name}"] = value
    return tensors, {"values": values, "groups": packed["param_groups"]}


def unpack_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
    """Give an optimizer the state that `pack_optimizer` took.

    Raises:
        CheckpointMismatchError: It belongs to another optimizer.
    """
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **plain["values"]}.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    try:
        optimizer.load_state_dict({"state": state, "param_groups": plain["groups"]})
    except (ValueError, KeyError) as error:
        raise CheckpointMismatchError("state of another optimizer", found=str(error)) from error


def pack_rng() -> dict[str, str]:
    """The global random state of this process, as base64."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return {name: base64.b64encode(state.numpy().tobytes()).decode() for name, state in states.items()}


def unpack_rng(packed: Mapping[str, str]) -> None:
    """Set the global random state that `pack_rng` took."""
    states = {
        name: torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8) for name, text in packed.items()
    }
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _plain(group: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in group.items()}  # channels_last is refused


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    if os.name == "posix":  # elsewhere folders cannot be opened
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
