"""Datasets whose epochs visit every image several times."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .base import Sample, SegmentationDataset


class RepeatedDataset(SegmentationDataset):
    """A dataset that contains every sample several times, with another augmentation each time.

    With a few large images, a random crop of each is only a few steps; an epoch of several crops per image is evaluated
    and saved less often.

    Args:
        dataset: The dataset; its transform becomes that of the new one.
        times: Number of times that every sample occurs, or one number per sample.

    Raises:
        ConfigError: A number below 1, or not one number per sample.

    Examples:
        >>> from unetzoo.datasets import Composites
        >>> data = RepeatedDataset(Composites(length=2, size=32), times=3)
        >>> len(data), data[1]["id"] == data[5]["id"]
        (6, True)
        >>> RepeatedDataset(Composites(length=2, size=32), times=[1, 2]).places
        [0, 1, 1]
    """

    def __init__(self, dataset: Any, times: int | Sequence[int]) -> None:
        each = [times] * len(dataset) if isinstance(times, int) else list(times)
        if len(each) != len(dataset) or not all(isinstance(number, int) and number >= 1 for number in each):
            raise ConfigError("wrong number of repetitions", expected="an integer ≥ 1, or one per sample",
                              found=repr(times))  # fmt: skip
        super().__init__(
            labels=dataset.labels, split=getattr(dataset, "split", None), transform=getattr(dataset, "transform", None)
        )
        self.dataset = copy.copy(dataset)
        self.places = [
            place for turn in range(max(each, default=0)) for place, number in enumerate(each) if turn < number
        ]
        self.dataset.transform = None

    def __len__(self) -> int:
        return len(self.places)

    def load(self, index: int) -> Sample:
        """Load a sample of the dataset."""
        return self.dataset[self.places[index]]

    def sources(self) -> Iterable[Path]:
        """The files of the dataset."""
        return self.dataset.sources()
