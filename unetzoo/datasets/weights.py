"""Samples with the U-Net paper's border weights."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..borders import border_weights, check_constants
from ..errors import ConfigError, DataError
from .base import Sample, SegmentationDataset


def with_border_weights(
    dataset: Any, w0: float = 10.0, sigma: float = 5.0, *, memory: int = 2**28
) -> BorderWeightedDataset:
    """The same dataset, each sample with `weight`: the paper's map of its whole mask, computed once.

    Every loss takes that weight; with `ce` it is the loss `border_ce`, whose maps then cost nothing a step. The two
    differ where a transform bends or crops: here the whole image's map is moved with the image, so that a gap
    between cells keeps its weight when it is stretched or a cell is cut off; there the map is made of what is seen.

    Maps stay in the memory of each process, up to a limit. `cached(with_border_weights(dataset))` keeps them in a file
    for all processes and runs.

    Args:
        dataset: The dataset; its transform goes on to the new one.
        w0: Height of the weight between cells.
        sigma: Its width, in pixels of the untransformed image.
        memory: Bytes of maps to keep in each process; those that were not asked for longest go first.

    Raises:
        ConfigError: Unusable constants.
        DataError: On access, a sample without a mask (H, W).

    Examples:
        >>> from unetzoo.datasets import Composites
        >>> data = with_border_weights(Composites(length=2, size=64, foregrounds=3))
        >>> data[0]["weight"].shape, float(data[0]["weight"].min())
        ((64, 64), 1.0)

    Source:
        Ronneberger et al., "U-Net", 2015, eq. 2, with its w0 = 10 and σ = 5.
    """
    return BorderWeightedDataset(dataset, w0, sigma, memory)


class BorderWeightedDataset(SegmentationDataset):
    """A dataset whose samples carry border weights; made by `with_border_weights`.

    Pixels of `ignore_index` and of weight 0 belong to no cell; a weight that a sample has already is multiplied.

    Args:
        dataset: The dataset.
        w0: Height of the weight between cells.
        sigma: Its width.
        memory: Bytes of maps to keep.
    """

    def __init__(self, dataset: Any, w0: float, sigma: float, memory: int) -> None:
        check_constants(w0, sigma)
        if not isinstance(memory, int) or memory < 0:
            raise ConfigError("wrong memory", expected="a number of bytes ≥ 0", found=memory)
        transform = getattr(dataset, "transform", None)
        super().__init__(labels=dataset.labels, split=getattr(dataset, "split", None), transform=transform)
        self.dataset = copy.copy(dataset)
        self.dataset.transform = None
        self.w0, self.sigma, self.memory = w0, sigma, memory
        self._maps: OrderedDict[int, np.ndarray] = OrderedDict()

    def __getstate__(self) -> dict[str, object]:
        """Each process makes the maps that it needs."""
        return self.__dict__ | {"_maps": OrderedDict()}

    def __copy__(self) -> BorderWeightedDataset:
        """A copy in the same process shares the maps."""
        twin: BorderWeightedDataset = object.__new__(BorderWeightedDataset)
        vars(twin).update(vars(self))
        return twin

    def __getattr__(self, name: str) -> Any:
        """What else the dataset offers, such as a baseline."""
        if name.startswith("_") or "dataset" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def load(self, index: int) -> Sample:
        """The dataset's sample, with its weights."""
        sample = self.dataset[index]
        weight = self._maps.get(index)
        if weight is None:
            weight = self._maps[index] = self._weigh(sample)
        self._maps.move_to_end(index)
        kept = sum(map.nbytes for map in self._maps.values())
        while self._maps and kept > self.memory:
            kept -= self._maps.popitem(last=False)[1].nbytes
        return {**sample, "weight": weight}

    def sources(self) -> Iterable[Path]:
        """The dataset's files."""
        return self.dataset.sources()

    def _weigh(self, sample: Sample) -> np.ndarray:
        mask, given = sample.get("mask"), sample.get("weight")
        if mask is None or mask.ndim != 2:
            raise DataError(
                "border weights need a mask", subject=sample.get("id"), expected="one label a pixel, (H, W)",
                found="none" if mask is None else mask.shape,
            )  # fmt: skip
        counts = mask != self.labels.ignore_index if given is None else (mask != self.labels.ignore_index) & (given > 0)
        weight = border_weights(np.where(counts, mask, 0), self.w0, self.sigma)
        return weight if given is None else weight * given
