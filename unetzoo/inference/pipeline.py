"""Preprocessing, network and decision as a single module, used by `export`."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..bundle import ModelBundle, Preprocess
from ..errors import ConfigError
from ..heads import heads_of
from ..labels import LabelSpec
from ..modules import evaluation_mode
from .decide import Decision, Threshold, labels_for, probabilities_of
from .images import in_channels_of
from .padding import crop, pad_mirrored
from .windows import canvas_length, geometry_of

FLOATS, BYTES = "float32", "uint8"
TRIAL = (131, 165)  # arbitrary image size for trial runs and tracing


class Shape(NamedTuple):
    """Names of a network's heads, and number of channels of the first."""

    heads: tuple[str, ...]
    channels: int


class Pipeline(nn.Module):
    """Preprocessing, network and decision for a batch of images; computes the same output as `Predictor`.

    Args:
        trained: The network with its labels and preprocessing; it stays on its device.
        threshold: Overrides the bundle's threshold.
        dtype: Dtype of the images: "uint8", or "float32" for values in 0…1; by default "float32" if the network was
            trained with a range of values.
        size: (height, width) of an image that the network accepts.

    Shape:
        (N, H, W, C) → `labels` uint8 (N, H, W), or (N, K, H, W) if multilabel; `probabilities` float32
        (N, classes, H, W); and any other head (N, C, H, W).

    Raises:
        ConfigError: The preprocessing is unknown or cannot be exported, or the labels do not match the network.
    """

    def __init__(
        self,
        trained: ModelBundle,
        *,
        threshold: Threshold = None,
        dtype: str | None = None,
        size: tuple[int, int] = TRIAL,
    ) -> None:
        super().__init__()
        preprocess = trained.known().preprocess
        if not isinstance(preprocess, Preprocess):
            raise ConfigError(
                "the preprocessing of images cannot be exported",
                expected="resizing and scaling (unetzoo.inference.Preprocess)",
                found="albumentations, or a function",
                hint="take it out of [transform] and [transform.val], or give preprocess=Preprocess(…)",
            )
        self.pixels, self.objects, self.cleaning = trained.pixels, trained.objects, trained.cleaning
        self.rounds = trained.pixels is None or trained.pixels.range is None  # whether images have 8-bit levels
        dtype = dtype or (BYTES if self.rounds else FLOATS)
        if dtype == BYTES and not self.rounds:
            raise ConfigError("the network was trained with a range of values", expected=f'dtype="{FLOATS}"',
                              found=repr(dtype), hint="map the values to 0…1 as in training")  # fmt: skip
        if dtype not in (BYTES, FLOATS):
            raise ConfigError("wrong kind of input", expected=f'"{BYTES}" or "{FLOATS}"', found=repr(dtype))
        self.net, self.preprocess, self.dtype = trained.model.eval(), preprocess, dtype
        self.geometry = geometry_of(self.net)
        self.in_channels = in_channels_of(self.net) or 3
        self.shape = self._tried(self.preprocess.size or size)
        self.labels: LabelSpec = labels_for(trained.labels, self.shape.channels, mode=trained.mode)
        chosen = trained.threshold if threshold is None else threshold
        self.decision = Decision.of(chosen, self.labels, self.shape.channels, trained.mode)
        self.resizes_by_products = False  # for runtimes that cannot resize with antialiasing
        self.shows_levels = False  # whether to append the resized image to the outputs, for verification

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return ("labels", "probabilities", *self.shape.heads[1:], *(["levels"] if self.shows_levels else []))

    @property
    def torch_dtype(self) -> torch.dtype:
        """Dtype of the images."""
        return torch.uint8 if self.dtype == BYTES else torch.float32

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Images (N, H, W, C) → the outputs listed in `names`."""
        x, levels = self.prepared(image)
        outputs = self.finished(image, *heads_of(self.net(x)).values())
        return (*outputs, levels) if self.shows_levels else outputs

    def prepared(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, H, W, C) → the network's input (N, C, h, w), and the resized images in 0…255."""
        levels = image.permute(0, 3, 1, 2).float()
        levels = levels * 255 if self.dtype == FLOATS else levels
        if self.resizes_by_products and self.preprocess.size is not None:
            levels = _resized_by_products(levels, self.preprocess.size)
            levels = levels.round() if self.rounds else levels
        else:
            levels = self.preprocess.resized(levels, rounds=self.rounds)
        return pad_mirrored(self.preprocess.scaled(levels.clone()), self.geometry), levels

    def finished(self, image: Tensor, *heads: Tensor) -> tuple[Tensor, ...]:
        """The network's heads for the input of `prepared` → labels, probabilities and any other head."""
        height, width = image.shape[1], image.shape[2]
        size = self.preprocess.size or (height, width)
        mask, *others = (crop(head, self.geometry, *size).float() for head in heads)
        if self.preprocess.size is not None or self.geometry.out_stride > 1:
            mask, *others = (_enlarged(head, height, width) for head in (mask, *others))
        probabilities = probabilities_of(self.net, mask, mode=self.decision.mode)
        return self.decision(probabilities), probabilities, *others

    def _tried(self, size: tuple[int, int]) -> Shape:
        """Determine heads and channels in a trial run."""
        like = next(self.net.parameters(), torch.zeros((), dtype=torch.float32, device="cpu"))
        sides = [canvas_length(self.geometry, n) for n in size]
        with torch.no_grad(), evaluation_mode(self.net):
            try:
                output = self.net(torch.zeros(1, self.in_channels, *sides, device=like.device, dtype=like.dtype))
            except Exception as error:  # arbitrary user code may fail here
                found = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
                raise ConfigError(
                    "the network fails on a trial image",
                    subject=f"{sides[0]}×{sides[1]}, {self.in_channels} channels",
                    found=found,
                    hint="give a size that it takes: size=(height, width), or --size HxW",
                ) from error
        heads = heads_of(output)
        return Shape(tuple(heads), next(iter(heads.values())).shape[1])


def _enlarged(head: Tensor, height: Any, width: Any) -> Tensor:
    return F.interpolate(head, (height, width), mode="bilinear", align_corners=False)


def _resized_by_products(levels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images (N, C, H, W) bilinearly with antialiasing, by one matrix product per axis."""
    rows, columns = (_resizing(levels, axis, length) for axis, length in zip((2, 3), size, strict=True))
    return rows @ levels @ columns.T


def _resizing(levels: Tensor, axis: int, length: int) -> Tensor:
    """Return the weights (length, size) of each pixel of an axis in each pixel of the resized axis."""
    size = torch.full((), 1.0, dtype=torch.float32, device=levels.device) * levels.shape[axis]
    scale = size / length
    pixels = torch.arange(levels.shape[axis], dtype=torch.float32, device=levels.device) + 0.5
    centers = (torch.arange(length, dtype=torch.float32, device=levels.device) + 0.5) * scale
    weights = (1 - (pixels - centers[:, None]).abs() / scale.clamp(min=1)).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)
