"""Loaders whose samples depend on (seed, epoch, index) alone: not on workers, processes or the global RNG."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from ..datasets import sample_rng
from ..errors import DataError, SizeMismatchError, UnetzooError

Key = tuple[int, int]


def without_transform(dataset: Any) -> Any:
    """The same dataset, giving its samples as they are before transforms."""
    if getattr(dataset, "transform", None) is None:
        return dataset
    raw = copy.copy(dataset)
    raw.transform = None
    return raw


class EpochView(Dataset):
    """A dataset addressed by (epoch, index); its transform draws from `SeedSequence([seed, epoch, index])`."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self.transform, self.seed = getattr(dataset, "transform", None), seed
        self.dataset = without_transform(dataset)  # it would draw the same numbers in every epoch

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> Any:
        """The sample, or our error in its place: raised in a worker it would lose its parts (see `Loader`)."""
        epoch, index = key
        try:
            sample = self.dataset[index]
            return sample if self.transform is None else self.transform(sample, sample_rng(self.seed, epoch, index))
        except UnetzooError as error:
            return error


class EpochSampler(Sampler[Key]):
    """(epoch, index) for one process's share of an epoch.

    Args:
        length: Samples in the dataset.
        seed: Seed of the order.
        rank: This process.
        world: Number of processes.
        shuffle: Draw a new order each epoch, every process the same number of samples; otherwise each sample once, in
            order, shares differing by one where they must.
    """

    def __init__(self, length: int, seed: int, rank: int, world: int, shuffle: bool) -> None:
        self.length, self.seed, self.rank, self.world, self.shuffle = length, seed, rank, world, shuffle
        self.epoch = 0

    def _indices(self) -> Sequence[int]:
        if not self.shuffle:
            return range(self.rank, self.length, self.world)
        order = np.random.default_rng(np.random.SeedSequence([self.seed, self.epoch])).permutation(self.length)
        equal = self.length // self.world * self.world
        return order[:equal][self.rank :: self.world].tolist()

    def __len__(self) -> int:
        return len(self._indices())

    def __iter__(self) -> Iterator[Key]:
        return ((self.epoch, index) for index in self._indices())


def stack(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Samples → one batch.

    Raises:
        SizeMismatchError: Pictures of different sizes in one batch.
        DataError: Samples that differ in their keys, or hold no tensors.
    """
    if not all(isinstance(sample.get("image"), torch.Tensor) for sample in samples):
        raise DataError(
            "samples hold no tensors",
            found={key: type(value).__name__ for key, value in samples[0].items()},
            hint="give the dataset a transform, e.g. unetzoo.datasets.Transform()",
        )
    shapes = sorted({tuple(sample["image"].shape) for sample in samples})
    if len(shapes) > 1:
        raise SizeMismatchError(
            "pictures of different sizes cannot share a batch",
            found=shapes,
            hint="set transform.size or transform.crop, or train.batch_size=1",
        )
    try:
        return default_collate(list(samples))
    except (RuntimeError, KeyError, TypeError) as error:
        raise DataError("samples cannot be stacked", found=str(error)) from error


def by_shape(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Samples → batches of equal shapes, in order (for evaluation at each picture's own size)."""
    batches: list[list[dict[str, Any]]] = []
    for sample in samples:
        if batches and batches[-1][0]["image"].shape == sample["image"].shape:
            batches[-1].append(sample)
        else:
            batches.append([sample])
    return [stack(batch) for batch in batches]


class Collate:
    """Samples → what `join` makes of them, or the first error among them."""

    def __init__(self, join: Callable[[Sequence[dict[str, Any]]], Any]) -> None:
        self.join = join

    def __call__(self, samples: Sequence[Any]) -> Any:
        """Join; an error of ours is handed on, not raised."""
        try:
            return next((s for s in samples if isinstance(s, UnetzooError)), None) or self.join(samples)
        except UnetzooError as error:
            return error


class Loader(DataLoader):
    """A DataLoader that raises, in the main process, the errors its workers hand on."""

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride] -- a generator will do
        """Batches."""
        for batch in super().__iter__():
            if isinstance(batch, UnetzooError):
                raise batch
            yield batch


def make_loader(
    dataset: Any, *, batch_size: int, seed: int, workers: int, rank: int, world: int, train: bool
) -> Loader:
    """A loader over one process's share.

    Raises:
        DataError: The dataset is empty.
    """
    if len(dataset) < (world if train else 1):
        raise DataError("nothing to load", subject=repr(dataset), found=f"{len(dataset)} samples")
    sampler = EpochSampler(len(dataset), seed, rank, world, shuffle=train)
    return Loader(
        EpochView(dataset, seed),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=Collate(stack if train else by_shape),
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(seed),  # making an iterator must not draw from the global RNG
    )
