"""Summarize a network as a tree of modules with shapes, parameters, FLOPs and memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..modules import LiveMemory, module_mode
from .trace import named_outputs, run_blank, traced


@dataclass
class Part:
    """A module of a network.

    Args:
        name: Attribute name ("encoder").
        kind: Class name.
        output: Shapes of the outputs, without the batch dimension.
        parameters: Number of parameters, including submodules.
        flops: Floating-point operations per image; a multiply-add counts as two.
        training_bytes: Memory per image allocated in a training forward pass and kept until the backward pass,
            including the output.
        calls: Number of calls.
        parts: Submodules.
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
        """Yield this part and all parts below it, with their depth."""
        yield depth, self
        for part in self.parts:
            yield from part.walk(depth + 1)


@dataclass
class Summary:
    """The costs of a network.

    Args:
        input: Shape of the image, without the batch dimension.
        root: The network and its parts.
        trainable: Number of parameters that require gradients.
        weight_bytes: Size of parameters and buffers.
        inference_bytes: Peak memory of one image and its feature maps in a forward pass without gradients.
    """

    input: tuple[int, ...]
    root: Part
    trainable: int
    weight_bytes: int
    inference_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON-serializable values."""
        return asdict(self)


def summary(model: str | nn.Module, size: int | None = None, **config: Any) -> Summary:
    """Summarize a network: shapes, parameters, FLOPs and memory of its parts, from a forward pass on the meta device.

    Sizes are those of the float32 tensors that the installed torch allocates, without allocator rounding and
    convolution workspaces. Memory kept for training is measured with dropout and normalization in training mode, and
    with frozen parameters frozen.

    Args:
        model: A registry name, or a network.
        size: Height and width of the image, rounded up to a legal size. By default 256, or 572 for a network whose
            output is smaller than its image.
        config: Constructor arguments of a network given by name. For a network that is already built, only
            `in_channels`, for when the image's channels differ from those of the first convolution.

    Raises:
        ConfigError: The network rejects the size, or constructor arguments are given for an existing network.
        UnknownNameError: There is no such model.

    Examples:
        >>> import unetzoo
        >>> found = unetzoo.summary("bnunet", size=64, encoder_channels=[8, 16, 32])
        >>> found.root.output, [part.name for part in found.root.parts]
        ([(1, 64, 64)], ['encoder', 'decoder', 'segmentation_head'])
    """
    net, trace = traced(model, size, **config)
    shape = trace.shape
    with module_mode(net, training=False), torch.no_grad():
        _, forward = run_blank(net, shape, ForwardRecorder)
    with module_mode(net, training=True), torch.enable_grad():  # two images: batch norm rejects one value per channel
        output, watched = run_blank(net, (2, *shape[1:]), SavedForBackward)
        kept = watched.bytes()
        del output
    weights = [*net.parameters(), *net.buffers()]
    return Summary(
        input=shape[1:],
        root=_part(net, type(net).__name__, "", forward, kept),
        trainable=sum(p.numel() for p in net.parameters() if p.requires_grad),
        weight_bytes=sum(t.numel() * t.element_size() for t in weights),
        inference_bytes=forward.memory.peak,
    )


def _part(net: nn.Module, name: str, path: str, forward: ForwardRecorder, kept: dict[str, int]) -> Part:
    children = [(n, m, f"{path}.{n}" if path else n) for n, m in net.named_children()]
    parts = [_part(module, n, below, forward, kept) for n, module, below in children]
    ran = path in forward.calls  # containers such as ModuleList are never called
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


class ForwardRecorder(ExitStack):
    """Records a forward pass: shapes and calls of modules, FLOPs, live memory."""

    def __init__(self, net: nn.Module, image: Tensor) -> None:
        super().__init__()
        self.root = type(net).__name__
        self.paths = {module: path for path, module in net.named_modules()}
        self.shapes: dict[str, list[tuple[int, ...]]] = {}
        self.calls: dict[str, int] = {}
        self.counter = FlopCounterMode(display=False)
        self.memory = LiveMemory(image)

    def __enter__(self) -> ForwardRecorder:
        """Start recording."""
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
        """Return the floating-point operations of a module, by its path."""
        counts = self.counter.get_flop_counts().get(f"{self.root}.{path}" if path else "Global", {})
        return int(sum(counts.values()))


class SavedForBackward(ExitStack):
    """Records which feature maps outlive a training forward pass, and in which modules they were made."""

    def __init__(self, net: nn.Module, image: Tensor) -> None:
        super().__init__()
        self.paths = {module: path for path, module in net.named_modules()}
        self.memory = LiveMemory(image)

    def __enter__(self) -> SavedForBackward:
        """Start recording."""
        super().__enter__()
        for module in self.paths:
            self.callback(module.register_forward_pre_hook(self._on_enter).remove)
            self.callback(module.register_forward_hook(self._on_exit).remove)
        self.enter_context(self.memory)
        return self

    def _on_enter(self, module: nn.Module, args: Any) -> None:
        self.memory.inside.append(self.paths[module])

    def _on_exit(self, module: nn.Module, args: Any, out: Any) -> None:
        self.memory.inside.pop()

    def bytes(self) -> dict[str, int]:
        """Return live bytes per module path. Must be called while the output is still referenced."""
        found: dict[str, int] = {}
        for storage, paths in self.memory.storages.items():
            for path in paths:
                found[path] = found.get(path, 0) + storage.nbytes()
        return found
