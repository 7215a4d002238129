"""Changes of light and color for images (N, C, H, W) in 0…255, with parameters per image.

The input may be overwritten, since allocating large images is slow.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ConfigError
from ..images.normalize import constant_like

# RGB to luminance and two color axes: the YIQ of NTSC television (FCC, 1953).
YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))


def shift_light(images: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """Change brightness (relative to full scale) and contrast (around the mean of each image).

    Shape:
        images: (N, C, H, W); parameters: (N,). The output is not clamped.
    """
    mean = images.mean((1, 2, 3), keepdim=True)
    gain, lift = (1 + contrast).view(-1, 1, 1, 1), (255 * brightness).view(-1, 1, 1, 1)
    return images.mul_(gain).add_(lift + mean * (1 - gain))


def shift_color(images: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """Change the saturation and hue of each image at constant luminance.

    Args:
        images: RGB, or several concatenated RGB images, such as image and background.
        saturation: Relative change.
        hue: Rotation in degrees.

    Shape:
        images: (N, 3·k, H, W); parameters: (N,). The output is not clamped.

    Raises:
        ConfigError: The number of channels is not a multiple of 3.
    """
    if images.shape[1] % 3:
        raise ConfigError(
            "saturation and hue need colors", subject="Transform", expected="3 channels, or a multiple",
            found=images.shape[1], hint="omit them for gray images",
        )  # fmt: skip
    to_yiq = torch.tensor(YIQ, dtype=torch.float64)
    back, forth = (constant_like(images, matrix) for matrix in (torch.linalg.inv(to_yiq), to_yiq))
    angle = torch.deg2rad(hue)
    turn = torch.zeros(len(images), 3, 3, dtype=images.dtype, device=images.device)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = (1 + saturation) * angle.cos()
    turn[:, 2, 1] = (1 + saturation) * angle.sin()
    turn[:, 1, 2] = -turn[:, 2, 1]
    groups = images.unflatten(1, (-1, 3)).flatten(3)
    return (back @ turn @ forth)[:, None].matmul(groups).view_as(images)
