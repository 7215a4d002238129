"""Rewrite pairs of layers: which layer feeds which is observed in a run, and changes of the output are undone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..heads import heads_of

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
HALF_TOLERANCE = 0.1


def heads(output: Any) -> list[Tensor]:
    """An output's heads, in double precision."""
    return [head.double() for head in heads_of(output).values()]


def difference(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The largest difference as a share of the largest output; NaN if anything is NaN."""
    shares = [(f - w).abs().max() / w.abs().max().clamp(min=1e-12) for f, w in zip(found, wanted, strict=True)]
    return float(torch.stack(shares).max())


Pair = tuple[str, str]


def fed_alone(net: nn.Module, x: Tensor) -> list[Pair]:
    """Pairs (feeder, fed) of layers: in a run, all inputs of one come from the other, which feeds no other layer."""
    outputs: dict[int, str] = {}
    alive: list[Tensor] = []  # an id is unique only while its tensor is alive
    feeders: dict[str, set[str | None]] = defaultdict(set)
    fed: dict[str, set[str]] = defaultdict(set)

    def before(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            feeder = outputs.get(id(inputs[0])) if inputs else None
            feeders[name].add(feeder)
            if feeder is not None:
                fed[feeder].add(name)

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            passed_on = any(output is given for given in inputs) and not getattr(layer, "inplace", False)
            if isinstance(output, Tensor) and not passed_on:
                alive.append(output)
                outputs[id(output)] = name

        return hook

    handles = []
    for name, layer in net.named_modules():
        if not any(layer.children()) and not isinstance(layer, nn.Identity):
            handles += [layer.register_forward_pre_hook(before(name)), layer.register_forward_hook(after(name))]
    try:
        net(x)
    finally:
        for handle in handles:
            handle.remove()
    return [
        (feeder, name)
        for name, sources in feeders.items()
        for feeder in sources
        if feeder is not None and len(sources) == 1 and fed[feeder] == {name}
    ]


def apply(
    net: nn.Module,
    x: Tensor,
    wanted: Sequence[Tensor],
    fits: Callable[[nn.Module, nn.Module], bool],
    change: Callable[[nn.Module, Pair], None],
) -> tuple[str, ...]:
    """Change every pair of layers that fits; if the output differs, pair by pair, undoing those that change it."""
    pairs = [pair for pair in fed_alone(net, x) if fits(*map(net.get_submodule, pair))]
    before = {name: net.get_submodule(name) for pair in pairs for name in pair}

    def unchanged() -> bool:
        return difference(heads(net(x)), wanted) <= TOLERANCE.get(x.dtype, HALF_TOLERANCE)

    for pair in pairs:
        change(net, pair)
    if unchanged():
        return tuple(fed for _, fed in pairs)
    for name, layer in before.items():
        replace_layer(net, name, layer)
    kept = []
    for pair in pairs:
        change(net, pair)
        if unchanged():
            kept.append(pair[1])
        else:
            for name in pair:
                replace_layer(net, name, before[name])
    return tuple(kept)


def replace_layer(net: nn.Module, name: str, layer: nn.Module) -> None:
    """Put a layer in the place of another."""
    parent, _, own = name.rpartition(".")
    setattr(net.get_submodule(parent), own, layer)


def foldable(feeder: nn.Module, fed: nn.Module) -> bool:
    """Whether a batch norm can go into the convolution before it."""
    return type(feeder) is nn.Conv2d and type(fed) is nn.BatchNorm2d and fed.running_mean is not None


def fold(net: nn.Module, pair: Pair) -> None:
    """Put a batch norm into the convolution before it."""
    conv, norm = map(net.get_submodule, pair)
    replace_layer(net, pair[0], fuse_conv_bn_eval(conv, norm))  # pyright: ignore[reportArgumentType] -- seen by foldable
    replace_layer(net, pair[1], nn.Identity())


def mergeable(feeder: nn.Module, fed: nn.Module) -> bool:
    """Whether these are a nearest ×2 up-sampling and a plain 3×3 convolution."""
    return (
        type(feeder) is nn.Upsample
        and feeder.mode == "nearest"
        and feeder.scale_factor in (2, (2, 2))
        and type(fed) is nn.Conv2d
        and (fed.kernel_size, fed.padding, fed.stride, fed.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))
        and (fed.groups, fed.padding_mode) == (1, "zeros")
    )


def merge(net: nn.Module, pair: Pair) -> None:
    """Make one transposed convolution of an up-sampling and the convolution after it."""
    conv = net.get_submodule(pair[1])
    assert isinstance(conv, nn.Conv2d)
    replace_layer(net, pair[0], nn.Identity())
    replace_layer(net, pair[1], transposed(conv))


def transposed(conv: nn.Conv2d) -> nn.ConvTranspose2d:
    """One 4×4 convolution of stride 2, transposed, for nearest ×2 up-sampling and a 3×3 convolution.

    Along one axis an even pixel of the fine map sees the coarse pixel before it by the first tap and its own by the
    other two, an odd one its own by the first two and the next by the last: taps t₀ t₁ t₂ become t₂, t₁+t₂, t₀+t₁, t₀.
    Sums are taken in double precision.

    Shape:
        Weight (out, in, 3, 3) → (in, out, 4, 4).

    Examples:
        >>> conv = nn.Conv2d(1, 1, 3, padding=1)
        >>> x = torch.rand(1, 1, 5, 7)
        >>> torch.allclose(transposed(conv)(x), conv(nn.functional.interpolate(x, scale_factor=2)), atol=1e-6)
        True
    """

    def summed(weight: Tensor, axis: int) -> Tensor:
        first, middle, last = weight.unbind(axis)
        return torch.stack([last, middle + last, first + middle, first], axis)

    merged = nn.ConvTranspose2d(
        conv.in_channels, conv.out_channels, 4, stride=2, padding=1, bias=conv.bias is not None,
        device=conv.weight.device, dtype=conv.weight.dtype,
    )  # fmt: skip
    with torch.no_grad():
        weight = summed(summed(conv.weight.double(), 2), 3).transpose(0, 1)
        merged.weight.copy_(weight)
        if conv.bias is not None and merged.bias is not None:
            merged.bias.copy_(conv.bias)
    return merged.requires_grad_(False).train(conv.training)
