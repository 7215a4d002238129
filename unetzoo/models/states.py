"""Read the tensors of a checkpoint, and check them before they are loaded into a network."""

from __future__ import annotations

import contextlib
import re
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import (
    CheckpointCorruptError,
    CheckpointError,
    CheckpointMismatchError,
    CheckpointUnsafeError,
    ConfigError,
)

# Keys under which trainers save a network's weights and their moving average (EMA).
TABLES = (
    *("state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "network_weights"),
    *("generator", "params", "weights"),
    *("ema", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict", "model_state_dict_ema", "params_ema"),
)
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "unet.", "backbone.")
# Other objects that trainers save. They are not needed, so they are not constructed: see `_Ignored`.
IGNORED = (
    *("numpy._core.multiarray.scalar", "numpy._core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype"),
    *("numpy.core.multiarray.scalar", "numpy.core.multiarray._reconstruct"),  # as NumPy 1 pickles them
    *("argparse.Namespace", "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath"),
)
MENTIONED = 20  # maximum number of names in an error
DOWNLOAD = "download the file itself; on GitHub or the Hugging Face hub, use its download link"


def read_state(source: Any, key: str | None = None, own: Collection[str] = ()) -> tuple[dict[str, Tensor], bool]:
    """Read the tensors of a checkpoint, and return whether they are in the order of definition.

    Enclosing dicts (of Lightning and other trainers) and prefixes (`DataParallel`, `torch.compile`) are removed.

    Args:
        source: A file, a state dict, or a module.
        key: The key of the weights in a checkpoint with several sets; use dots for nested dicts.
        own: Tensor names of the network to fill; if all of them are present, no more prefixes are removed.

    Raises:
        ConfigError: The source has the wrong type.
        CheckpointUnsafeError: Loading the file would execute code.
        CheckpointMismatchError: There are several sets of weights, or none under `key`.
        CheckpointError: The file cannot be read or contains no tensors.
    """
    ordered = True
    if isinstance(source, nn.Module):
        held, subject = source.state_dict(), type(source).__name__
    elif isinstance(source, Mapping):
        held, subject = source, "state dict"
    elif isinstance(source, str | Path):
        held, ordered = _read_file(Path(source))
        subject = source
    else:
        raise ConfigError("not a checkpoint", expected="a file, a state dict or a module", found=type(source).__name__)
    state = _weights(held, key, subject)
    while prefix := next((p for p in PREFIXES if 2 * sum(k.startswith(p) for k in state) > len(state)), None):
        if own and set(own) <= state.keys():
            break
        # tensors without the prefix belong to the trainer, e.g. weights of a loss
        state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return state, ordered


def _weights(held: Mapping[Any, Any], key: str | None, subject: object) -> dict[str, Tensor]:
    """Return the only dict of tensors in a checkpoint, or the one under `key`."""
    named: Any = held
    for part in () if key is None else (key,) if key in held else key.split("."):
        named = _table(named).get(part)
    found = dict(_tables(_table(named), key or ""))
    if len(found) > 1:
        raise CheckpointMismatchError(
            "several sets of weights in one checkpoint",
            subject=subject,
            expected=" or ".join(f"key={name!r}" for name in found),
            hint="choose one; the moving average (ema) is usually the one that its author evaluated",
        )
    if not found:
        others = [str(name) for name, value in held.items() if any(_tables(_table(value), ""))]
        raise (CheckpointError if key is None else CheckpointMismatchError)(
            "no weights" if key is None else f"no weights under key={key!r}",
            subject=subject,
            expected="named tensors",
            found=", ".join(map(str, held)) or "nothing",
            hint="choose " + " or ".join(f"key={name!r}" for name in others) if others else None,
        )
    (table,) = found.values()
    return {str(name): value for name, value in table.items() if isinstance(value, Tensor)}


def _tables(held: Mapping[Any, Any], where: str) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Iterate over the dicts of tensors in a checkpoint, with their dotted keys."""
    names = [name for name in TABLES if name in held]
    inner = [found for name in names for found in _tables(_table(held[name]), f"{where}.{name}".lstrip("."))]
    if not inner and any(isinstance(value, Tensor) for value in held.values()):
        yield where, held
    yield from inner


def _table(value: Any) -> Mapping[Any, Any]:
    if isinstance(value, nn.Module):
        return value.state_dict()
    return value if isinstance(value, Mapping) else {}


class _Ignored:
    """Placeholder for an object other than the weights in a checkpoint; its class is not imported."""

    def __new__(cls, *_: Any) -> _Ignored:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


def read_safetensors(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        CheckpointError: The file cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        check_format(path)
        return load_file(path, device=device)
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _read_file(path: Path) -> tuple[Mapping[Any, Any], bool]:
    """Return the content of a file, and whether its tensors are in the order of definition."""
    from pickle import UnpicklingError

    head = b""
    if not path.is_file():
        raise CheckpointError("no such file", subject=path, expected="a file of weights", hint="check the path")
    if not path.stat().st_size:
        raise CheckpointCorruptError("the file is empty", subject=path, expected="a file of weights", hint=DOWNLOAD)
    try:
        head = check_format(path)
        if path.suffix == ".safetensors" or head[8:9] == b"{":
            return read_safetensors(path), False  # sorted by name
        with warnings.catch_warnings(), torch.serialization.safe_globals([(_Ignored, name) for name in IGNORED]):
            warnings.simplefilter("ignore")  # about old file formats
            held = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if not named and not head[:1] == b"\x80":  # the first byte of every pickle
            raise _unreadable(path, "neither a PyTorch nor a safetensors file") from error
        raise CheckpointUnsafeError(
            "a file that would run code",
            subject=path,
            expected="only tensors, numbers and text",
            found=named[1] if named else "a bare pickle",
            hint="get the state_dict, or a safetensors file, from its author",
        ) from error
    except Exception as error:  # a damaged pickle may raise any exception
        raise _unreadable(path, error) from error
    if not isinstance(held, Mapping):
        raise CheckpointError("no state dict", subject=path, expected="a table of tensors", found=type(held).__name__)
    return held, True


def check_source(path: str | Path) -> None:
    """Check that a path is an existing folder, or else can be the name of a hub repository.

    Raises:
        CheckpointError: It is neither.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        if not Path(path).exists():
            validate_repo_id(str(path))
    except HFValidationError as error:
        raise CheckpointError(
            "no such folder",
            subject=path,
            expected="a folder written by save_pretrained, or a hub repository as OWNER/NAME",
            hint="check the path",
        ) from error


def check_format(path: Path) -> bytes:
    """Reject files that are commonly mistaken for weights, and return the first bytes of other files.

    Raises:
        CheckpointUnsafeError: The file is a TorchScript archive.
        CheckpointError: The file is a web page, a Git LFS pointer, an exported program, or another archive.
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(512)
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError("not weights", subject=path, found="a web page", hint=DOWNLOAD)
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            "not weights", subject=path, found="a Git LFS pointer", hint=f"run `git lfs pull`, or {DOWNLOAD}"
        )
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd")):
        raise CheckpointError("not weights", subject=path, found="a compressed file", hint="unpack it")
    if head.startswith(b"\x89HDF"):
        raise CheckpointError("not weights", subject=path, found="an HDF5 file", hint="convert it in Keras or PyTorch")
    with contextlib.suppress(zipfile.BadZipFile):
        if head.startswith(b"PK"):
            _check_zip(path, {name.partition("/")[2] for name in zipfile.ZipFile(path).namelist()})
    return head


def _check_zip(path: Path, names: set[str]) -> None:
    if "constants.pkl" in names:
        raise CheckpointUnsafeError(
            "not weights",
            subject=path,
            found="a TorchScript archive, which contains code",
            hint='if you trust it: torch.save(torch.jit.load(path).state_dict(), "weights.pth"), and load that file',
        )
    if "archive_format" in names:
        raise CheckpointError(
            "not weights", subject=path, found="an exported program", hint="unetzoo.load opens those of unetzoo.export"
        )
    if "data.pkl" not in names:
        raise CheckpointError("not weights", subject=path, found="a zip archive", hint="unpack it")


def _unreadable(path: Path, found: Exception | str) -> CheckpointError:
    kind = CheckpointError if isinstance(found, FileNotFoundError) else CheckpointCorruptError
    return kind("cannot read the weights", subject=path, found=str(found).partition("\n")[0] or type(found).__name__)


def check_tensors(own: Mapping[str, Tensor], state: Mapping[str, Tensor], subject: object) -> None:
    """Check that tensors are compatible with those of the same name that they will replace.

    Args:
        own: Tensors of the network.
        state: Tensors of the checkpoint; names not in the network are ignored.
        subject: Subject of errors.

    Raises:
        CheckpointMismatchError: A tensor has a different shape or kind of dtype, is sparse, or is on the meta device.
        CheckpointCorruptError: A tensor contains NaN or infinity after conversion to the network's dtype.
    """
    wrong = []
    shared = [name for name in own if name in state]
    for name in shared:
        mine, theirs = own[name], state[name]
        if mine.shape != theirs.shape:
            wrong.append(f"{name}: network {tuple(mine.shape)}, checkpoint {tuple(theirs.shape)}")
        elif theirs.layout != torch.strided:
            wrong.append(f"{name}: {str(theirs.layout).removeprefix('torch.')}; only dense tensors are loaded")
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
        CheckpointCorruptError: A tensor contains NaN or infinity.
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
            hint="use an earlier checkpoint: this one was damaged, or saved after training diverged",
        )


def _listed(lines: list[str]) -> str:
    more = [f"… and {len(lines) - MENTIONED} more"] if len(lines) > MENTIONED else []
    return "\n  " + "\n  ".join([*lines[:MENTIONED], *more])
