"""Several networks as one, whose probabilities are the mean of theirs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ..bundle import ModelBundle
from ..errors import ConfigError
from ..heads import split_heads
from ..labels import Mode
from ..models.geometry import Geometry, Region
from .decide import Threshold, probabilities_of
from .images import in_channels_of
from .windows import geometry_of

TINY = 1e-12  # smallest mean probability whose logarithm is returned


class Ensemble(nn.Module):
    """Averages the probabilities of several networks, and other heads such as depth.

    It is used like a network: tiles, test-time augmentation and export work as for its members.

    Args:
        members: The networks.
        mode: "multilabel" if a pixel may have several labels.

    Shape:
        Images (N, C, H, W) → logits whose softmax (sigmoid for one channel, or if multilabel) is the mean probability.

    Raises:
        ConfigError: No networks; networks with other input channels, or with outputs of another size.

    Examples:
        >>> import torch, unetzoo
        >>> nets = [unetzoo.build("bnunet", classes=2, encoder_channels=(4, 8, 16)).eval() for _ in range(2)]
        >>> image = torch.rand(1, 3, 16, 16)
        >>> mean = (nets[0](image).softmax(1) + nets[1](image).softmax(1)) / 2
        >>> torch.allclose(Ensemble(nets)(image).softmax(1), mean, atol=1e-6)
        True
    """

    def __init__(self, members: Sequence[nn.Module], mode: Mode | None = None) -> None:
        super().__init__()
        if not members:
            raise ConfigError("an ensemble needs networks", found="none")
        self.members = nn.ModuleList(members)
        self.mode: Mode | None = mode
        self.geometry = _shared_geometry([geometry_of(net) for net in members])
        channels = {in_channels_of(net) for net in members}
        if len(channels) > 1:
            raise _differing("input channels", sorted(map(str, channels)))
        self.in_channels = channels.pop()
        alike = len({geometry_of(net) for net in members}) == 1
        self.decodes_regions = alike and all(getattr(net, "decodes_regions", False) for net in members)

    def forward(self, x: Tensor) -> Any:
        """Images → logits of the mean probabilities, in the members' type of output."""
        return self._mean(lambda net: net(x))

    def decode_region(self, x: Tensor, region: Region) -> Any:
        """A region of the output, decoding little more than that; see `RegionNetwork`."""
        return self._mean(lambda net: net.decode_region(x, region))

    def _mean(self, call: Callable[[Any], Any]) -> Any:
        sums: list[Tensor] = []
        rebuild: Callable[[Sequence[Tensor]], Any] = list
        for net in self.members:
            heads, rebuild = split_heads(call(net))
            mask, *others = heads.values()
            parts = [probabilities_of(net, mask, mode=self.mode), *others]
            if sums and [part.shape for part in sums] != [part.shape for part in parts]:
                raise _differing("outputs", [str([*part.shape]) for part in (sums[0], parts[0])])
            sums = [total + part for total, part in zip(sums, parts, strict=True)] if sums else parts
        mask, *others = (total / len(self.members) for total in sums)
        independent = self.mode == "multilabel" or mask.shape[1] == 1
        mask = mask.clamp(TINY, 1 - 1e-7).logit() if independent else mask.clamp_min(TINY).log()
        return rebuild([mask, *others])


def ensemble(bundles: Sequence[ModelBundle], threshold: Threshold = None) -> ModelBundle:
    """Join trained networks to an ensemble with their labels and preprocessing.

    Args:
        bundles: The networks, of the same classes, channels and preprocessing; one is returned unchanged.
        threshold: Probability thresholds; by default those of the networks.

    Raises:
        ConfigError: The networks differ in these.
    """
    first = bundles[0]
    if len(bundles) == 1 and threshold is None:
        return first
    for what, values in {
        "classes": [bundle.labels and bundle.labels.names for bundle in bundles],
        "preprocessing": [repr(bundle.preprocess) for bundle in bundles],
        "mode": [bundle.mode for bundle in bundles],
        "channels and range of image files": [bundle.pixels for bundle in bundles],
        "separation of objects": [bundle.objects for bundle in bundles],
        "cleanup": [bundle.cleaning for bundle in bundles],
        "thresholds": [bundle.threshold if threshold is None else threshold for bundle in bundles],
    }.items():
        if any(value != values[0] for value in values):
            other = next(value for value in values if value != values[0])
            raise _differing(what, [f"{values[0]} and {other}"])
    same = {bundle.precision for bundle in bundles}
    return first._replace(
        model=Ensemble([bundle.model for bundle in bundles], first.mode).eval(),
        threshold=first.threshold if threshold is None else threshold,  # pyright: ignore[reportArgumentType]
        name=f"{first.name}-x{len(bundles)}",
        precision=same.pop() if len(same) == 1 else None,
    )


def _shared_geometry(all_: Sequence[Geometry]) -> Geometry:
    """The geometry of networks that run on the same images: a grid and a context that suit each of them."""
    first = all_[0]
    if all(geometry == first for geometry in all_):
        return first
    if any(geometry.margin or geometry.out_stride > 1 or geometry.maximum for geometry in all_):
        raise _differing("sizes of outputs", [f"margins {[g.margin for g in all_]}"])
    stride = math.lcm(*(math.lcm(geometry.stride, geometry.step) for geometry in all_))
    halos = [geometry.halo for geometry in all_]
    fields = [geometry.receptive_field for geometry in all_]
    smallest = max(geometry.minimum for geometry in all_)
    shared = Geometry(
        minimum=-(-smallest // stride) * stride,
        stride=stride,
        step=stride,
        halo=None if None in halos else max(halo for halo in halos if halo is not None),
        receptive_field=None if None in fields else max(field for field in fields if field is not None),
    )
    while not all(geometry.accepts(shared.minimum) for geometry in all_):
        shared = replace(shared, minimum=shared.minimum + stride)
        if shared.minimum > smallest + stride:
            raise _differing("legal sizes", [f"{g.minimum} + k·{g.step}" for g in all_])
    return shared


def _differing(what: str, found: Sequence[str]) -> ConfigError:
    return ConfigError(f"the networks of an ensemble differ in {what}", found=", ".join(found),
                       hint="train all of them with the same recipe, or predict with one")  # fmt: skip
