"""Conversion of arrays to tensors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError, InputShapeError
from .pixels import FULL_SCALE


def as_tensor(image: Tensor | np.ndarray) -> Tensor:
    """Convert an image to a float tensor (C, H, W). Integers are divided by their full scale; floats are unchanged.

    Raises:
        InputShapeError: The image is a batch, or has too few axes.
        DataError: Not a tensor or array, or integers of unknown full scale.

    Examples:
        >>> as_tensor(np.full((1, 2), 255, np.uint8))
        tensor([[[1., 1.]]])
    """
    if isinstance(image, Tensor):
        if image.ndim != 3:
            hint = "one image at a time: [predict(net, x) for x in batch]" if image.ndim == 4 else "add axes: x[None]"
            raise InputShapeError(
                "predict takes one image", expected="a tensor (C, H, W)", found=tuple(image.shape), hint=hint
            )
        if not image.is_floating_point():
            raise DataError(
                "predict takes a float tensor", found=image.dtype, hint="scale it as in training, e.g. x.float() / 255"
            )
        return image.detach()
    if not isinstance(image, np.ndarray):
        raise DataError(
            "predict takes a tensor or an array", found=type(image).__name__, hint='np.asarray(image.convert("RGB"))'
        )
    if image.ndim not in (2, 3):
        hint = "one image at a time: [predict(net, x) for x in batch]"
        raise InputShapeError(
            "predict takes one image", expected="an array (H, W) or (H, W, C)", found=image.shape, hint=hint
        )
    if image.dtype.kind != "f" and image.dtype.name not in FULL_SCALE:
        raise DataError(
            "integers of unknown full scale",
            expected="uint8, uint16, bool or floats",
            found=image.dtype,
            hint="scale them as in training and pass float32",
        )
    values = (image if image.ndim == 3 else image[..., None]).astype(np.float32)
    values /= np.float32(FULL_SCALE.get(image.dtype.name, 1.0))
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))
