"""`optimize`: the same answers with less work.

Which layer feeds which is observed in a trial run, not read off names, so it holds for any network; and each network
that comes out has been compared with the one that went in.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, PluginContractError
from ..models.geometry import Region
from ..modules import evaluation_mode
from .geometry import geometry_of
from .heap import keep_freed
from .images import in_channels_of
from .rewriting import (
    HALF_TOLERANCE,
    TOLERANCE,
    Pair,
    apply,
    difference,
    fold,
    foldable,
    heads,
    merge,
    mergeable,
    replace_layer,
)  # fmt: skip
from .winograd import FEWEST, TILE, WinogradConv, fits

TRIAL = 64  # pixels a side of the trial image, at least
SMALLEST_TILED = math.isqrt(FEWEST) * TILE  # pixels a side of a map that is computed by tiles


@dataclass(frozen=True)
class Report:
    """What `optimize` did.

    Args:
        folded: Batch norms that went into the convolution before them.
        merged: 3×3 convolutions that became one transposed convolution with the nearest ×2 up-sampling before them.
        tiled: 3×3 convolutions computed by tiles.
        kept: Batch norms that stay: nothing that is right at the border takes them up.
        error: Largest difference of the answers, as a share of the largest answer.
        dtype: Precision of the weights.
        channels_last: Whether channels lie innermost in memory.
        compiled: Whether the network is compiled.
    """

    folded: tuple[str, ...]
    merged: tuple[str, ...]
    tiled: tuple[str, ...]
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
        self._run: Callable[..., Any] = net
        self.eval()

    def forward(self, x: Tensor, region: Region | None = None) -> Any:
        """The network's answer; in a region of it, where the network `decodes_regions`."""
        if self.report.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return self._run(x) if region is None else self._run(x, region)

    @property
    def decodes_regions(self) -> bool:
        """Whether `forward` can be asked for a region: not when compiled, which would be done anew for each size."""
        return not self.report.compiled and getattr(self.net, "decodes_regions", False)

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
    winograd: bool | None = None,
    tolerance: float | None = None,
    keep_memory: bool = True,
) -> Optimized:
    """A faster copy of a network, for inference, whose answers have been compared with the original's.

    - A batch norm that a convolution alone feeds goes into that convolution's weights (exact in evaluation mode; also
      where both are used again and again, as in R2U-Net). A batch norm behind a non-linearity, as in DDU-Net, stays:
      its shift cannot pass a zero-padded convolution.
    - Nearest ×2 up-sampling and the 3×3 convolution behind it become one transposed convolution with the sums of the
      taps that meet the same pixel: 16 products in place of 36.
    - On a processor, in float32, 3×3 convolutions of 64 channels and more are computed by tiles, with a quarter of the
      products (`WinogradConv`), for four times their weights' memory beside them.
    - Channels lie innermost in memory.
    - On a processor, memory that one answer has freed (up to 1 GB) is kept for the next as long as the network lives,
      in place of being handed back and cleared anew; the whole process is asked so (glibc's `mallopt`).

    Whatever changes the answer of the trial run is taken back. The original is left as it is.

    Args:
        net: Any network that `predict` takes.
        example: An input (N, C, H, W) for the trial; random numbers by default.
        channels_last: Whether to move the channels innermost.
        dtype: Precision to convert to; bfloat16 on a GPU, else the network's own, by default.
        compile: Also compile it (`torch.compile`; with constants folded in, on a CPU). The first answer of each size
            takes tens of seconds.
        winograd: Whether to compute wide 3×3 convolutions by tiles: on a processor, in float32 and not compiled, by
            default.
        tolerance: Largest difference of the answers, as a share of the largest; 1e-4 in float32, 0.1 in half
            precision by default.
        keep_memory: Whether to keep freed memory on a processor.

    Returns:
        The faster network; its `report` says what was done.

    Raises:
        ConfigError: No trial image can be made for this network.
        PluginContractError: The answers differ, for instance by compilation.

    Examples:
        >>> import unetzoo
        >>> net = unetzoo.build("r2unet", encoder_channels=(4, 8, 16))
        >>> fast = unetzoo.optimize(net)
        >>> len(fast.report.folded), len(fast.report.merged), fast.report.kept
        (12, 2, ())
    """
    weight = next((p for p in net.parameters() if p.is_floating_point()), torch.empty(()))
    dtype = dtype or (torch.bfloat16 if weight.device.type == "cuda" else weight.dtype)
    by_tiles = _by_tiles(weight, dtype, channels_last, compile, winograd)
    x = _trial(net, weight, TRIAL) if example is None else example.to(weight)
    with evaluation_mode(net), torch.no_grad(), full_float32():
        wanted = heads(net(x))
    fast = copy.deepcopy(net).eval().requires_grad_(False)
    with torch.no_grad(), full_float32():
        folded = apply(fast, x, wanted, foldable, fold)
        tiled = _tile(fast, x, wanted) if by_tiles else ()
        merged = apply(fast, x, wanted, mergeable, merge)
    fast = fast.to(dtype=dtype)
    if channels_last:
        fast = fast.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] -- torch's stub lacks it
    norms = tuple(name for name, layer in fast.named_modules() if isinstance(layer, nn.BatchNorm2d))
    done = Optimized(fast, Report(folded, merged, tiled, norms, 0.0, dtype, channels_last, compile))
    if compile:
        on_cpu = weight.device.type == "cpu"
        done._run = torch.compile(fast, options={"freezing": True} if on_cpu else None)
    if tiled and example is None:  # an image of so many tiles that all of them work
        x = _trial(net, weight, SMALLEST_TILED * geometry_of(net).stride)
        with evaluation_mode(net), torch.no_grad():
            wanted = heads(net(x))
    with torch.inference_mode(), full_float32():
        error = difference(heads(done(x.to(dtype))), wanted)
    limit = TOLERANCE.get(dtype, HALF_TOLERANCE) if tolerance is None else tolerance
    if not error <= limit and tiled and winograd is None:
        return optimize(net, example=example, channels_last=channels_last, dtype=dtype, tolerance=tolerance,
                        winograd=False, keep_memory=keep_memory)  # fmt: skip
    if not error <= limit:
        raise PluginContractError(
            "the optimized network answers something else",
            subject=type(net).__name__,
            expected=f"differences up to {limit:g} of the largest answer",
            found=f"{error:.3g}",
            hint="leave out compile, give another dtype, or a tolerance that suits you",
        )
    done.report = replace(done.report, error=error)
    if keep_memory and weight.device.type == "cpu":
        keep_freed(done)
    return done


