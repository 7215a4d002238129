"""Run folders, and checkpoints that survive a killed process.

Checkpoints are synced before they are renamed, and verified when read.

    checkpoints/step-000123/  model.safetensors  optimizer.safetensors  state.json  manifest.json

The manifest (sizes and hashes, including its own) is written last, and the folder is renamed once everything is on
disk. Only then are older checkpoints removed. A second checkpoint of the same step is `step-000123-1`.
Nothing that could run code is stored or read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.optim import Optimizer

from .. import io
from ..bundle import WEIGHTS, ModelBundle
from ..errors import CheckpointCorruptError, CheckpointError, CheckpointMismatchError, CheckpointWriteError, ConfigError
from ..io import DISK, MANIFEST, Disk, as_json, read_manifest, seal, temporary_name, write_bytes, write_json, write_text
from ..modules import unshared
from .lock import RunLock
from .logs import as_csv, as_jsonl

SCHEMA = 3
NAME = re.compile(r"step-(\d{6,})(?:-(\d+))?")
DESCRIPTION = ("recipe.json", "labels.json", "environment.json")  # the files listed in the manifest of a run


class Checkpoint(NamedTuple):
    """Content of a checkpoint: named groups of tensors, and plain values."""

    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def save(folder: Path, step: int, checkpoint: Checkpoint, *, keep: int = 2, disk: Disk = DISK) -> Path:
    """Write a checkpoint durably, then remove old ones.

    Args:
        folder: The run's `checkpoints` folder.
        step: Number of optimizer steps taken, used in the name.
        checkpoint: Content of the checkpoint.
        keep: Number of checkpoints to keep, at least two.
        disk: The disk operations to use.

    Raises:
        CheckpointWriteError: Writing failed; earlier checkpoints are untouched.
    """
    target, aside = _free_name(folder, step), temporary_name(folder / "step")
    try:
        aside.mkdir(parents=True)
        files = {f"{name}.safetensors": save_tensors(unshared(group)) for name, group in checkpoint.tensors.items()}
        files["state.json"] = json.dumps(checkpoint.state).encode()
        facts = {name: {"size": len(data), "sha256": disk.write(aside / name, data)} for name, data in files.items()}
        disk.write(aside / MANIFEST, seal({"schema": SCHEMA, "checkpoint": target.name, "files": facts}))
        disk.sync(aside)
        disk.rename(aside, target)
        disk.sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise CheckpointWriteError(
            "cannot write the checkpoint", subject=target, found=str(error), hint="free some space, then --resume"
        ) from error
    for old in found(folder)[: -max(keep, 2)]:
        try:
            disk.remove(old)
        except OSError as error:
            warnings.warn(f"cannot remove the old checkpoint {old}: {error}", stacklevel=2)
    return target


def load(path: Path) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises:
        CheckpointCorruptError: A file is missing or was changed.
        CheckpointError: It was written by another version.
    """
    try:
        listed = _read_manifest(path)
        files = {}
        for name, facts in listed["files"].items():
            data = (path / Path(name).name).read_bytes()
            if len(data) != facts["size"] or hashlib.sha256(data).hexdigest() != facts["sha256"]:
                raise CheckpointCorruptError("corrupt checkpoint", subject=path / name, expected="its recorded SHA-256")
            files[name] = data
        tensors = {
            name.removesuffix(".safetensors"): load_tensors(data)
            for name, data in files.items()
            if name.endswith(".safetensors")
        }
        return Checkpoint(tensors, json.loads(files["state.json"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise CheckpointCorruptError(
            "unreadable checkpoint", subject=path, found=f"{type(error).__name__}: {error}"
        ) from error


def load_state(path: Path) -> dict[str, Any]:
    """Read and verify only the plain values of a checkpoint.

    Raises:
        CheckpointCorruptError: The values were changed or cannot be read.
    """
    try:
        data = (path / "state.json").read_bytes()
        if hashlib.sha256(data).hexdigest() != _read_manifest(path)["files"]["state.json"]["sha256"]:
            raise CheckpointCorruptError("corrupt checkpoint", subject=path, expected="its recorded SHA-256")
        return json.loads(data)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointCorruptError("unreadable checkpoint", subject=path, found=str(error)) from error


def latest_state(folder: Path) -> dict[str, Any] | None:
    """Return the plain values of the newest checkpoint in which they are intact; None if there is none."""
    for path in reversed(found(folder)):
        with contextlib.suppress(CheckpointError):
            return load_state(path)
    return None


def found(folder: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    matches = [(match, path) for path in folder.glob("step-*") if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(((int(match[1]), int(match[2] or 0)), path) for match, path in matches)]


def latest(folder: Path) -> Checkpoint:
    """Load the newest intact checkpoint; damaged ones are skipped with a warning.

    Raises:
        CheckpointError: There is no intact checkpoint.
    """
    for path in reversed(found(folder)):
        try:
            return load(path)
        except CheckpointCorruptError as error:
            warnings.warn(f"{error}; falling back to the one before", stacklevel=2)
    raise CheckpointError("no checkpoint to resume from", subject=folder, hint="train without --resume")


def clean(folder: Path) -> None:
    """Remove temporary files left by a killed process."""
    for aside in folder.glob(".tmp-*"):
        if aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink(missing_ok=True)


class RunFolder:
    """The folder of a run.

    Args:
        path: The folder; with None, nothing is written.
        keep: Number of checkpoints to keep.
    """

    def __init__(self, path: Path | None, keep: int) -> None:
        self.path, self.keep = path, keep

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        if self.path is None:
            raise ConfigError("cannot resume without a run folder", hint="give out=")
        return self.path / "checkpoints"

    def lock(self) -> RunLock:
        """Return the lock to hold while writing to the folder, which is created if missing."""
        return RunLock(self.path)

    def check(self, resume: bool) -> None:
        """Refuse to mix two runs.

        Raises:
            ConfigError: A new run would write to the folder of another.
        """
        if self.path is not None and not resume and found(self.checkpoints):
            raise ConfigError("the run folder holds a run", subject=self.path, hint="resume it, or give another folder")

    def begin(self) -> None:
        """Remove temporary files left by a killed process."""
        if self.path is not None:
            clean(self.checkpoints)
            clean(self.path)

    def describe(self, files: Mapping[str, Any]) -> None:
        """Write the JSON files whose content has changed, and update `manifest.json`."""
        if self.path is None:
            return
        texts = {self.path / name: as_json(content) for name, content in files.items()}
        changed = {path: text for path, text in texts.items() if _text_of(path) != text}
        for path, text in changed.items():
            self._write(path.name, lambda path=path, text=text: write_text(path, text))
        if changed:
            names = [name for name in DESCRIPTION if (self.path / name).is_file()]
            self._write(MANIFEST, lambda: io.write_manifest(self.path or Path(), names))

    def save(self, step: int, content: Checkpoint) -> None:
        """Write a checkpoint."""
        if self.path is not None:
            save(self.checkpoints, step, content, keep=self.keep)

    def save_best(self, net: nn.Module) -> None:
        """Save the best network (only the weights for a plain module). The folder is complete at all times."""
        if self.path is None:
            return
        save_network = getattr(net, "save_pretrained", None) or partial(_save_weights, net)
        aside = temporary_name(self.path / "best")

        def write() -> None:
            save_network(aside)
            if not (aside / MANIFEST).is_file():  # networks of this library have already written it
                ModelBundle.of(net).save(aside)
            io.replace_folder(aside, aside.with_name("best"))

        self._write("the best network", write)

    def write_log(self, history: Sequence[Mapping[str, float]]) -> None:
        """Write `metrics.jsonl` and `metrics.csv`, one line per epoch."""
        if self.path is not None:
            texts = {self.path / "metrics.jsonl": as_jsonl(history), self.path / "metrics.csv": as_csv(history)}
            for path, text in texts.items():
                self._write("the log", lambda path=path, text=text: write_text(path, text))

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file."""
        if self.path is not None:
            path = self.path / name
            self._write(name, lambda: write_json(path, content))

    def load_latest(self) -> Checkpoint:
        """Load the newest intact checkpoint."""
        return latest(self.checkpoints)

    def note(self, event: str, **facts: Any) -> None:
        """Add a line to `events.jsonl`."""
        if self.path is not None:
            path = self.path / "events.jsonl"

            def write() -> None:
                with open(path, "a", encoding="utf-8") as file:
                    file.write(json.dumps({"event": event, **facts}) + "\n")

            self._write("the events", write)

    def _write(self, what: str, work: Callable[[], None]) -> None:
        try:
            work()
        except (OSError, SafetensorError) as error:
            for aside in self.path.glob(".tmp-*") if self.path else ():
                shutil.rmtree(aside, ignore_errors=True)
            raise CheckpointWriteError(
                f"cannot write {what}", subject=self.path, found=str(error), hint="free some space, then --resume"
            ) from error


def pack_optimizer(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state of an optimizer as (tensors, plain values)."""
    packed = optimizer.state_dict()
    tensors, values = {}, {}
    for index, slots in packed["state"].items():
        for name, value in slots.items():
            (tensors if isinstance(value, Tensor) else values)[f"{index}.{name}"] = value
    return tensors, {"values": values, "groups": packed["param_groups"]}


def unpack_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
    """Restore the state returned by `pack_optimizer`, in the memory layout of the parameters.

    Raises:
        CheckpointMismatchError: The state belongs to another optimizer.
    """
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **plain["values"]}.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    try:
        optimizer.load_state_dict({"state": state, "param_groups": plain["groups"]})
        for parameter, slots in optimizer.state.items():
            for name, value in slots.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape and value.ndim:
                    slots[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointMismatchError("state of another optimizer", found=str(error)) from error


def _read_manifest(path: Path) -> dict[str, Any]:
    content = read_manifest(path)
    if content is None:
        raise CheckpointCorruptError("corrupt checkpoint", subject=path, expected=MANIFEST, found="none")
    if content["schema"] != SCHEMA:
        raise CheckpointError(
            "checkpoint of another version", subject=path, expected=f"schema {SCHEMA}", found=content["schema"]
        )
    names = {entry.name for entry in path.iterdir()}
    if content["checkpoint"] != path.name or names != {*content["files"], MANIFEST}:
        raise CheckpointCorruptError(
            "corrupt checkpoint",
            subject=path,
            expected=f"{content['checkpoint']} with {', '.join(content['files'])}",
            found=f"{path.name} with {', '.join(sorted(names))}",
        )
    return content


def _free_name(folder: Path, step: int) -> Path:
    name, number = f"step-{step:06d}", 0
    while (folder / (f"{name}-{number}" if number else name)).exists():
        number += 1
    return folder / (f"{name}-{number}" if number else name)


def _save_weights(net: nn.Module, folder: Path) -> None:
    folder.mkdir(parents=True)
    write_bytes(folder / WEIGHTS, save_tensors(unshared(net.state_dict()), {"format": "pt"}))


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
