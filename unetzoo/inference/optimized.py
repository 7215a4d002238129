"""`optimize`: the same answers with less work.

Which layer feeds which is observed in a trial run, not read off names, so it holds for any network; and each network
that comes out has been compared with the one that went in.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import ConfigError, PluginContractError
from .geometry import geometry_of
from .pictures import in_channels_of
from .tiling import evaluating, split_heads

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
HALF_TOLERANCE = 0.1
TRIAL = 64  # pixels a side of the trial picture, at least


@dataclass(frozen=True)
class Report:
    """What `optimize` did.

    Args:
        folded: Batch norms that went into the convolution before them.
        merged: 3×3 convolutions that became one transposed convolution with the nearest ×2 up-sampling before them.
        kept: Batch norms that stay: nothing that is right at the border takes them up.
        error: Largest difference of the answers, as a share of the largest answer.
        dtype: Precision of the weights.
        channels_last: Whether channels lie innermost in memory.
        compiled: Whether the network is compiled.
    """

    folded: tuple[str, ...]
    merged: tuple[str, ...]
    kept: tuple[str, ...]
    error: float
    dtype: torch.dtype
    channels_last: bool
    compiled: bool


class Optimized(nn.Module):
    """A network for inference alone; what it does not have itself is asked of the network inside.

    Args:
        net: The network.
        report: What was done to it.
    """

    def __init__(self, net: nn.Module, report: Report) -> None:
        super().__init__()
        self.net, self.report = net, report
        self._run: Callable[[Tensor], Any] = net
        self.eval()

    def forward(self, x: Tensor) -> Any:
        """The network's answer."""
        if self.report.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return self._run(x)

    def train(self, mode: bool = True) -> Optimized:
        """Evaluation mode only.

        Raises:
            ConfigError: Training is asked for.
        """
        if mode:
            raise ConfigError(
                "an optimized network cannot be trained", hint="train the original, then optimize it again"
            )
        return super().train(False)

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Refused: its tensors are no longer those of its class.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError("an optimized network cannot be saved", hint="save the original; optimize it after loading")

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("net"), name)


def optimize(
    net: nn.Module,
    *,
    example: Tensor | None = None,
    channels_last: bool = True,
    dtype: torch.dtype | None = None,
    compile: bool = False,
    tolerance: float | None = None,
) -> Optimized:
    """A faster copy of a network, for inference, whose answers have been compared with the original's.

    - A batch norm that a convolution alone feeds goes into that convolution's weights (exact in evaluation mode; also
      where both are used again and again, as in R2U-Net). A batch norm behind a non-linearity, as in DDU-Net, stays:
      its shift cannot pass a zero-padded convolution.
    - Nearest ×2 up-sampling and the 3×3 convolution behind it become one transposed convolution with the sums of the
      taps that meet the same pixel: 16 products in place of 36.
    - Channels lie innermost in memory.

    Whatever changes the answer of the trial run is taken back. The original is left as it is.

    Args:
        net: Any network that `predict` takes.
        example: An input (N, C, H, W) for the trial; random numbers by default.
        channels_last: Whether to move the channels innermost.
        dtype: Precision to convert to; bfloat16 on a GPU, else the network's own, by default.
        compile: Also compile it (`torch.compile`; with constants folded in, on a CPU). The first answer of each size
            takes tens of seconds.
        tolerance: Largest difference of the answers, as a share of the largest; 1e-4 in float32, 0.1 in half
            precision by default.

    Returns:
        The faster network; its `report` says what was done.

    Raises:
        ConfigError: No trial picture can be made for this network.
        PluginContractError: The answers differ, for instance by compilation.

    Examples:
        >>> import unetzoo
        >>> net = unetzoo.build("r2unet", encoder_channels=(4, 8, 16))
        >>> fast = unetzoo.optimize(net)
        >>> len(fast.report.folded), len(fast.report.merged), fast.report.kept
        (12, 2, ())
    """
    weight = next((p for p in net.parameters() if p.is_floating_point()), torch.empty(()))
    x = _trial(net, weight) if example is None else example.to(weight)
    with evaluating(net), torch.no_grad():
        wanted = _heads(net(x))
    fast = copy.deepcopy(net).eval().requires_grad_(False)
    with torch.no_grad():
        folded = _apply(fast, x, wanted, _foldable, _fold)
        merged = _apply(fast, x, wanted, _mergeable, _merge)
    dtype = dtype or (torch.bfloat16 if weight.device.type == "cuda" else weight.dtype)
    fast = fast.to(dtype=dtype)
    if channels_last:
        fast = fast.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] -- torch's stub lacks it
    norms = tuple(name for name, layer in fast.named_modules() if isinstance(layer, nn.BatchNorm2d))
    done = Optimized(fast, Report(folded, merged, norms, 0.0, dtype, channels_last, compile))
    if compile:
        on_cpu = weight.device.type == "cpu"
        done._run = torch.compile(fast, options={"freezing": True} if on_cpu else None)
    with torch.inference_mode():
        error = _difference(_heads(done(x.to(dtype))), wanted)
    limit = TOLERANCE.get(dtype, HALF_TOLERANCE) if tolerance is None else tolerance
    if not error <= limit:
        raise PluginContractError(
            "the optimized network answers something else",
            subject=type(net).__name__,
            expected=f"differences up to {limit:g} of the largest answer",
            found=f"{error:.3g}",
            hint="leave out compile, give another dtype, or a tolerance that suits you",
        )
    done.report = replace(done.report, error=error)
    return done


