"""Train with less memory: keep the outputs of convolutions, and recompute cheap operations in the backward pass.

This is the checkpointing of Chen, Xu, Zhang and Guestrin, *Training Deep Nets with Sublinear Memory Cost*
(arXiv:1604.06174), restricted to cheap operations. Recomputing batch norm and activations was proposed by Rota Bulò,
Porzi and Kontschieder, *In-Place Activated BatchNorm* (arXiv:1712.02616). Nothing is approximated: each map is
recomputed by the same operation from the same inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

CHEAP = {
    "native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "batch_norm_elemt",
    "relu", "leaky_relu", "elu", "gelu", "silu", "mish", "hardtanh", "_prelu_kernel", "tanh",
    "add", "cat", "constant_pad_nd", "clone", "_to_copy",
    "max_pool2d_with_indices", "avg_pool2d", "upsample_nearest2d", "upsample_bilinear2d",
}  # fmt: skip
ONLY_BEHIND_CHEAP = {"clone", "_to_copy"}  # recomputing them from a kept map would keep two maps
MAPS = {"native_batch_norm": 1, "cudnn_batch_norm": 1, "miopen_batch_norm": 1}  # maps; other results are small and kept
LONGEST = 8  # maximum operations between a kept and a recomputed map; longer chains would be rerun repeatedly
SOON = 8  # a result is cached while one of the next requests needs it: neighboring operations share maps


@contextmanager
def save_memory() -> Iterator[None]:
    """Context manager in which autograd does not save outputs of batch norm, activation, pooling and other cheap ops.

    Sums, concatenation and up-sampling are included. It applies to the forward pass of any network in the current
    thread. Outputs and gradients are identical to those of the ordinary pass if the operations are deterministic;
    running statistics are updated once. It has no effect without gradients, in a compiled network (the compiler makes
    its own choice), and inside the transforms of `torch.func` (which do not allow hooks on saved tensors).

    Examples:
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
        >>> with save_memory():
        ...     loss = net(torch.rand(2, 3, 8, 8)).sum()
        >>> loss.backward()
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled() or not _hooks_are_allowed():
        yield
        return
    tape = _Tape()
    try:
        with torch.autograd.graph.saved_tensors_hooks(tape.pack, tape.unpack), tape:
            yield
    finally:
        tape.close()


def _hooks_are_allowed() -> bool:
    return torch._C._autograd._saved_tensors_hooks_is_enabled()  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(slots=True)
class _Kept:
    """A map that stays in memory."""

    tensor: Tensor
    version: int

    def value(self) -> Tensor:
        if self.tensor._version != self.version:
            raise RuntimeError(
                "a tensor needed for the gradient was modified by an inplace operation after the forward pass"
            )
        return self.tensor


@dataclass(slots=True, eq=False)
class _Step:
    """An operation that can be rerun.

    Args:
        run: The operation.
        args: Its arguments, with maps replaced by handles.
        kwargs: Its keyword arguments, with maps replaced by handles.
        depth: Number of operations from maps that are kept.
        at_hand: Cached results of all steps.
        overwrites: Whether it modifies its first argument in place.
        saved_at: Positions of its results in the order in which autograd saved maps.
    """

    run: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    depth: int
    at_hand: dict[_Step, Any]
    overwrites: bool = False
    saved_at: list[int] = field(default_factory=list)

    def result(self) -> Any:
        if self not in self.at_hand:
            self.at_hand[self] = self.again()
        return self.at_hand[self]

    def again(self) -> Any:
        """Compute a new result, which the caller may modify in place."""
        first = (self.args[0].of(self.args[0].step.again()),) if self.overwrites else ()
        args, kwargs = tree_map_only((_Kept, _Made), lambda map: map.value(), (self.args[len(first) :], self.kwargs))
        return self.run(*first, *args, **kwargs)

    def pin(self) -> None:
        """Keep the result, because one of its inputs is about to be overwritten."""
        self.run = partial(tree_map_only, Tensor, Tensor.clone, self.again())
        self.args, self.kwargs, self.overwrites = (), {}, False


Placement = tuple[tuple[int, ...], tuple[int, ...], int]


