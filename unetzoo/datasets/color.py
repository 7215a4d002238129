"""Light, color and scaling of images, for tensors (N, C, H, W) of 0…255, each image by its own numbers.

What is given may be overwritten: images are large, and fresh memory is slow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from ..errors import ConfigError

Normalize = Literal["unit", "minmax", "standard"] | Mapping[str, Sequence[float]]

# Luminance and two axes of color from red, green and blue: the YIQ of NTSC television (FCC, 1953).
YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))


def beside(images: Tensor, constant: Tensor) -> Tensor:
    """A constant of the host on the device of images, and in their precision; nobody waits for that device."""
    if not images.is_cuda:
        return constant.to(images)
    return constant.to(images.dtype).pin_memory().to(images.device, non_blocking=True)


def shift_light(images: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """Add a share of full scale to each image, and stretch it about its mean.

    Shape:
        images: (N, C, H, W), others (N,). Not clamped.
    """
    mean = images.mean((1, 2, 3), keepdim=True)
    gain, lift = (1 + contrast).view(-1, 1, 1, 1), (255 * brightness).view(-1, 1, 1, 1)
    return images.mul_(gain).add_(lift + mean * (1 - gain))


def shift_color(images: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """Stretch each image's colors about gray, and turn their hue; luminance stays.

    Args:
        images: RGB, or several RGB images in one, such as image and background.
        saturation: Relative change.
        hue: Degrees.

    Shape:
        images: (N, 3·k, H, W), others (N,). Not clamped.

    Raises:
        ConfigError: Channels that are no RGB.
    """
    if images.shape[1] % 3:
        raise ConfigError(
            "saturation and hue need colors", subject="Transform", expected="3 channels, or a multiple",
            found=images.shape[1], hint="leave them out for gray images",
        )  # fmt: skip
    to_yiq = torch.tensor(YIQ, dtype=torch.float64)
    back, forth = (beside(images, matrix) for matrix in (torch.linalg.inv(to_yiq), to_yiq))
    angle = torch.deg2rad(hue)
    turn = torch.zeros(len(images), 3, 3, dtype=images.dtype, device=images.device)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = (1 + saturation) * angle.cos()
    turn[:, 2, 1] = (1 + saturation) * angle.sin()
    turn[:, 1, 2] = -turn[:, 2, 1]
    groups = images.unflatten(1, (-1, 3)).flatten(3)
    return (back @ turn @ forth)[:, None].matmul(groups).view_as(images)


def normalize(images: Tensor, how: Normalize) -> Tensor:
    """Scale images of 0…255: see `Transform`.

    Raises:
        ConfigError: Statistics of another number of channels.
    """
    if how == "unit":
        return images.div_(255)
    if how == "minmax":
        low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
        return images.sub_(low).div_((high - low).clamp(min=1e-6))
    if how == "standard":
        images.sub_(images.mean((1, 2, 3), keepdim=True))
        std = torch.linalg.vector_norm(images, dim=(1, 2, 3), keepdim=True) / images[0].numel() ** 0.5
        return images.div_(std.clamp(min=1e-6))
    assert isinstance(how, Mapping)
    mean, std = (beside(images, torch.tensor(how[key], dtype=torch.float32)) for key in ("mean", "std"))
    if len(mean) not in (1, images.shape[1]):
        raise ConfigError(
            "normalize does not fit the image", subject="Transform", expected=f"{images.shape[1]} channels",
            found=f"{len(mean)} means", hint="give one mean and std a channel, or one for all",
        )  # fmt: skip
    return images.sub_(255 * mean.view(-1, 1, 1)).div_(255 * std.view(-1, 1, 1))
