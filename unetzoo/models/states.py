"""Reading the tensors of a checkpoint, whatever wraps them, and checking them before a network takes them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointCorruptError, CheckpointError, CheckpointMismatchError, CheckpointUnsafeError

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "generator")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "unet.")
MENTIONED = 20  # names in an error


def read_state(source: str | Path | Mapping[str, Any]) -> tuple[dict[str, Tensor], bool]:
    """The tensors of a checkpoint under the network's own names, and whether they come in the order of definition.

    Wrapping tables (Lightning's, other trainers') and prefixes (`DataParallel`, `torch.compile`) are taken off.

    Raises:
        CheckpointUnsafeError: A file that would run code.
        CheckpointError: No readable file, or no tensors in it.
    """
    held = dict(source) if isinstance(source, Mapping) else _read_file(Path(source))
    while inner := next((k for k in WRAPPERS if isinstance(held.get(k), Mapping)), None):
        held = dict(held[inner])
    state = {str(key): value for key, value in held.items() if isinstance(value, Tensor)}
    while prefix := next((p for p in PREFIXES if 2 * sum(k.startswith(p) for k in state) > len(state)), None):
        # what lacks the prefix is a trainer's own, such as a loss's weights
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if not state:
        subject = source if isinstance(source, str | Path) else "state dict"
        found = ", ".join(map(str, held)) or "nothing"
        raise CheckpointError("no weights", subject=subject, expected="named tensors", found=found)
    return state, not str(source).endswith(".safetensors")  # which sorts by name


def _read_file(path: Path) -> dict[str, Any]:
    from pickle import UnpicklingError

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the file's age
            held = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if not named and not path.read_bytes()[:1] == b"\x80":  # the first byte of every pickle
            raise _unreadable(path, error) from error
        raise CheckpointUnsafeError(
            "a file that would run code",
            subject=path,
            expected="tensors, numbers and text alone",
            found=named[1] if named else "a bare pickle",
            hint="get the state_dict, or a safetensors file, from its author",
        ) from error
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(held, Mapping):
        raise CheckpointError("no state dict", subject=path, expected="a table of tensors", found=type(held).__name__)
    return dict(held)


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    kind = CheckpointError if isinstance(error, FileNotFoundError) else CheckpointCorruptError
    return kind("cannot read the weights", subject=path, found=str(error).partition("\n")[0] or type(error).__name__)


def check_tensors(own: Mapping[str, Tensor], state: Mapping[str, Tensor], subject: object) -> None:
    """Check tensors against those of the same name that they will replace, before any is replaced.

    Args:
        own: Tensors of the network.
        state: Tensors of the checkpoint; names that the network lacks are not looked at.
        subject: What the errors name.

    Raises:
        CheckpointMismatchError: Another shape or kind of number, or a tensor without values (on the meta device).
        CheckpointCorruptError: NaN or infinity, in the network's own precision.
    """
    wrong = []
    shared = [name for name in own if name in state]
    for name in shared:
        mine, theirs = own[name], state[name]
        if mine.shape != theirs.shape:
            wrong.append(f"{name}: network {tuple(mine.shape)}, checkpoint {tuple(theirs.shape)}")
        elif theirs.is_meta or mine.is_meta:
            wrong.append(f"{name}: on the meta device, which holds no values")
        elif mine.is_floating_point() != theirs.is_floating_point() or mine.is_complex() != theirs.is_complex():
            wrong.append(f"{name}: network {mine.dtype}, checkpoint {theirs.dtype}")
    if wrong:
        raise CheckpointMismatchError(
            "weights that do not fit the network",
            subject=subject,
            found=_listed(wrong),
            hint="build the network as it was trained, and give its float weights",
        )
    check_finite({name: state[name].to(own[name].dtype) for name in shared}, subject)


def check_finite(state: Mapping[str, Tensor], subject: object) -> None:
    """Check that all weights are finite.

    Raises:
        CheckpointCorruptError: NaN or infinity.
    """
    unusable = [
        name
        for name, tensor in state.items()
        if tensor.is_floating_point() and not torch.isfinite(tensor.detach()).all()
    ]
    if unusable:
        raise CheckpointCorruptError(
            "weights that are not finite",
            subject=subject,
            found="NaN or infinity in" + _listed(unusable),
            hint="take an earlier checkpoint: this one was damaged, or saved after training diverged",
        )


def _listed(lines: list[str]) -> str:
    more = [f"… and {len(lines) - MENTIONED} more"] if len(lines) > MENTIONED else []
    return "\n  " + "\n  ".join([*lines[:MENTIONED], *more])
