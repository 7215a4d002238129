"""Batches: samples are stacked, moved to the device, and transformed there.

On a GPU, batches are copied while the network still works on the one before.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import torch
from torch.utils.data import default_collate

from ..errors import ConfigError, DataError, SizeMismatchError

Batch = dict[str, Any]
T = TypeVar("T")


def stack(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Samples → one batch.

    Raises:
        SizeMismatchError: Images of different sizes in one batch.
        DataError: Samples that differ in their keys, or hold no tensors.
    """
    for sample in samples:
        if not isinstance(sample, Mapping) or not isinstance(sample.get("image"), torch.Tensor):
            items = sample.items() if isinstance(sample, Mapping) else [("sample", sample)]
            raise DataError(
                "samples hold no image tensor",
                expected="{'image': tensor, 'mask': tensor, …}, or (image, mask)",
                found={key: type(value).__name__ for key, value in items},
                hint="datasets of this library need a transform, e.g. unetzoo.datasets.Transform(); in your own, name "
                "the keys image and mask, and convert arrays by torch.from_numpy",
            )
        if not sample["image"].is_floating_point() and "moves" not in sample:
            raise DataError(
                "images are not floating-point",
                subject=sample.get("id"),
                found=sample["image"].dtype,
                hint="scale them as the network is to see them, e.g. image.float() / 255",
            )
    shapes = sorted({tuple(sample["image"].shape) for sample in samples})
    if len(shapes) > 1:
        raise SizeMismatchError(
            "images of different sizes cannot share a batch", found=shapes, hint=_one_size(samples[0])
        )
    subject = [sample.get("id") for sample in samples]
    unlike = next((sample for sample in samples if sample.keys() != samples[0].keys()), None)
    if unlike is not None:  # torch would drop what the first one lacks
        found = f"{sorted(samples[0])} and {sorted(unlike)}"
        raise DataError("samples of different keys cannot share a batch", subject=subject, found=found)
    try:
        return _widened(default_collate(list(samples)))
    except (RuntimeError, TypeError) as error:
        hint = "every plane of a sample needs the image's height and width"
        raise DataError("samples cannot be stacked", subject=subject, found=str(error), hint=hint) from error


def _widened(batch: Batch) -> Batch:
    """Images in float32 and class indices in int64, as networks and losses take them; raw samples stay as they are."""
    if "moves" in batch:
        return batch
    batch["image"] = batch["image"].float()
    mask = batch.get("mask")
    if isinstance(mask, torch.Tensor) and not mask.is_floating_point():
        batch["mask"] = mask.long()
    return batch


def _one_size(sample: dict[str, Any]) -> str:
    if "moves" in sample:  # its size and crop are applied to the batch, which needs one before
        return 'resize before batches are made: data.cache=true, or transform.train.on="loader"'
    return "set transform.size or transform.crop, or train.batch_size=1"


def by_shape(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Samples → batches of equal shapes, in order (for evaluation at each image's own size)."""
    batches: list[list[dict[str, Any]]] = []
    for sample in samples:
        if batches and batches[-1][0]["image"].shape == sample["image"].shape:
            batches[-1].append(sample)
        else:
            batches.append([sample])
    return [stack(batch) for batch in batches]


def in_groups(batches: Iterable[T], size: int) -> Iterator[list[T]]:
    """Batches, so many at a time; the last group may have fewer.

    Examples:
        >>> list(in_groups("abcde", 2))
        [['a', 'b'], ['c', 'd'], ['e']]
    """
    iterator = iter(batches)
    while group := list(itertools.islice(iterator, size)):
        yield group


def ready(
    batch: Batch,
    device: torch.device,
    transform: Callable[[Batch], Batch] | None = None,
    *,
    channels_last: bool = False,
) -> Batch:
    """A batch as the network takes it: on the device (the host does not wait), transformed there, in its memory layout.

    Args:
        batch: As it was loaded.
        device: Where the network is.
        transform: The batch transform.
        channels_last: Give the images this layout, whatever the transform has left.

    Raises:
        ConfigError: The samples' transform was to be finished here, and is not.
    """
    batch = transferred(batch, device)
    if transform is not None:
        batch = transform(batch)
    if "moves" in batch:
        raise ConfigError(
            'samples of a Transform(on="device") that nothing finishes on the device',
            found="moves in the batch",
            hint="give the Trainer batch_transform=unetzoo.datasets.BatchTransform(train.transform), "
            'and the validation data Transform(train=False, on="loader")',
        )
    return {**batch, "image": batch["image"].to(memory_format=torch.channels_last)} if channels_last else batch


def transferred(batch: Batch, device: torch.device) -> Batch:
    """A batch on the device; the host does not wait.

    On a GPU what lies in the host's memory is copied on a stream of its own, so that the copy of one batch overlaps
    with the work on the one before; the working stream waits for the copy alone. From pinned memory, that is: other
    memory makes the host wait.

    Args:
        batch: Tensors, and what else belongs to the samples.
        device: Where the network is.

    Examples:
        >>> transferred({"image": torch.ones(1), "id": ["a"]}, torch.device("cpu"))
        {'image': tensor([1.]), 'id': ['a']}
    """
    tensors = {key: value for key, value in batch.items() if isinstance(value, torch.Tensor)}
    hosted = {key: value for key, value in tensors.items() if device.type == "cuda" and value.device.type == "cpu"}
    others = {key: value.to(device, non_blocking=True) for key, value in tensors.items() if key not in hosted}
    return batch | others | _copied(hosted, device) if hosted else batch | others


def _copied(tensors: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    side, working = _side_stream(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(side):
        copies = {key: value.to(device, non_blocking=True) for key, value in tensors.items()}
        done = side.record_event()
    working.wait_event(done)
    for copy in copies.values():
        copy.record_stream(working)  # the side stream owns its memory, and would give it away before the work is done
    return copies


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
