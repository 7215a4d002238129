"""Normalization of images in 0…255, by the statistics of each image or by given ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from ..errors import ConfigError

Normalize = Literal["unit", "minmax", "standard"] | Mapping[str, Sequence[float]]


def normalize(images: Tensor, how: Normalize) -> Tensor:
    """Normalize images in place.

    Args:
        images: Float values in 0…255; overwritten, since allocating large images is slow.
        how: "unit" divides by 255; "minmax" maps each image's smallest and largest value to 0 and 1; "standard" gives
            each image mean 0 and standard deviation 1; {"mean": …, "std": …} are statistics in 0…1, one per channel
            or one for all.

    Shape:
        images, output: (N, C, H, W).

    Raises:
        ConfigError: The statistics are for a different number of channels.

    Examples:
        >>> normalize(torch.tensor([[[[0.0, 51.0, 255.0]]]]), "unit")
        tensor([[[[0.0000, 0.2000, 1.0000]]]])
    """
    if how == "unit":
        return images.div_(255)
    if how == "minmax":
        low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
        return images.sub_(low).div_((high - low).clamp(min=1e-6))
    if how == "standard":
        # One axis after the other: other runtimes add up all values of a reduction in one float32.
        images.sub_(images.mean(3, keepdim=True).mean(2, keepdim=True).mean(1, keepdim=True))
        norm = images
        for axis in (3, 2, 1):
            norm = torch.linalg.vector_norm(norm, dim=axis, keepdim=True)
        std = norm / images[0].numel() ** 0.5
        return images.div_(std.clamp(min=1e-6))
    assert isinstance(how, Mapping)
    mean, std = (constant_like(images, torch.tensor(how[key], dtype=torch.float32)) for key in ("mean", "std"))
    if len(mean) not in (1, images.shape[1]):
        raise ConfigError(
            "normalize does not fit the image",
            subject="normalize",
            expected=f"{images.shape[1]} channels",
            found=f"{len(mean)} means",
            hint="give one mean and std per channel, or one for all",
        )
    return images.sub_(255 * mean.view(-1, 1, 1)).div_(255 * std.view(-1, 1, 1))


def constant_like(images: Tensor, constant: Tensor) -> Tensor:
    """Convert a constant on the host to the device and dtype of images, without synchronizing with the device."""
    if not images.is_cuda:
        return constant.to(images)
    return constant.to(images.dtype).pin_memory().to(images.device, non_blocking=True)