def _trial(net: nn.Module, weight: Tensor) -> Tensor:
    geometry, channels = geometry_of(net), in_channels_of(net)
    if channels is None:
        raise ConfigError("this network does not tell its channels", hint="give an example input (N, C, H, W)")
    size = geometry.fit(max(geometry.minimum, TRIAL))
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, channels, size, size, generator=generator).to(weight)


def _heads(answer: Any) -> list[Tensor]:
    return [head.double() for head in split_heads(answer)[0]]


def _difference(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """NaN where anything is."""
    shares = [(f - w).abs().max() / w.abs().max().clamp(min=1e-12) for f, w in zip(found, wanted, strict=True)]
    return float(torch.stack(shares).max())


# ------------------------------------------------------------------------------------------------ who feeds whom

Pair = tuple[str, str]


def _fed_alone(net: nn.Module, x: Tensor) -> list[Pair]:
    """(feeder, fed) for layers that, in a run, got every input from one layer, which fed no other layer."""
    outputs: dict[int, str] = {}
    alive: list[Tensor] = []  # an identity is only good while its tensor lives
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
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor) and not any(output is given for given in inputs):
                alive.append(output)
                outputs[id(output)] = name

        return hook

    handles = []
    for name, layer in net.named_modules():
        if not any(layer.children()):
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


def _apply(
    net: nn.Module,
    x: Tensor,
    wanted: Sequence[Tensor],
    fits: Callable[[nn.Module, nn.Module], bool],
    change: Callable[[nn.Module, Pair], None],
) -> tuple[str, ...]:
    """Change every pair of layers that fits; where the answer suffers, try one after the other and take back."""
    pairs = [pair for pair in _fed_alone(net, x) if fits(*map(net.get_submodule, pair))]
    before = {name: net.get_submodule(name) for pair in pairs for name in pair}

    def unchanged() -> bool:
        return _difference(_heads(net(x)), wanted) <= TOLERANCE.get(x.dtype, HALF_TOLERANCE)

    for pair in pairs:
        change(net, pair)
    if unchanged():
        return tuple(fed for _, fed in pairs)
    for name, layer in before.items():
        _replace(net, name, layer)
    kept = []
    for pair in pairs:
        change(net, pair)
        if unchanged():
            kept.append(pair[1])
        else:
            for name in pair:
                _replace(net, name, before[name])
    return tuple(kept)


def _replace(net: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(net.get_submodule(parent), own, layer)


def _foldable(feeder: nn.Module, fed: nn.Module) -> bool:
    return type(feeder) is nn.Conv2d and type(fed) is nn.BatchNorm2d and fed.running_mean is not None


def _fold(net: nn.Module, pair: Pair) -> None:
    conv, norm = map(net.get_submodule, pair)
    _replace(net, pair[0], fuse_conv_bn_eval(conv, norm))  # pyright: ignore[reportArgumentType] -- seen by _foldable
    _replace(net, pair[1], nn.Identity())


def _mergeable(feeder: nn.Module, fed: nn.Module) -> bool:
    return (
        type(feeder) is nn.Upsample
        and feeder.mode == "nearest"
        and feeder.scale_factor in (2, (2, 2))
        and type(fed) is nn.Conv2d
        and (fed.kernel_size, fed.padding, fed.stride, fed.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))
        and (fed.groups, fed.padding_mode) == (1, "zeros")
    )


def _merge(net: nn.Module, pair: Pair) -> None:
    conv = net.get_submodule(pair[1])
    assert isinstance(conv, nn.Conv2d)
    _replace(net, pair[0], nn.Identity())
    _replace(net, pair[1], transposed(conv))


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
