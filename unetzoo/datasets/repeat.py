"""Datasets whose epochs visit every image several times."""

from __future__ import annotations

import copy
from collections.abc import Iterable
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
        times: Number of times that every sample occurs.

    Raises:
        ConfigError: A number below 1.

    Examples:
        >>> from unetzoo.datasets import Composites
        >>> data = RepeatedDataset(Composites(length=2, size=32), times=3)
        >>> len(data), data[1]["id"] == data[5]["id"]
        (6, True)
    """

    def __init__(self, dataset: Any, times: int) -> None:
        if not isinstance(times, int) or times < 1:
            raise ConfigError("wrong number of repetitions", expected="an integer ≥ 1", found=repr(times))
        super().__init__(
            labels=dataset.labels, split=getattr(dataset, "split", None), transform=getattr(dataset, "transform", None)
        )
        self.dataset, self.times = copy.copy(dataset), times
        self.dataset.transform = None

    def __len__(self) -> int:
        return self.times * len(self.dataset)

    def load(self, index: int) -> Sample:
        """Load sample `index` modulo the number of distinct samples."""
        return self.dataset[index % len(self.dataset)]

    def sources(self) -> Iterable[Path]:
        """The files of the dataset."""
        return self.dataset.sources()
