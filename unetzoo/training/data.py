"""Loaders whose samples depend only on (seed, epoch, index), not on workers, processes or the global random state."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, default_collate

from ..datasets import sample_rng
from ..errors import ConfigError, DataError, UnetzooError
from .batches import by_shape, stack
from .signals import outlive_in_worker

Key = tuple[int, int]
WEIGHTED = ("WeightedRandomSampler", "SubsetRandomSampler")  # torch samplers that select or weight samples


def with_transform(dataset: Any, transform: Any) -> Any:
    """Return a copy of the dataset with another transform."""
    if getattr(dataset, "transform", None) is transform:
        return dataset
    other = copy.copy(dataset)
    other.transform = transform
    return other


def without_transform(dataset: Any) -> Any:
    """Return a copy of the dataset without its transform."""
    return with_transform(dataset, None)


def declared_groups(dataset: Any) -> Mapping[str, str]:
    """Return the group of each sample by its id; empty if the dataset declares none."""
    while not callable(getattr(dataset, "groups", None)):
        inner = getattr(dataset, "dataset", getattr(dataset, "source", None))  # inside a wrapper or a cache
        if inner is None:
            return {}
        dataset = inner
    return dataset.groups()


class EpochView(Dataset):
    """A dataset addressed by (epoch, index); its transform draws from `SeedSequence([seed, epoch, index])`.

    An `endless` dataset continues where the previous epoch ended; others start again.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.transform, self.seed = getattr(dataset, "transform", None), seed
        self.dataset = without_transform(dataset)  # the dataset would draw the same random numbers in every epoch

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> Any:
        """Return the sample, or an UnetzooError: raised in a worker, it would lose its attributes (see `Loader`)."""
        epoch, index = key
        try:
            endless = getattr(self.dataset, "endless", False)
            sample = self.dataset[index + epoch * len(self.dataset) if endless else index]
            if self.transform is not None:
                sample = self.transform(sample, sample_rng(self.seed, epoch, index))
            if isinstance(sample, tuple | list) and len(sample) == 2:  # (image, mask), as in torchvision
                sample = dict(zip(("image", "mask"), sample, strict=True))
            return sample
        except UnetzooError as error:
            return error


class EpochSampler(Sampler[Key]):
    """Yields (epoch, index) for one process's share of an epoch.

    Args:
        length: Number of samples in the dataset.
        seed: Seed of the order.
        rank: Index of this process.
        world: Number of processes.
        shuffle: Draw a new order in each epoch, with the same number of samples for every process. Otherwise each
            sample is visited once, in order, and shares may differ by one sample.
    """

    def __init__(self, length: int, seed: int, rank: int, world: int, shuffle: bool) -> None:
        self.length, self.seed, self.rank, self.world, self.shuffle = length, seed, rank, world, shuffle
        self.epoch, self.skip = 0, 0  # skip: samples of this epoch that are already done
        self.multiple = 1  # the size of a training share is rounded down to a multiple of this

    @property
    def share(self) -> int:
        """Number of training samples per process in an epoch."""
        return self.length // self.world

    def _indices(self) -> Sequence[int]:
        if not self.shuffle:
            return range(self.rank, self.length, self.world)[self.skip :]
        order = np.random.default_rng(np.random.SeedSequence([self.seed, self.epoch])).permutation(self.length)
        share = self.share // self.multiple * self.multiple
        return order[: share * self.world][self.rank :: self.world][self.skip :].tolist()

    def __len__(self) -> int:
        return len(self._indices())

    def __iter__(self) -> Iterator[Key]:
        return ((self.epoch, index) for index in self._indices())


class Collate:
    """Joins samples into a batch, or returns the first error among them."""

    def __init__(self, join: Callable[[Sequence[dict[str, Any]]], Any]) -> None:
        self.join = join

    def __call__(self, samples: Sequence[Any]) -> Any:
        """Join samples. An UnetzooError is returned, not raised."""
        try:
            return next((s for s in samples if isinstance(s, UnetzooError)), None) or self.join(samples)
        except UnetzooError as error:
            return error


class Loader(DataLoader):
    """A DataLoader that raises the errors of its workers in the main process."""

    @property
    def keys(self) -> EpochSampler:
        """The sampler."""
        return cast(EpochSampler, self.sampler)

    def stop(self) -> None:
        """Stop persistent workers."""
        iterator, self._iterator = self._iterator, None
        if iterator is not None:
            cast(Any, iterator)._shutdown_workers()

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride] -- a generator will do
        """Yield batches."""
        for batch in super().__iter__():
            if isinstance(batch, UnetzooError):
                raise batch
            yield batch


