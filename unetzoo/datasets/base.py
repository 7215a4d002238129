"""The dataset contract, and random numbers per sample.

A sample is a dict. Before transforms it contains arrays: `image` uint8 (H, W, C), `mask` integer (H, W) of class
indices, optionally `depth` float32 (H, W), `valid` bool (H, W), `weight` float32 (H, W), and `id`, a string. After
transforms it contains tensors: `image` float32 (C, H, W), `mask` int64 (H, W), `depth` float32 (1, H, W), `valid` bool
(H, W), `weight` float32 (H, W).
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import ConfigError, did_you_mean
from ..labels import LabelSpec

Sample = dict[str, Any]
SampleTransform = Callable[[Sample, np.random.Generator], Sample]


def sample_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the random generator of a sample in an epoch, independent of machine, worker and order.

    Args:
        seed: Seed of the run, ≥ 0.
        epoch: The epoch, ≥ 0.
        index: Index of the sample, ≥ 0.

    Examples:
        >>> int(sample_rng(0, 3, 7).integers(1000)) == int(sample_rng(0, 3, 7).integers(1000))
        True
    """
    return np.random.default_rng(np.random.SeedSequence([seed, epoch, index]))


class SegmentationDataset(ABC):
    """Base class of datasets: a subclass implements `__len__` and `load`.

    The rest of the library accepts any object with `__len__`, `__getitem__`, `labels` and `transform`; this class is
    only a convenience. Datasets are picklable and load samples on access.

    Args:
        labels: The labels.
        split: The split, or None for data without splits.
        transform: `transform(sample, rng) -> sample`, or None. On access the epoch is always 0; the Trainer calls the
            transform itself, with `sample_rng(seed, epoch, index)`.

    Raises:
        IndexError: On access, if the index is out of range.

    Examples:
        >>> class Ones(SegmentationDataset):
        ...     def __len__(self):
        ...         return 2
        ...     def load(self, index):
        ...         return {"image": np.ones((4, 4, 3), np.uint8), "mask": np.ones((4, 4), np.uint8), "id": str(index)}
        >>> Ones(labels=LabelSpec(("background", "thing")))[-1]["id"]
        '1'
    """

    how_to_get: ClassVar[str] = "the data are your own"

    def __init__(
        self, *, labels: LabelSpec, split: str | None = None, transform: SampleTransform | None = None
    ) -> None:
        self.labels = labels
        self.split = split
        self.transform = transform

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abstractmethod
    def load(self, index: int) -> Sample:
        """Load a sample before transforms; `index` is in 0…len − 1."""

    def sources(self) -> Iterable[Path]:
        """Return all files that samples are read from; a cache is rebuilt when one of them changes.

        Return `()` if samples depend only on the options of the dataset.

        Raises:
            ConfigError: The subclass does not implement this method.
        """
        raise ConfigError(
            "the dataset does not list its files", subject=type(self).__name__, expected="a method sources()",
            hint="return all paths that samples are read from, or () if samples depend only on options",
        )  # fmt: skip

    def __getitem__(self, index: int) -> Sample:
        count = len(self)
        position = operator.index(index)
        if not -count <= position < count:
            raise IndexError(f"sample {position} of {count}")
        position %= count
        sample = self.load(position)
        if self.transform is None:
            return sample
        return self.transform(sample, sample_rng(0, 0, position))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(split={self.split!r}, samples={len(self)}, classes={self.labels.classes})"


def check_split(split: Any, known: Sequence[str], subject: str) -> str:
    """Check that a split exists.

    Raises:
        ConfigError: Unknown split; the hint suggests the closest name.
    """
    if split not in known:
        hint = did_you_mean(str(split), known, "split")
        raise ConfigError("unknown split", subject=subject, expected=" | ".join(known), found=repr(split), hint=hint)
    return split


def seeded_split(names: Sequence[str], split: str, val_fraction: float, seed: int) -> list[str]:
    """Return the names in `"train"` or `"val"`.

    Val is the first `val_fraction` of a seeded shuffle of the sorted names. Both keep the order of `names`. With at
    least two names, neither is empty.

    Examples:
        >>> seeded_split(["a", "b", "c", "d"], "val", 0.25, 0) + seeded_split(["a", "b", "c", "d"], "train", 0.25, 0)
        ['c', 'a', 'b', 'd']
    """
    ordered = sorted(names)
    count = min(max(round(len(ordered) * val_fraction), 1), len(ordered) - 1)
    shuffled = np.random.default_rng(np.random.SeedSequence([seed])).permutation(len(ordered))
    chosen = {ordered[i] for i in shuffled[:count]}
    return [name for name in names if (name in chosen) == (split == "val")]
