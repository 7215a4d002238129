"""Collect what a trained network needs besides its weights from the data and metrics of its training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..bundle import ModelBundle, Preprocess
from ..datasets import Albumentations, Transform, sample_rng
from ..labels import LabelSpec
from ..precision import Precision


def attach_bundle(net: nn.Module, data: Any, metric: Any = None, precision: Precision | None = None) -> None:
    """Attach labels, preprocessing and thresholds to a network (`ModelBundle.attach`).

    Args:
        net: The network.
        data: The validation data, or the training data if there is none.
        metric: The metric of the mask.
        precision: The precision the network is trained in.
    """
    labels = getattr(data, "labels", None)
    counts = hasattr(metric, "confusion")
    ModelBundle(
        net,
        labels if isinstance(labels, LabelSpec) else None,
        preprocess_of(getattr(data, "transform", None)),
        decisive(getattr(metric, "thresholds", None)) if counts else None,
        mode="multilabel" if counts and getattr(metric, "mode", None) == "multilabel" else None,
        name=ModelBundle.of(net).name,
        precision=precision,
        pixels=getattr(data, "pixels", None),
        objects=getattr(metric, "object_rule", None),
    ).attach()


def preprocess_of(transform: Any) -> Callable[[np.ndarray], Tensor] | None:
    """Return the preprocessing of whole images by a transform, without `mirror`, `crop` and augmentation.

    Returns:
        A `Preprocess` for a `Transform`, a function for an `Albumentations` that does not augment, or None if unknown.

    Examples:
        >>> preprocess_of(Transform(64, crop=32, hflip=0.5, normalize="standard"))
        Preprocess(size=(64, 64), normalize='standard')
    """
    if isinstance(transform, Transform):
        return Preprocess(transform.size, transform.normalize)
    if isinstance(transform, Albumentations) and not transform.then.train:
        whole = copy.copy(transform)
        whole.then = copy.copy(transform.then)
        whole.then.mirror, whole.then.crop = 0, None
        return partial(_transformed, whole)
    return None


def decisive(threshold: float | Sequence[float] | Mapping[str, float] | None) -> Any:
    """Return a threshold, or None if it is the default of 0.5."""
    if isinstance(threshold, tuple | list):
        return None if all(value == 0.5 for value in threshold) else list(threshold)
    return None if threshold == 0.5 else threshold


def _transformed(transform: Albumentations, image: np.ndarray) -> Tensor:
    return transform({"image": image}, sample_rng(0, 0, 0))["image"]
