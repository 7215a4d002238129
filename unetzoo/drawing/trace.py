"""Record every operation of one forward pass of any network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..errors import ConfigError, UnetzooError
from ..modules import module_mode
from ..registry import MODELS, keywords

Watcher = TypeVar("Watcher", bound=AbstractContextManager[Any])
SIZES = (256, 224, 384, 512)  # tried in this order by default, as vision transformers accept only one size


@dataclass(frozen=True)
class Operation:
    """One operation on tensors that depend on the image.

    Args:
        name: ATen name without the overload.
        inputs: Numbers of the input values that depend on the image, in order.
        outputs: Numbers of the output values.
        shapes: Shapes of the outputs.
        settings: Other arguments that are relevant for a figure.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trace:
    """A recorded forward pass.

    Args:
        shape: Shape of the image, which is value 0.
        operations: The operations in order.
        outputs: Outputs of the network, as name ("" if unnamed) and number of the value.
        shapes: Shapes of the outputs.
    """

    shape: tuple[int, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[tuple[str, int], ...]
    shapes: tuple[tuple[int, ...], ...]


class Recorder(TorchDispatchMode):
    """Records operations on an image and on everything computed from it."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.numbers = {id(image): 0}
        self.alive = [image]  # ids are unique only among living tensors
        self.count = 1
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and record it."""
        out = func(*args, **(kwargs or {}))
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        inputs = tuple(self.numbers[id(t)] for t in given if id(t) in self.numbers)
        if inputs:
            made = [t for t in (out if isinstance(out, list) else tree_leaves(out)[:1]) if isinstance(t, Tensor)]
            self._note(func, args, inputs, made)
        return out

    def _note(self, func: Any, args: Any, inputs: tuple[int, ...], made: list[Tensor]) -> None:
        outputs = tuple(range(self.count, self.count + len(made)))
        self.count += len(made)
        self.numbers.update({id(tensor): number for tensor, number in zip(made, outputs, strict=True)})
        self.alive += made
        name = func.overloadpacket.__name__.rstrip("_")
        shapes = tuple(tuple(tensor.shape) for tensor in made)
        self.operations.append(Operation(name, inputs, outputs, shapes, _settings(name, args)))


def _settings(name: str, args: Any) -> dict[str, Any]:
    if name == "convolution":
        weight, strides, dilations, transposed, groups = args[1], args[3], args[5], args[6], args[8]
        return {
            "weight": id(weight),
            "kernel": tuple(weight.shape[2:]),
            "stride": strides[0],
            "dilation": dilations[0],
            "transposed": transposed,
            "groups": groups,
        }
    if "max_pool2d" in name or name == "avg_pool2d":
        return {"kernel": tuple(args[1]), "stride": (args[2] if len(args) > 2 and args[2] else args[1])[0]}
    if name == "slice":
        return {"step": args[4] if len(args) > 4 else 1}
    if name in ("mean", "amax"):
        return {"axes": tuple(args[1]) if len(args) > 1 and args[1] is not None else ()}
    return {}


def trace(net: nn.Module, size: int | tuple[int, int], in_channels: int) -> Trace:
    """Run a network once, on the meta device if possible, and record every operation.

    Args:
        net: The network; its state is not changed.
        size: Height and width of the image, or one number for both.
        in_channels: Channels of the image.

    Raises:
        ConfigError: The network does not accept an image of that size.
    """
    height, width = (size, size) if isinstance(size, int) else size
    with module_mode(net, training=False), torch.no_grad():
        out, recorder = run_blank(net, (1, in_channels, height, width), lambda _, image: Recorder(image))
    outputs = [(name, t) for name, t in named_outputs(out) if id(t) in recorder.numbers]
    return Trace(
        shape=tuple(recorder.alive[0].shape),
        operations=tuple(recorder.operations),
        outputs=tuple((name, recorder.numbers[id(t)]) for name, t in outputs),
        shapes=tuple(tuple(t.shape) for _, t in outputs),
    )


def run_blank(
    net: nn.Module, shape: tuple[int, ...], watch: Callable[[nn.Module, Tensor], Watcher]
) -> tuple[Any, Watcher]:
    """Run a network on a blank image: on the meta device, or with real tensors if it needs their values.

    Args:
        net: The network.
        shape: Shape of the image, (N, C, H, W).
        watch: Called with the network and image that are actually run; returns the context to run them in.

    Returns:
        The output, and the context.

    Raises:
        ConfigError: The network rejects the image.
    """
    try:
        image, weights = torch.zeros(shape, device="meta"), weightless(net)
        with watch(net, image) as watcher:
            return functional_call(net, weights, (image,)), watcher
    except UnetzooError:
        raise
    except Exception:  # a network that reads tensor values cannot run on the meta device
        return _run_with_data(net, shape, watch)


def weightless(net: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers on the meta device, keeping `requires_grad`."""
    named = (*net.named_parameters(), *net.named_buffers())
    return {name: t.detach().to("meta").requires_grad_(t.requires_grad) for name, t in named}


def _run_with_data(
    net: nn.Module, shape: tuple[int, ...], watch: Callable[[nn.Module, Tensor], Watcher]
) -> tuple[Any, Watcher]:
    device = next((t.device for t in net.parameters()), torch.device("cpu"))
    if device.type == "meta":
        net, device = copy.deepcopy(net).to_empty(device="cpu"), torch.device("cpu")
        for tensor in (*net.parameters(), *net.buffers()):
            tensor.data.zero_()
    image = torch.zeros(shape, device=device)
    try:
        with watch(net, image) as watcher:
            return net(image), watcher
    except UnetzooError:
        raise
    except Exception as error:  # foreign networks may raise anything
        raise ConfigError(
            f"{type(net).__name__} cannot be run",
            subject=f"an image of {shape[1]}×{shape[2]}×{shape[3]}",
            found=f"{type(error).__name__}: {error}",
            hint="choose a size and number of channels that the network accepts",
        ) from error


def named_outputs(out: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield name and tensor of every output: of a tensor, or of nested tuples, NamedTuples and dicts."""
    if isinstance(out, Tensor):
        yield name, out
    elif isinstance(out, dict):
        for key, part in out.items():
            yield from named_outputs(part, str(key))
    elif isinstance(out, tuple | list):
        names = getattr(out, "_fields", [name] * len(out))
        for key, part in zip(names, out, strict=True):
            yield from named_outputs(part, key)


def traced(model: str | nn.Module, size: int | None = None, **config: Any) -> tuple[nn.Module, Trace]:
    """Build a network if it is given by name, and record its forward pass.

    Args:
        model: A registry name, or a network.
        size: Height and width of the image, rounded up to a legal size. By default 256, or 572 for a network whose
            output is smaller than its image (the U-Net paper's figure).
        config: Constructor arguments of a network given by name. For a network that is already built, only
            `in_channels`, for when the image's channels differ from those of the first convolution.

    Raises:
        ConfigError: The size is below 1 or rejected by the network, or constructor arguments are given for a network
            that is already built.
        UnknownNameError: There is no such model.
    """
    if size is not None and (not isinstance(size, int) or size < 1):
        raise ConfigError(
            "wrong size",
            expected="an integer ≥ 1",
            found=size if isinstance(size, int) else repr(size),
            hint="one number for height and width, e.g. size=256; draw returns the figure as text to write to a file",
        )
    if isinstance(model, nn.Module) and config.keys() - {"in_channels"}:
        raise ConfigError("a network that is already built takes no argument but in_channels", found=", ".join(config))
    net = model if isinstance(model, nn.Module) else _build(model, config)
    declared = None if isinstance(model, nn.Module) else keywords(MODELS.get(model)).get("in_channels")
    in_channels = config.get("in_channels") or _channels(net, declared)
    geometry = getattr(net, "geometry", None)
    sizes = [size] if size else [572, *SIZES] if getattr(geometry, "margin", 0) else SIZES
    for wanted in sizes:
        try:
            return net, trace(net, geometry.fit(wanted) if geometry else wanted, in_channels)
        except ConfigError:
            if wanted == sizes[-1]:
                raise
    raise AssertionError("unreachable")


def _build(name: str, config: dict[str, Any]) -> nn.Module:
    MODELS.get(name)
    try:
        with torch.device("meta"):
            return MODELS.build(name, **config)
    except (NotImplementedError, RuntimeError):  # a constructor that computes with its weights needs real tensors
        return MODELS.build(name, **config)


def _channels(net: nn.Module, declared: Any) -> int:
    known = getattr(net, "in_channels", None)
    if isinstance(known, int):
        return known
    if declared is not None and isinstance(declared.default, int):
        return declared.default
    first = next((layer for layer in net.modules() if isinstance(layer, nn.Conv2d)), None)
    return first.in_channels if first is not None else 3
