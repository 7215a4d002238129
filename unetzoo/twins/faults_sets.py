"""Faults of pairs of samples, each of which is correct."""

from __future__ import annotations

import numpy as np

from .planting import PlantedTwin, anywhere, fault, has_masks


@fault("duplicate-image", "the same sample twice in one split", anywhere)
def _duplicate(twin: PlantedTwin) -> None:
    twin.copy(*twin.pick_two("train"))


@fault("leakage", "the same sample in train and val", anywhere)
def _leakage(twin: PlantedTwin) -> None:
    twin.copy(*twin.pick_two("val"))


@fault("conflicting-labels", "the same image twice, with different masks", has_masks)
def _conflicting(twin: PlantedTwin) -> None:
    twin.copy(*twin.pick_two("train"), labels=False)


@fault("misaligned-mask", "the masks of two images swapped", has_masks)
def _misaligned(twin: PlantedTwin) -> None:
    first = twin.pick()
    values = twin.values(first)
    second = max(
        (pair for pair in twin.of("train") if pair != first),
        key=lambda pair: np.mean(twin.values(pair) != values),  # the least similar one
    )
    labels = twin.labels(first)
    twin.set_labels(first, twin.labels(second))
    twin.set_labels(second, labels)