def first_batch(dataset: Any, seed: int, samples: int = 1) -> dict[str, Any]:
    """Return the first samples as a batch.

    Raises:
        DataError: The dataset is empty, or its samples cannot be stacked.
    """
    if not len(dataset):
        raise DataError("nothing to load", subject=type(dataset).__name__, found="0 samples")
    view = EpochView(dataset, seed)
    batch = Collate(stack)([view[0, index] for index in range(min(samples, len(dataset)))])
    if isinstance(batch, UnetzooError):
        raise batch
    return batch


def dataset_of(data: Any) -> Any:
    """Return the dataset of a plain `DataLoader`; a dataset is returned unchanged.

    Raises:
        ConfigError: The data is not map-style, the loader has a custom sampler or collate function, or colors are
            augmented in images that are not RGB.
    """
    if isinstance(data, DataLoader) and not isinstance(data.dataset, IterableDataset):
        own = [
            name
            for name, plain in (("sampler", data.sampler), ("batch_sampler", data.batch_sampler))
            if type(plain).__module__ != "torch.utils.data.sampler" or type(plain).__name__ in WEIGHTED
        ]
        if data.collate_fn is not default_collate:
            own.append("collate_fn")
        if own:
            raise ConfigError(
                "a DataLoader with its own order or batches",
                subject="fit",
                found=", ".join(own),
                hint="pass the dataset itself; the Trainer handles order, batches and workers",
            )
    data = data.dataset if isinstance(data, DataLoader) else data
    unfit = isinstance(data, IterableDataset | Mapping) or not (
        hasattr(data, "__len__") and hasattr(data, "__getitem__")
    )
    if unfit:
        raise ConfigError(
            "a run needs a map-style dataset, so that it can be resumed at the exact sample",
            subject="fit",
            expected="__len__ and __getitem__",
            found=type(data).__name__,
            hint="wrap it in a map-style torch.utils.data.Dataset",
        )
    _check_colors(data)
    return data


def _check_colors(data: Any) -> None:
    pixels, transform = getattr(data, "pixels", None), getattr(data, "transform", None)
    transform = getattr(transform, "then", transform)
    shifted = [name for name in ("saturation", "hue") if getattr(transform, name, 0)]
    if shifted and pixels is not None and pixels.channels != 3:
        raise ConfigError(
            "saturation and hue are defined for RGB images",
            subject="transform",
            expected="3 channels",
            found=pixels.channels,
            hint=f"omit {' and '.join(shifted)}",
        )


def make_loader(
    dataset: Any, *, batch_size: int, seed: int, workers: int, rank: int, world: int, train: bool
) -> Loader:
    """Build a loader over one process's share of a dataset.

    Raises:
        DataError: The dataset is empty.
    """
    if len(dataset) < (world if train else 1):
        raise DataError("nothing to load", subject=type(dataset).__name__, found=f"{len(dataset)} samples")
    sampler = EpochSampler(len(dataset), seed, rank, world, shuffle=train)
    return Loader(
        EpochView(dataset, seed),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=Collate(stack if train else by_shape),
        persistent_workers=workers > 0,
        worker_init_fn=outlive_in_worker,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(seed),  # making an iterator must not draw from the global RNG
    )


class Loaders:
    """Loaders of a run. Inside its `with` blocks, workers are kept between epochs and evaluations.

    Args:
        drop_last: Leave out the last training batch of an epoch if it is smaller.
        options: `seed`, `workers`, `rank` and `world` of `make_loader`.
    """

    def __init__(self, *, drop_last: bool = False, **options: int) -> None:
        self.drop_last, self._options = drop_last, options
        self._held: dict[bool, tuple[Any, Loader]] = {}
        self._depth = 0

    def __enter__(self) -> None:
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        """Stop the workers; left to the garbage collector, their queues would be destroyed first."""
        self._depth -= 1
        if not self._depth:
            for _, loader in self._held.values():
                loader.stop()
            self._held = {}

    def get(self, dataset: Any, batch_size: int, *, train: bool) -> Loader:
        """Return the loader of a dataset, rebuilt if dataset or batch size have changed."""
        held, loader = self._held.get(train, (None, None))
        if loader is None or held is not dataset or loader.batch_size != batch_size:
            if loader is not None:
                loader.stop()
            loader = make_loader(dataset, batch_size=batch_size, train=train, **self._options)
            self._held[train] = dataset, loader
        return loader

    def epoch(self, dataset: Any, batch_size: int, epoch: int, skip: int) -> Loader:
        """Return the training loader of an epoch without its first `skip` samples."""
        loader = self.get(dataset, batch_size, train=True)
        loader.keys.epoch, loader.keys.skip = epoch, skip
        loader.keys.multiple = batch_size if self.drop_last else 1
        return loader
