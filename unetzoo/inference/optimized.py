"""`optimize`: the same outputs with less work.

Which layer feeds which is observed in a trial run, so that any network can be optimized; every optimized network is
compared with the original.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import ConfigError, PluginContractError
from ..models.geometry import Region
from ..modules import evaluation_mode
from ..precision import resolve
from .images import in_channels_of
from .rewriting import HALF_TOLERANCE, TOLERANCE, apply, difference, fold, foldable, heads, merge, mergeable
from .windows import geometry_of

TRIAL = 64  # pixels per side of the trial image, at least
TYPICAL = 256**2  # pixels of an image, where no example says
LEAST_EQUAL_LABELS = 0.995


@dataclass(frozen=True)
class Report:
    """Changes made by `optimize`.

    Args:
        folded: Batch norms that were folded into the convolution before them.
        merged: 3×3 convolutions that were merged with the nearest ×2 up-sampling before them.
        kept: Batch norms that cannot be folded exactly, for instance because of the padding.
        error: Largest difference of the outputs, as a share of the largest output.
        equal_labels: Share of pixels of the example whose label is that of the original network.
        dtype: Precision of the weights.
        channels_last: Whether the memory format is channels-last.
        compiled: Whether the network is compiled.
    """

    folded: tuple[str, ...]
    merged: tuple[str, ...]
    kept: tuple[str, ...]
    error: float
    equal_labels: float
    dtype: torch.dtype
    channels_last: bool
    compiled: bool


class Optimized(nn.Module):
    """A network for inference only, which takes and returns the precision of its input.

    Other attributes are those of the network inside.

    Args:
        net: The network.
        report: The changes made to it.
    """

    def __init__(self, net: nn.Module, report: Report) -> None:
        super().__init__()
        self.net, self.report = net, report
        self._run: Callable[..., Any] = net
        self.eval()

    def forward(self, x: Tensor) -> Any:
        """The network's output."""
        return _converted(self._run(self._prepared(x)), x.dtype)

    def decode_region(self, x: Tensor, region: Region) -> Any:
        """A region of the output, if the network `decodes_regions`."""
        decoded = self.net.decode_region(self._prepared(x), region)  # pyright: ignore[reportCallIssue]
        return _converted(decoded, x.dtype)

    def _prepared(self, x: Tensor) -> Tensor:
        x = x.to(self.report.dtype)
        return x.contiguous(memory_format=torch.channels_last) if self.report.channels_last else x

    @property
    def decodes_regions(self) -> bool:
        """Whether `decode_region` works: not when compiled, since each size would be compiled anew."""
        return not self.report.compiled and getattr(self.net, "decodes_regions", False)

    def train(self, mode: bool = True) -> Optimized:
        """Evaluation mode only.

        Raises:
            ConfigError: `mode` is true.
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
    dtype: torch.dtype | Literal["auto"] | None = None,
    compile: bool = False,
    tolerance: float | None = None,
) -> Optimized:
    """Make a faster copy of a network for inference; its outputs are compared with the original's.

    - A batch norm that only a convolution feeds is folded into that convolution's weights (exact in evaluation mode;
      also if both are used repeatedly, as in R2U-Net). A batch norm after a non-linearity, as in DDU-Net, stays:
      its shift cannot pass a zero-padded convolution.
    - Nearest ×2 up-sampling and the 3×3 convolution after it become one transposed convolution with the sums of the
      taps that hit the same pixel: 16 products in place of 36.
    - The memory format is channels-last (`channels_last`).

    Any step that changes the output of the trial run is undone. The original is not modified.

    Args:
        net: Any network that `predict` takes.
        example: An input (N, C, H, W) for the trial; random numbers by default.
        channels_last: Whether to convert to the channels-last memory format.
        dtype: Precision to convert to; bfloat16 on a GPU, else the network's own, by default. "auto": bfloat16 where
            the device multiplies it natively and images of the example's size gain by it (see `unetzoo.precision`).
        compile: Also compile it (`torch.compile`; on a CPU with constants folded in). The first output of each size
            takes tens of seconds.
        tolerance: Largest difference of the outputs, as a share of the largest; 1e-4 in float32, 0.1 in half
            precision by default. With an example, half precision must also leave 99.5% of its labels as they were.

    Returns:
        The faster network; its `report` lists the changes.

    Raises:
        ConfigError: No trial image can be made for this network.
        PluginContractError: The outputs differ, for instance by compilation.

    Examples:
        >>> import unetzoo
        >>> net = unetzoo.build("r2unet", encoder_channels=(4, 8, 16))
        >>> fast = unetzoo.optimize(net)
        >>> len(fast.report.folded), len(fast.report.merged), fast.report.kept
        (12, 2, ())
    """
    weight = next((p for p in net.parameters() if p.is_floating_point()), torch.empty((), device="cpu"))
    x = _trial(net, weight) if example is None else example.to(weight)
    if dtype not in (None, "auto") and not isinstance(dtype, torch.dtype):
        raise ConfigError("wrong dtype", expected='a torch.dtype, or "auto"', found=repr(dtype))
    if not isinstance(dtype, torch.dtype):
        pixels = TYPICAL if example is None else x[0, 0].numel()
        automatic = dtype == "auto" and resolve("auto", net, weight.device, pixels) == "bf16"
        reduced = automatic or (dtype is None and weight.device.type == "cuda")
        dtype = torch.bfloat16 if reduced else weight.dtype
    with evaluation_mode(net), torch.no_grad(), full_float32():
        wanted = heads(net(x))
    fast = copy.deepcopy(net).eval().requires_grad_(False)
    with torch.no_grad(), full_float32():
        folded = apply(fast, x, wanted, foldable, fold)
        merged = apply(fast, x, wanted, mergeable, merge)
    fast = fast.to(dtype=dtype)
    if channels_last:
        fast = fast.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] -- torch's stub lacks it
    norms = tuple(name for name, layer in fast.named_modules() if isinstance(layer, nn.BatchNorm2d))
    done = Optimized(fast, Report(folded, merged, norms, 0.0, 1.0, dtype, channels_last, compile))
    if compile:
        on_cpu = weight.device.type == "cpu"
        done._run = torch.compile(fast, options={"freezing": True} if on_cpu else None)
    with torch.inference_mode(), full_float32():
        found = heads(done(x))
    error, equal = difference(found, wanted), _equal_labels(found[0], wanted[0])
    limit = TOLERANCE.get(dtype, HALF_TOLERANCE) if tolerance is None else tolerance
    if not error <= limit:
        raise PluginContractError(
            "the optimized network gives another output",
            subject=type(net).__name__,
            expected=f"differences up to {limit:g} of the largest output",
            found=f"{error:.3g}",
            hint="leave out compile, give another dtype, or a tolerance that suits you",
        )
    if example is not None and tolerance is None and dtype not in TOLERANCE and equal < LEAST_EQUAL_LABELS:
        raise PluginContractError(
            "the optimized network gives other labels",
            subject=type(net).__name__,
            expected=f"{LEAST_EQUAL_LABELS:.1%} of the example's labels as they were",
            found=f"{equal:.2%} in {dtype}",
            hint="dtype=torch.float32, or an example that the network was trained for",
        )
    done.report = replace(done.report, error=error, equal_labels=equal)
    return done


def _converted(output: Any, dtype: torch.dtype) -> Any:
    """Convert the tensors of an output, of whatever kind: a classification head is kept."""
    if isinstance(output, Tensor):
        return output.to(dtype)
    if isinstance(output, Mapping):
        return {name: _converted(part, dtype) for name, part in output.items()}
    parts = [_converted(part, dtype) for part in output]
    return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)


def _equal_labels(found: Tensor, wanted: Tensor) -> float:
    labels = [mask.argmax(1) if mask.shape[1] > 1 else mask > 0 for mask in (found, wanted)]
    return float((labels[0] == labels[1]).double().mean())


@contextmanager
def full_float32() -> Iterator[None]:
    """All digits of float32 inside: those that a GPU leaves out by default (TF32) would look like a changed output."""
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


def _trial(net: nn.Module, weight: Tensor) -> Tensor:
    geometry, channels = geometry_of(net), in_channels_of(net)
    if channels is None:
        raise ConfigError("the number of input channels is unknown", hint="give an example input (N, C, H, W)")
    size = geometry.fit(max(geometry.minimum, TRIAL))
    generator = torch.Generator("cpu").manual_seed(0)
    return torch.rand(1, channels, size, size, generator=generator, dtype=torch.float32, device="cpu").to(weight)
