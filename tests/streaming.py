"""Helpers for tests of streaming."""

import numpy as np
import torch
from predicting import knowing

import unetzoo
from unetzoo import predict
from unetzoo.images import as_tensor

CHANNELS = {"in_channels": 2, "classes": 3, "encoder_channels": (4, 8, 16)}


def small(name="bnunet", **config):
    torch.manual_seed(0)
    return knowing(unetzoo.build(name, **{**CHANNELS, **config}).eval(), as_tensor)


def random_image(height, width, channels=2, dtype=np.uint8):
    rng = np.random.default_rng(0)
    return rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)


def classes_of(net, image, **options):
    answer = predict(net, image, **options)
    mask = answer if isinstance(answer, torch.Tensor) else answer[0]
    return (mask[0] > 0 if len(mask) == 1 else mask.argmax(0)).numpy()


def agree(found, expected):
    """The same classes, except for pixels where two classes are equal up to rounding."""
    assert found.shape == expected.shape
    return (found != expected).mean() <= 1e-3
