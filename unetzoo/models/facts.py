"""Facts on model cards, with functions that measure them: counts, sizes, and the reach of a network."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from ..heads import heads_of
from .card import Fact


def _named(what: str, note: str, config: dict[str, Any]) -> str:
    options = ", ".join(f"{key}={value!r}" for key, value in config.items())
    return f"{what}{f' ({note})' if note else ''}{f': {options}' if options else ''}"


def _mask(output: Any) -> Tensor:
    return next(iter(heads_of(output).values()))


def parameters(stated: int, note: str = "", /, **config: Any) -> Fact:
    """Number of parameters."""

    def measure(model: type) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in model(**config).parameters())

    return Fact(_named("parameters", note, config), stated, measure)


def layer_count(stated: int, **config: Any) -> Fact:
    """Number of convolutions and up-convolutions."""

    def measure(model: type) -> int:
        with torch.device("meta"):
            return sum(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in model(**config).modules())

    return Fact(_named("convolution layers", "", config), stated, measure)


def output_size(size: int, stated: int, **config: Any) -> Fact:
    """Output height and width for a square input."""

    def measure(model: type) -> int | tuple[int, ...]:
        with torch.device("meta"):
            net = model(**config).eval()
            shape = tuple(_mask(net(torch.zeros(1, net.in_channels, size, size))).shape[-2:])
        return shape[0] if shape[0] == shape[1] else shape

    return Fact(_named(f"output size for {size}", "", config), stated, measure)


def init_std(layer: str, stated: float, **config: Any) -> Fact:
    """Standard deviation of a layer's initial weights."""

    def measure(model: type) -> float:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return model(**config).get_submodule(layer).weight.std().item()

    return Fact(_named(f"initial standard deviation of {layer}", "", config), stated, measure)


def applications(layer: str, stated: int, **config: Any) -> Fact:
    """Number of times a layer runs in one forward pass."""

    def measure(model: type) -> int:
        net, calls = small(model, **config).eval(), 0

        def count(*_: Any) -> None:
            nonlocal calls
            calls += 1

        net.get_submodule(layer).register_forward_hook(count)
        net(torch.zeros(1, net.in_channels, *[net.geometry.fit(32)] * 2))
        return calls

    return Fact(_named(f"applications of {layer}", "", config), stated, measure)


def dilations(stated: tuple[int, ...], part: str, **config: Any) -> Fact:
    """Dilation of each block's 3×3 convolutions, in the order they run."""

    def measure(model: type) -> tuple[int, ...]:
        found = []
        for block in getattr(small(model, **config), part).blocks:
            (dilation,) = {m.dilation[0] for m in block.modules() if isinstance(m, nn.Conv2d)}
            found.append(dilation)
        return tuple(found)

    return Fact(_named(f"dilations of the {part}", "", config), stated, measure)


def halo(stated: int, **config: Any) -> Fact:
    """Context in pixels required for exact windows on the pooling grid."""

    def measure(model: type) -> int:
        return reach(small(model, **config), stated)[0]

    return Fact(_named("exact halo in pixels", "", config), stated, measure)


def receptive_field(stated: int, part: str = "output", **config: Any) -> Fact:
    """Input pixels along one axis that one value of the output (or of the coarsest map) depends on."""

    def measure(model: type) -> int:
        return reach(small(model, **config), stated, part)[1]

    return Fact(_named(f"receptive field of the {part}", "", config), stated, measure)


def small(model: type, **config: Any) -> Any:
    """Build the network with two channels per level and its default depth: cheap, with the same reach."""
    with torch.device("meta"):
        depth = len(model(**config).encoder.out_channels)
    config = {"encoder_channels": (2,) * depth} | config
    return model(**{key: value for key, value in config.items() if key in inspect.signature(model).parameters})


def reach(net: Any, guess: int, part: str = "output") -> tuple[int, int]:
    """Measure the halo and receptive field of a network in pixels, using gradients.

    All weights are made positive and max-pooling is replaced with averaging, so that no path is inactive or canceled:
    an input column contributes if and only if its gradient is nonzero.

    Args:
        net: A network whose `geometry` gives the pooling grid.
        guess: Approximate reach, which determines the width of the input used for the measurement.
        part: "output", or "encoder" for the coarsest map.
    """
    net = net.double().eval()
    for name, child in list(net.named_modules()):
        if isinstance(child, nn.MaxPool2d):
            owner = net.get_submodule(name.rpartition(".")[0]) if "." in name else net
            setattr(owner, name.rpartition(".")[2], nn.AvgPool2d(2))
        elif isinstance(child, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.constant_(child.weight, 1.0 / child.weight[0].numel())
            if child.bias is not None:
                nn.init.zeros_(child.bias)
    geometry = net.geometry
    stride = geometry.stride
    width = geometry.fit((2 * guess // stride + 8) * stride)
    strip = torch.rand(1, net.in_channels, geometry.fit(1), width, dtype=torch.float64).requires_grad_()
    if part == "encoder":
        output, scale, margin = net.encoder(strip)[-1], stride, 0
    else:
        output, scale, margin = _mask(net(strip)), 1, geometry.margin
    first = output.shape[-1] // 2 // stride * stride if scale == 1 else output.shape[-1] // 2
    start, fields = first * scale + margin, []
    for pixel in range(stride // scale):
        (gradient,) = torch.autograd.grad(output[..., first + pixel].sum(), strip, retain_graph=True)
        columns = gradient.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
        low, high = int(columns[0]), int(columns[-1])
        fields.append((low, high))
    core = geometry.output(width) % stride or stride  # remainder of a window's output size modulo the stride
    halo = max(start - fields[0][0], fields[core // scale - 1][1] - (start + core - 1))
    return halo, max(high - low + 1 for low, high in fields)
