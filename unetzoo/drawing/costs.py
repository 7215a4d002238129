"""`summary`: a network as a tree of its parts, with shapes, parameters, FLOPs and memory."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ..modules import module_mode
from .trace import named_outputs, run_blank, traced


@dataclass
class Part:
    """A module of a network.

    Args:
        name: Its attribute's name ("encoder").
        kind: Its class.
        output: Shapes of what it answered, without the batch.
        parameters: Their number, of all parts of it.
        flops: Floating-point operations for one image; a multiplication with an addition is two.
        training_bytes: What it made in a forward pass in training that lives on until the backward pass, its answer
            included, for one image.
        calls: How often it ran.
        parts: Its own parts.
    """

    name: str
    kind: str
    output: list[tuple[int, ...]] = field(default_factory=list)
    parameters: int = 0
    flops: int = 0
    training_bytes: int = 0
    calls: int = 0
    parts: list[Part] = field(default_factory=list)

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Part]]:
        """This part and all below it, with their depths."""
        yield depth, self
        for part in self.parts:
            yield from part.walk(depth + 1)


@dataclass
class Summary:
    """What a network costs.

    Args:
        input: Shape of the image, without the batch.
        root: The network and its parts.
        trainable: Number of parameters that want gradients.
        weight_bytes: Size of parameters and buffers.
        inference_bytes: The most that images and maps hold at one moment of a forward pass without gradients, for
            one image.
    """

    input: tuple[int, ...]
    root: Part
    trainable: int
    weight_bytes: int
    inference_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def summary(model: str | nn.Module, size: int | None = None, **config: Any) -> Summary:
    """A network's parts with shapes, parameters, FLOPs and memory, from a forward pass without memory or arithmetic.

    Bytes are those of tensors, as the operations of this torch make and keep them in float32; what an allocator rounds
    up and a convolution's workspace come on top. What is kept for training counts dropout and normalization in training
    mode, and frozen parameters as frozen.

    Args:
        model: A registry name, or a network.
        size: Height and width of the image; a legal size that is not below it is taken. By default 256, or 572 for
            a network whose answer is smaller than its image.
        config: Arguments to build a named network with. For one that is built `in_channels` alone, where its image's
            are not its first convolution's.

    Raises:
        ConfigError: A size that the network refuses, or arguments for a network that is built already.
        UnknownNameError: No such model.

    Examples:
        >>> import unetzoo
        >>> found = unetzoo.summary("bnunet", size=64, encoder_channels=[8, 16, 32])
        >>> found.root.output, [part.name for part in found.root.parts]
        ([(1, 64, 64)], ['encoder', 'decoder', 'segmentation_head'])
    """
    net, trace = traced(model, size, **config)
    shape = trace.shape
    with module_mode(net, training=False), torch.no_grad():
        _, forward = run_blank(net, shape, Forward)
    with module_mode(net, training=True), torch.enable_grad():  # two images: batch norm refuses one value a channel
        answer, watched = run_blank(net, (2, *shape[1:]), Kept)
        kept = watched.bytes()
        del answer
    weights = [*net.parameters(), *net.buffers()]
    return Summary(
        input=shape[1:],
        root=_part(net, type(net).__name__, "", forward, kept),
        trainable=sum(p.numel() for p in net.parameters() if p.requires_grad),
        weight_bytes=sum(t.numel() * t.element_size() for t in weights),
        inference_bytes=forward.memory.peak,
    )


def _part(net: nn.Module, name: str, path: str, forward: Forward, kept: dict[str, int]) -> Part:
    children = [(n, m, f"{path}.{n}" if path else n) for n, m in net.named_children()]
    parts = [_part(module, n, below, forward, kept) for n, module, below in children]
    ran = path in forward.calls  # a list of modules only holds them
    return Part(
        name=name,
        kind=type(net).__name__,
        output=forward.shapes.get(path, []),
        parameters=sum(p.numel() for p in net.parameters()),
        flops=forward.flops_of(path) if ran else sum(part.flops for part in parts),
        training_bytes=kept.get(path, 0) // 2 if ran else sum(part.training_bytes for part in parts),
        calls=forward.calls.get(path, 0),
        parts=[part for part in parts if part.calls or part.parameters],
    )


class Forward(ExitStack):
    """Watches a forward pass: shapes and calls of modules, FLOPs, living maps."""

    def __init__(self, net: nn.Module, image: Tensor) -> None:
        super().__init__()
        self.root = type(net).__name__
        self.paths = {module: path for path, module in net.named_modules()}
        self.shapes: dict[str, list[tuple[int, ...]]] = {}
        self.calls: dict[str, int] = {}
        self.counter = FlopCounterMode(display=False)
        self.memory = Living(image)

    def __enter__(self) -> Forward:
        """Begin to watch."""
        super().__enter__()
        for module in self.paths:
            self.callback(module.register_forward_hook(self._note).remove)
        self.enter_context(self.memory)
        self.enter_context(self.counter)
        return self

    def _note(self, module: nn.Module, args: Any, out: Any) -> None:
        path = self.paths[module]
        self.shapes[path] = [tuple(t.shape[1:]) for _, t in named_outputs(out)]
        self.calls[path] = self.calls.get(path, 0) + 1

    def flops_of(self, path: str) -> int:
        """Floating-point operations of a module, by its path."""
        counts = self.counter.get_flop_counts().get(f"{self.root}.{path}" if path else "Global", {})
        return int(sum(counts.values()))


class Living(TorchDispatchMode):
    """What of an image and the maps made of it is alive, and how much that was at most."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.maps: weakref.WeakKeyDictionary[Any, tuple[str, ...]] = weakref.WeakKeyDictionary()
        self.inside: list[str] = []
        self._add(image)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count what it made."""
        out = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in given:
                self._add(tensor)
        return out

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self.maps:
            return
        self.maps[storage] = tuple(dict.fromkeys(self.inside))
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, size)

    def _drop(self, size: int) -> None:
        self.now -= size


class Kept(ExitStack):
    """Watches a forward pass in training: which maps outlive it, and in which modules they were made."""

    def __init__(self, net: nn.Module, image: Tensor) -> None:
        super().__init__()
        self.paths = {module: path for path, module in net.named_modules()}
        self.memory = Living(image)

    def __enter__(self) -> Kept:
        """Begin to watch."""
        super().__enter__()
        for module in self.paths:
            self.callback(module.register_forward_pre_hook(self._go_in).remove)
            self.callback(module.register_forward_hook(self._come_out).remove)
        self.enter_context(self.memory)
        return self

    def _go_in(self, module: nn.Module, args: Any) -> None:
        self.memory.inside.append(self.paths[module])

    def _come_out(self, module: nn.Module, args: Any, out: Any) -> None:
        self.memory.inside.pop()

    def bytes(self) -> dict[str, int]:
        """What is alive, by the module's path; to be asked while the answer is."""
        found: dict[str, int] = {}
        for storage, paths in self.memory.maps.items():
            for path in paths:
                found[path] = found.get(path, 0) + storage.nbytes()
        return found
