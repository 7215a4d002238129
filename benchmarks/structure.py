"""Counts a network's operations on the meta device: nothing is computed, so any network and size takes a second."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

import unetzoo
from unetzoo.recompute import save_memory

NO_KERNEL = {"detach", "view", "slice", "expand", "t", "as_strided", "alias", "empty", "empty_like", "lift_fresh"}


@dataclass(frozen=True)
class Op:
    """One operation: its work, and the bytes of the tensors that it reads and writes."""

    name: str
    flops: int
    read: int
    written: int


class Meter(TorchDispatchMode):
    """Records every operation, and which of the tensors allocated since then are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: list[Op] = []
        self.peak = 0
        self._alive: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        known = {StorageWeakRef(t.untyped_storage()) for t in tensors((args, kwargs))}
        read = sum(nbytes(t) for t in tensors((args, kwargs)))
        result = func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        if name not in NO_KERNEL:
            count = flop_registry.get(func._overloadpacket)
            flops = count(*args, **kwargs, out_val=result) if count else 0
            self.ops.append(Op(name, int(flops), read, sum(nbytes(t) for t in tensors(result))))
        for tensor in tensors(result):
            storage = StorageWeakRef(tensor.untyped_storage())
            if storage not in known:
                self._alive.setdefault(storage, tensor.untyped_storage().nbytes())
        self.peak = max(self.peak, self.alive())
        return result

    def alive(self) -> int:
        """Bytes."""
        for storage in [storage for storage in self._alive if storage.expired()]:
            del self._alive[storage]
        return sum(self._alive.values())


@dataclass(frozen=True)
class Counted:
    """The structure of a network at one size.

    Args:
        parameters: Their number.
        forward: The operations of the forward pass.
        backward: Those of the backward pass, of the mean of all outputs.
        kept: Bytes that the forward pass leaves for the backward pass, the outputs included.
        peak: Most bytes allocated at once during both, gradients included; parameters and image not.
    """

    parameters: int
    forward: tuple[Op, ...]
    backward: tuple[Op, ...]
    kept: int
    peak: int

    @property
    def gflop(self) -> tuple[float, float]:
        """FLOPs of the forward pass, and of forward and backward; a multiply-add counts as two."""
        forward, backward = (sum(op.flops for op in ops) / 1e9 for ops in (self.forward, self.backward))
        return forward, forward + backward

    def kernels(self) -> dict[str, dict[str, int]]:
        """Operations by name."""
        return {
            "forward": dict(sorted(Counter(op.name for op in self.forward).items())),
            "backward": dict(sorted(Counter(op.name for op in self.backward).items())),
        }


@dataclass(frozen=True)
class Case:
    """A case to count: a built-in network, its configuration, the batch and the size."""

    name: str
    size: tuple[int, int]
    batch: int = 1
    config: Mapping[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    save_memory: bool = False

    def count(self) -> Counted:
        with torch.device("meta"):
            net = unetzoo.build(self.name, **self.config)
        return count(net, self.size, self.batch, self.dtype, save=self.save_memory)


def count(
    net: nn.Module, size: tuple[int, int], batch: int = 1, dtype: torch.dtype = torch.float32, save: bool = False
) -> Counted:
    """Forward and backward of a network in training mode, `save` with `save_memory`; it moves to the meta device."""
    net = net.to("meta", dtype).train()
    x = torch.zeros(batch, net.in_channels, *size, device="meta", dtype=dtype)  # pyright: ignore
    with Meter() as meter:
        with save_memory() if save else contextlib.nullcontext():
            outputs = tensors(net(x))
        kept, forward = meter.alive(), tuple(meter.ops)
        torch.autograd.backward([output.mean() for output in outputs])
    backward = tuple(meter.ops[len(forward) :])
    return Counted(sum(p.numel() for p in net.parameters()), forward, backward, kept, meter.peak)


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
