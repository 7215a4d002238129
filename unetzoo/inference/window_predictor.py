"""Run a network on batches of windows, with optional mixed precision and test-time augmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, PluginContractError
from ..heads import split_heads
from ..labels import LabelSpec
from ..models.geometry import Region
from ..models.regions import part
from ..precision import Precision, autocast, check_precision, resolve
from .merging import Heads, TTAMerger
from .tta import TTA
from .views import UPRIGHT, View
from .windows import geometry_of

MOST_CONTIGUOUS = 2**25  # pixels; oneDNN's float32 kernels address blocks of 16 channels by 32-bit offsets in bytes


class WindowPredictor:
    """Runs a network on batches of windows, in several views if test-time augmentation is enabled.

    Args:
        net: The network.
        tta: The views to average; None for the unchanged image only.
        labels: Label set whose left and right labels are swapped in mirrored views.
        uncertainty: Whether to append the disagreement between the views as additional heads.
        precision: Precision of the forward pass ("auto" for the fastest); outputs are then float32. None uses the
            dtype of the weights.

    Raises:
        ConfigError: `net` is not a network, the labels cannot be rotated, or the precision is unknown.
    """

    def __init__(
        self,
        net: nn.Module,
        tta: TTA | None = None,
        labels: LabelSpec | None = None,
        uncertainty: bool = False,
        precision: Precision | None = None,
    ) -> None:
        if not isinstance(net, nn.Module):
            raise ConfigError(
                "predict takes a network",
                found=repr(net),
                hint='build it first: unetzoo.build("unet") or from_pretrained',
            )
        self.net, self.geometry, self.tta, self.uncertainty = net, geometry_of(net), tta, uncertainty
        self.decodes_regions = getattr(net, "decodes_regions", False)
        self.views = tta.views() if tta else (UPRIGHT,)
        self.exact = all(view.exact for view in self.views)
        self.labels = labels if tta and labels and labels.swap_pairs else None
        if self.labels and self.labels.side == "viewer" and any(view.angle or view.turns % 2 for view in self.views):
            raise ConfigError(
                "turned images leave the viewer no left and right",
                subject="labels with the viewer's sides",
                found=f"rotations={tta.rotations}" if tta else None,
                hint="rotations=1 or 2 for these labels",
            )
        sample = next((p for p in chain(net.parameters(), net.buffers()) if p.is_floating_point()), None)
        self.device = None if sample is None else sample.device
        self.dtype = None if sample is None else sample.dtype
        self.precision: Precision = "fp32" if precision is None else check_precision(precision)
        self.on_gpu = self.device is not None and self.device.type == "cuda"
        self.on_cpu = self.device is None or self.device.type == "cpu"
        self.rebuild: Callable[[Sequence[Tensor]], Any] = list

    def predict(self, windows: Tensor, views: Sequence[View], region: Region | None = None) -> Heads:
        """Return the merged output for a batch of windows (N, C, h, w), or a region of it."""
        with torch.inference_mode():
            if self.on_gpu:  # copying pinned memory is asynchronous only without a dtype conversion
                windows = windows.to(device=self.device, non_blocking=True)
            windows = windows.to(device=self.device, dtype=self.dtype)
            if self.tta is None or (len(views) == 1 and not self.uncertainty):
                return self._forward_view(windows, views[0], region)
            merger = TTAMerger(self.tta, self.uncertainty)
            for view in views:
                merger.add(self._forward_view(windows, view, region))
            return merger.merged()

    def _forward_view(self, windows: Tensor, view: View, region: Region | None) -> Heads:
        heads = self._forward_region(view.turned(windows), region and view.turned_region(region, self._size(windows)))
        if self.labels:
            mask, *others = heads
            if mask.shape[1] != self.labels.classes:
                raise ConfigError(
                    "labels and network differ",
                    expected=f"{mask.shape[1]} classes",
                    found=self.labels.classes,
                    hint="give the label set that the network was trained with",
                )
            # rotation by an angle does not swap the subject's sides; labels with the viewer's sides never get one
            heads = (_exchanged(mask, self.labels.swapped_by(hflip=view.mirror, turns=view.turns)), *others)
        return tuple(view.turned_back(head) for head in heads)

    def _forward_region(self, windows: Tensor, region: Region | None) -> Heads:
        pixels = windows[0, 0].numel()
        precision = resolve(self.precision, self.net, windows.device, pixels)
        if precision == "fp32":
            if windows.device.type == "cpu" and pixels >= MOST_CONTIGUOUS:
                windows = windows.contiguous(memory_format=torch.channels_last)
            return self._run(windows, region)
        with autocast(windows.device, precision):
            heads = self._run(windows.contiguous(memory_format=torch.channels_last), region)
        return tuple(head.float() for head in heads)

    def _run(self, windows: Tensor, region: Region | None) -> Heads:
        if region is not None and self.decodes_regions:
            heads = self._split(self.net.decode_region(windows, region))  # pyright: ignore[reportCallIssue]
            self._check(windows, heads, (len(region[0]), len(region[1])))
            return heads
        heads = self._split(self.net(windows))
        self._check(windows, heads, self._size(windows))
        return heads if region is None else tuple(part(head, region) for head in heads)

    def _split(self, output: Any) -> Heads:
        heads, self.rebuild = split_heads(output)
        return tuple(heads.values())

    def _size(self, windows: Tensor) -> tuple[int, int]:
        """Return the height and width of the output for these windows."""
        return self.geometry.output(windows.shape[-2]), self.geometry.output(windows.shape[-1])

    def _check(self, window: Tensor, heads: Heads, expected: tuple[int, int]) -> None:
        for head in heads:
            if head.ndim != 4 or tuple(head.shape[-2:]) != expected:
                raise PluginContractError(
                    "the size of the network's output contradicts its geometry",
                    subject=type(self.net).__name__,
                    expected=f"(N, classes, {expected[0]}, {expected[1]}) for {tuple(window.shape)}",
                    found=tuple(head.shape),
                    hint="set `net.geometry` (unetzoo.models.Geometry) to how its output is aligned with the input",
                )


def _exchanged(mask: Tensor, names: tuple[int, ...]) -> Tensor:
    """Reorder channels without an index tensor, which would have to be copied to the device."""
    if names == tuple(range(len(names))):
        return mask
    channels = mask.unbind(1)
    return torch.stack([channels[name] for name in names], 1)
