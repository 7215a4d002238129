"""Samples that tell touching objects apart: with border weights, or with a class of borders."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..borders import border_weights, check_constants
from ..errors import ConfigError, DataError
from ..instances import touching_borders
from ..labels import LabelSpec
from .base import Sample, SegmentationDataset


def with_border_weights(
    dataset: Any, w0: float = 10.0, sigma: float = 5.0, *, memory: int = 2**28
) -> BorderWeightedDataset:
    """Add `weight` to each sample: the weight map of the paper for the whole mask, computed once.

    If samples have `instances`, each number is a cell, so touching cells are distinguished; otherwise each connected
    component of a class is one.

    Every loss accepts the weight; `ce` with it is the loss `border_ce` without the cost per step. The two differ after
    transforms: here the map of the whole image is transformed with the image, so a gap between cells keeps its weight
    if it is stretched or a cell is cropped; `border_ce` computes the map of the transformed mask.

    Each process keeps maps in memory, up to a limit. `cached(with_border_weights(dataset))` stores them in a file for
    all processes and runs.

    Args:
        dataset: The dataset; its transform becomes that of the new one.
        w0: Peak weight between cells.
        sigma: Its width, in pixels of the untransformed image.
        memory: Bytes of maps to keep in each process; the least recently used are dropped.

    Raises:
        ConfigError: Invalid constants.
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


class _DerivedDataset(SegmentationDataset):
    """A dataset whose samples are computed from those of another one, whose transform it takes over."""

    def __init__(self, dataset: Any, labels: LabelSpec) -> None:
        transform = getattr(dataset, "transform", None)
        super().__init__(labels=labels, split=getattr(dataset, "split", None), transform=transform)
        self.dataset = copy.copy(dataset)
        self.dataset.transform = None

    def __getattr__(self, name: str) -> Any:
        """Other attributes of the dataset, such as a baseline."""
        if name.startswith("_") or "dataset" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def sources(self) -> Iterable[Path]:
        """The files of the dataset."""
        return self.dataset.sources()


class BorderWeightedDataset(_DerivedDataset):
    """A dataset whose samples have border weights; created by `with_border_weights`.

    Pixels with `ignore_index` or weight 0 belong to no cell. An existing weight of a sample is multiplied.

    Args:
        dataset: The dataset.
        w0: Peak weight between cells.
        sigma: Width of the weight.
        memory: Bytes of maps to keep.
    """

    def __init__(self, dataset: Any, w0: float, sigma: float, memory: int) -> None:
        check_constants(w0, sigma)
        if not isinstance(memory, int) or memory < 0:
            raise ConfigError("wrong memory", expected="a number of bytes ≥ 0", found=memory)
        super().__init__(dataset, dataset.labels)
        self.w0, self.sigma, self.memory = w0, sigma, memory
        self._maps: OrderedDict[int, np.ndarray] = OrderedDict()

    def __getstate__(self) -> dict[str, object]:
        """Each process computes its own maps."""
        return self.__dict__ | {"_maps": OrderedDict()}

    def __copy__(self) -> BorderWeightedDataset:
        """A copy in the same process shares the maps."""
        twin: BorderWeightedDataset = object.__new__(BorderWeightedDataset)
        vars(twin).update(vars(self))
        return twin

    def load(self, index: int) -> Sample:
        """The sample of the dataset, with weights."""
        sample = self.dataset[index]
        weight = self._maps.get(index)
        if weight is None:
            weight = self._maps[index] = self._weigh(sample)
        self._maps.move_to_end(index)
        kept = sum(map.nbytes for map in self._maps.values())
        while self._maps and kept > self.memory:
            kept -= self._maps.popitem(last=False)[1].nbytes
        return {**sample, "weight": weight}

    def _weigh(self, sample: Sample) -> np.ndarray:
        mask, given = sample.get("mask"), sample.get("weight")
        if mask is None or mask.ndim != 2:
            raise DataError(
                "border weights need a mask", subject=sample.get("id"), expected="one label per pixel, (H, W)",
                found="none" if mask is None else mask.shape,
            )  # fmt: skip
        counts = mask != self.labels.ignore_index if given is None else (mask != self.labels.ignore_index) & (given > 0)
        numbers = sample.get("instances")
        cells = np.where(counts, mask if numbers is None else numbers, 0)
        weight = border_weights(cells, self.w0, self.sigma, instances=numbers is not None)
        return weight if given is None else weight * given


def with_borders(dataset: Any, width: int = 1) -> BordersDataset:
    """Add a third class to a dataset of numbered objects: the border between touching ones.

    Class 1 becomes the inside of objects, class 2 the pixels with two different objects within `width` pixels. The
    borders of the whole image are transformed as a part of the mask. `unetzoo.instances.separate` and the metric
    `instances` turn predictions of the three classes into objects.

    Args:
        dataset: A dataset of background and object whose samples have `instances`, e.g. `dsb2018`, or `folder` with
            `instances=True`. Its transform becomes that of the new one.
        width: Distance in pixels of the untransformed image.

    Raises:
        ConfigError: A dataset of other classes, or an invalid width.
        DataError: On access, a sample without `instances`.

    Examples:
        >>> import tempfile; from pathlib import Path; from PIL import Image
        >>> from unetzoo.datasets import Folder
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("images", "masks"):
        ...     (root / name).mkdir()
        ...     Image.fromarray(np.uint8([[0, 0, 5, 5, 9, 9]])).save(root / name / "a.png")
        >>> data = with_borders(Folder(root, None, instances=True))
        >>> data[0]["mask"].tolist(), data.labels.names
        ([[0, 0, 1, 2, 2, 1]], ('background', 'object', 'border'))

    Source:
        Caicedo et al., "Evaluation of Deep Learning Strategies for Nucleus Segmentation in Fluorescence Images", 2019.
    """
    return BordersDataset(dataset, width)


class BordersDataset(_DerivedDataset):
    """A dataset with a class of borders between touching objects; created by `with_borders`.

    Args:
        dataset: The dataset.
        width: Distance of the two objects.
    """

    def __init__(self, dataset: Any, width: int) -> None:
        labels: LabelSpec = dataset.labels
        if len(labels) != 2:
            raise ConfigError(
                "borders need objects of one class", subject=type(dataset).__name__, expected="two classes",
                found=", ".join(labels.names), hint="use numbered objects, e.g. folder with instances=true",
            )  # fmt: skip
        touching_borders(np.zeros((1, 1), int), width)
        border = next(name for name in ("border", "border between objects") if name not in labels.names)
        third = replace(labels, names=(*labels.names, border), ids=(), ignore_ids=(), remap={}, palette=())
        super().__init__(dataset, third)
        self.width = width

    def load(self, index: int) -> Sample:
        """The sample of the dataset, with borders in its mask."""
        sample = self.dataset[index]
        mask, instances = sample.get("mask"), sample.get("instances")
        if mask is None or instances is None:
            raise DataError(
                "borders need the number of the object of each pixel", subject=sample.get("id"), expected="instances",
                found=", ".join(sample), hint="masks of label images: set instances=true in [data]",
            )  # fmt: skip
        border = touching_borders(instances, self.width) & (mask != self.labels.ignore_index)
        return {**sample, "mask": np.where(border, np.asarray(2, mask.dtype), mask)}
