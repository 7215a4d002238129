"""Helpers for any `nn.Module`: its mode inside a block, its tensors' memory and hash, and out-of-memory errors."""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# As torch's CPU allocator, CUDA and its libraries, Triton and oneDNN word it.
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "ALLOC_FAILED",
    "CUDA error: out of memory",
    "[CUDA]: out of memory",
    "can't allocate memory",
    "could not allocate",
    "could not create a primitive",
)


@contextmanager
def module_mode(net: nn.Module, *, training: bool) -> Iterator[None]:
    """Training or evaluation mode inside the block; afterwards every submodule has its own mode again."""
    modes = [(module, module.training) for module in net.modules()]
    net.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def evaluation_mode(net: nn.Module):
    """Evaluation mode inside the block; afterwards every submodule has its own mode again.

    Examples:
        >>> net = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
        >>> with evaluation_mode(net):
        ...     [module.training for module in net]
        [False, False]
        >>> [module.training for module in net]
        [True, False]
    """
    return module_mode(net, training=False)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a device, or the host, has no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


class LiveMemory(TorchDispatchMode):
    """Tracks the tensors made inside the block.

    Attributes:
        now: Bytes of those that are alive.
        peak: The maximum of `now`.
        storages: The live ones, each with the names in `inside` when it was made.
        inside: Names of the modules that are running; maintained by the caller, if needed.

    Args:
        given: Tensors to track from the start, such as the input.
    """

    def __init__(self, *given: Tensor) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.storages: weakref.WeakKeyDictionary[Any, tuple[str, ...]] = weakref.WeakKeyDictionary()
        self.inside: list[str] = []
        for tensor in given:
            self._add(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count its outputs."""
        out = func(*args, **(kwargs or {}))
        known = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in known:
                self._add(tensor)
        return out

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self.storages:
            return
        self.storages[storage] = tuple(dict.fromkeys(self.inside))
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, size)

    def _drop(self, size: int) -> None:
        self.now -= size


def unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors on the CPU, none of which shares memory with another: what safetensors can hold.

    Tied weights are there under each of their names.

    Examples:
        >>> tied = torch.zeros(2)
        >>> copies = unshared({"a": tied, "b": tied})
        >>> [copy.data_ptr() == tied.data_ptr() for copy in copies.values()]
        [True, False]
    """
    seen: set[int] = set()
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()  # other memory formats are refused
        address = tensor.untyped_storage().data_ptr()
        plain[name] = tensor.clone() if address in seen else tensor
        seen.add(address)
    return plain


def fingerprint(net: nn.Module) -> str:
    """Hash everything that determines a network's output: structure, options and tensors."""
    config = json.dumps(getattr(net, "config", None), sort_keys=True, default=repr)
    files = [module.digest for module in net.modules() if hasattr(module, "digest")]  # of exported networks
    digest = hashlib.sha256(f"{type(net)} {net} {config} {getattr(net, 'geometry', None)} {files}".encode())
    for name, value in net.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