@contextmanager
def full_float32() -> Iterator[None]:
    """All digits of float32 inside: those that a GPU leaves out by default (TF32) would pass for a changed answer."""
    cudnn: Any = torch.backends.cudnn  # torch's stubs lack its newer switches
    held, allowed = (cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision), None
    with suppress(RuntimeError):  # the older switch cannot be read in some states of the newer ones
        allowed = cudnn.allow_tf32
    try:
        cudnn.allow_tf32 = False
        cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = "ieee"
        yield
    finally:
        cudnn.allow_tf32 = bool(allowed)
        cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision = held


def _trial(net: nn.Module, weight: Tensor, size: int) -> Tensor:
    geometry, channels = geometry_of(net), in_channels_of(net)
    if channels is None:
        raise ConfigError("this network does not tell its channels", hint="give an example input (N, C, H, W)")
    size = geometry.fit(max(geometry.minimum, size))
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, channels, size, size, generator=generator).to(weight)


def _by_tiles(weight: Tensor, dtype: torch.dtype, channels_last: bool, compile: bool, winograd: bool | None) -> bool:
    """Whether wide convolutions are computed by tiles."""
    able = (weight.device.type, weight.dtype, dtype) == ("cpu", torch.float32, torch.float32) and not compile
    if winograd and not able:
        raise ConfigError(
            "this network cannot be computed by tiles",
            expected="float32 on a CPU, not compiled",
            found=f"{weight.dtype} → {dtype} on {weight.device.type}{', compiled' * compile}",
            hint="leave out winograd",
        )
    return (able and channels_last) if winograd is None else winograd


def _tile(net: nn.Module, x: Tensor, wanted: Sequence[Tensor]) -> tuple[str, ...]:
    """Compute every convolution by tiles that gains from it, with the ReLU that it alone feeds."""

    def change(net: nn.Module, pair: Pair) -> None:
        conv = net.get_submodule(pair[0])
        assert isinstance(conv, nn.Conv2d)
        replace_layer(net, pair[0], WinogradConv(conv, relu=True))
        replace_layer(net, pair[1], nn.Identity())

    apply(net, x, wanted, lambda feeder, fed: fits(feeder) and type(fed) is nn.ReLU, change)
    for name, layer in list(net.named_modules()):
        if fits(layer):
            replace_layer(net, name, WinogradConv(layer))  # pyright: ignore[reportArgumentType] -- seen by fits
    return tuple(name for name, layer in net.named_modules() if isinstance(layer, WinogradConv))
