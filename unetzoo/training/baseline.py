"""Scores of a dataset's baseline, for comparison with those of a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .data import without_transform


def baseline_scores(dataset: Any, metric: Any, classes: int) -> dict[str, float]:
    """Score the dataset's `baseline(sample) -> labels`.

    Args:
        dataset: The dataset.
        metric: A new metric of the mask, or None.
        classes: Number of channels of the network's mask.

    Returns:
        The scores; none without a metric or a baseline.
    """
    if metric is None or not hasattr(dataset, "baseline"):
        return {}
    raw = without_transform(dataset)
    for index in range(len(raw)):
        sample = raw[index]
        labels = raw.baseline(sample)
        if labels is None:
            return {}
        predicted, truth = (
            torch.from_numpy(np.asarray(mask, dtype=np.int64))[None] for mask in (labels, sample["mask"])
        )
        metric.update(_as_logits(predicted, classes), truth)
    return metric.compute()


def _as_logits(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Return logits that are as certain as labels (N, H, W), or 0 and 1 (N, K, H, W): some metrics need logits."""
    if labels.ndim == 3:
        numbers = torch.arange(classes) if classes > 1 else torch.ones(1)
        labels = (labels[:, None] == numbers.view(-1, 1, 1)).long()
    return 40.0 * labels - 20.0
