"""A GPU that is not there: tensors know that they lie on it, hold no numbers, and nothing is computed.

Operations that mix devices fail as they would on a GPU, and those for which the host would wait are noted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

GPU = torch.device("cuda", 0)
COPIES = ("_to_copy", "to", "copy_")


class Waits(TorchDispatchMode):
    """Notes every operation for which the host would wait; pinned memory may travel without."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self._pinned: list[torch.Tensor] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        if name == "is_pinned":
            return self._is_pinned(args[0])
        if name == "_pin_memory":
            self._pinned.append(args[0].clone())
            return self._pinned[-1]
        try:
            result = func(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException):
            self.seen.append(name)
            raise
        if name in COPIES:
            self._note_copy(name, args, kwargs, result)
        return result

    def _note_copy(self, name, args, kwargs, result) -> None:
        source = args[1] if name == "copy_" else args[0]
        free = kwargs.get("non_blocking", len(args) > 2 and args[2])
        if {source.device.type, result.device.type} != {"cpu", "cuda"}:
            return
        if not free or (source.device.type == "cpu" and not self._is_pinned(source)):
            self.seen.append(f"{name} {source.device.type} → {result.device.type}, {tuple(source.shape)}")

    def _is_pinned(self, tensor: torch.Tensor) -> bool:
        return any(tensor is held for held in self._pinned)


@contextmanager
def fake_gpu() -> Iterator[Waits]:
    """The fake GPU; yields the list of operations that the host would wait for."""
    with FakeTensorMode(allow_non_fake_inputs=False), Waits() as waits:
        yield waits


@contextmanager
def autocast(dtype: torch.dtype | None) -> Iterator[None]:
    """`torch.autocast("cuda", dtype)`, which switches itself off where there is no GPU; nothing without a dtype."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", dtype is not None)
    torch.set_autocast_dtype("cuda", dtype or before[1])
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if not torch.autocast_decrement_nesting():
            torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])


def moved(net: nn.Module) -> nn.Module:
    """A network on the fake GPU: `nn.Module.to` would swap tensors, which these do not allow."""
    for module in net.modules():
        for name, held in module._parameters.items():
            if held is not None:
                module._parameters[name] = nn.Parameter(there(held), held.requires_grad)
        for name, held in module._buffers.items():
            if held is not None:
                module._buffers[name] = there(held)
    return net


def there(like: torch.Tensor) -> torch.Tensor:
    """A tensor of the same kind on the fake GPU."""
    return torch.empty(like.shape, dtype=like.dtype, device=GPU)
