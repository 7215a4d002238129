"""What belongs to a trained network beside its weights, found on the data and metrics that it is trained with."""

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
        data: What it is validated on, or trained on where it is not validated.
        metric: The metric of the mask.
        precision: In which the network is trained.
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
    ).attach()


def preprocess_of(transform: Any) -> Callable[[np.ndarray], Tensor] | None:
    """What a transform does to a whole image: `mirror`, `crop` and augmentation left out.

    Returns:
        A `Preprocess` for a `Transform`; a function for an `Albumentations` that does not augment; None where it is not
        known.

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
    """A threshold that says anything; 0.5 is what it is anyway."""
    if isinstance(threshold, tuple | list):
        return None if all(value == 0.5 for value in threshold) else list(threshold)
    return None if threshold == 0.5 else threshold


def _transformed(transform: Albumentations, image: np.ndarray) -> Tensor:
    return transform({"image": image}, sample_rng(0, 0, 0))["image"]