@dataclass(slots=True)
class _Made:
    """A map produced by a step: one of its results, or a view of it."""

    step: _Step
    index: int | None
    placement: Placement
    view: Placement | None = None

    def value(self) -> Tensor:
        return self.of(self.step.result())

    def of(self, result: Any) -> Tensor:
        tensor = result if self.index is None else result[self.index]
        return tensor if self.view is None else tensor.as_strided(*self.view)


class _Tape(TorchDispatchMode):
    """Records below autograd how maps are computed; tensors saved by autograd are passed to `pack`."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[StorageWeakRef, _Made] = {}
        self.readers: dict[StorageWeakRef, list[_Step]] = {}
        self.at_hand: dict[_Step, Any] = {}
        self.saved = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        schema = func._schema
        written = [tensor for tensor, argument in zip(args, schema.arguments, strict=False)
                   if argument.alias_info is not None and argument.alias_info.is_write]  # fmt: skip
        name = schema.name.removeprefix("aten::")
        inplace = len(written) == 1 and written[0] is args[0] and name.endswith("_")
        step = None
        if name.removesuffix("_" * inplace) in CHEAP and (inplace or not written):
            step = self.step(func, name, inplace, args, kwargs)
        for tensor in tree_leaves(written):
            for reader in self.readers.pop(_storage(tensor), ()):
                reader.pin()
        result = func(*args, **kwargs)
        for tensor in tree_leaves(written):
            self.made.pop(_storage(tensor), None)
        if step is not None:
            maps = (result,) if isinstance(result, Tensor) else result
            for index, tensor in enumerate(maps[: MAPS.get(name)]):
                place = None if isinstance(result, Tensor) else index
                self.made[_storage(tensor)] = _Made(step, place, _placement(tensor))
        return result

    def step(self, func: Any, name: str, inplace: bool, args: Any, kwargs: Any) -> _Step | None:
        """Return a step that reruns an operation, or None if this is not worthwhile."""
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(tensor.requires_grad for tensor in tensors):
            return None  # autograd will not save anything
        args, kwargs = tree_map_only(Tensor, self.handle, (_without_statistics(func, args), kwargs))
        made = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, _Made)]
        depth = 1 + max((leaf.step.depth for leaf in made), default=0)
        if depth > LONGEST or (name in ONLY_BEHIND_CHEAP and not made):
            return None
        if inplace and not (isinstance(args[0], _Made) and args[0].view is None):
            return None
        step = _Step(func, args, kwargs, depth, self.at_hand, inplace)
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, _Kept):
                self.readers.setdefault(_storage(leaf.tensor), []).append(step)
        return step

    def handle(self, tensor: Tensor) -> _Kept | _Made:
        """Return a handle that holds the tensor or recomputes it."""
        made = self.made.get(_storage(tensor))
        if made is None:
            return _Kept(tensor, tensor._version)
        placement = _placement(tensor)
        return made if placement == made.placement else _Made(made.step, made.index, made.placement, placement)

    def pack(self, tensor: Tensor) -> tuple[int, _Kept | _Made]:
        handle = self.handle(tensor)
        self.saved += 1
        if isinstance(handle, _Made):
            handle.step.saved_at.append(self.saved)
        return self.saved, handle

    def unpack(self, packed: tuple[int, _Kept | _Made]) -> Tensor:
        place, handle = packed
        with torch.no_grad():
            value = handle.value()
        if isinstance(handle, _Made) and place in handle.step.saved_at:
            handle.step.saved_at.remove(place)
        for step in [
            step for step in self.at_hand if not any(abs(place - position) <= SOON for position in step.saved_at)
        ]:
            del self.at_hand[step]
        return value

    def close(self) -> None:
        """Drop all references to maps other than those of saved tensors."""
        self.made.clear()
        self.readers.clear()


def _storage(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())


def _placement(tensor: Tensor) -> Placement:
    return tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset())


def _without_statistics(func: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Remove the running statistics from batch norm's arguments in training, so they are not updated twice."""
    names = [argument.name for argument in func._schema.arguments]
    if "running_mean" not in names or not args[names.index("training")]:
        return args
    return tuple(None if name.startswith("running_") else value for name, value in zip(names, args, strict=False))
