"""Stack samples to batches, move them to the device, and transform them there.

On a GPU, a batch is copied while the network still processes the previous one.
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
    """Stack samples to a batch.

    Raises:
        SizeMismatchError: The images have different sizes.
        DataError: The samples have different keys or no tensors.
    """
    for sample in samples:
        if not isinstance(sample, Mapping) or not isinstance(sample.get("image"), torch.Tensor):
            items = sample.items() if isinstance(sample, Mapping) else [("sample", sample)]
            raise DataError(
                "samples have no image tensor",
                expected="{'image': tensor, 'mask': tensor, …}, or (image, mask)",
                found={key: type(value).__name__ for key, value in items},
                hint="datasets of this library need a transform, e.g. unetzoo.datasets.Transform(); in your own, name "
                "the keys image and mask, and convert arrays with torch.from_numpy",
            )
        if not sample["image"].is_floating_point() and "moves" not in sample:
            raise DataError(
                "images are not floating-point",
                subject=sample.get("id"),
                found=sample["image"].dtype,
                hint="scale them as the network expects, e.g. image.float() / 255",
            )
    shapes = sorted({tuple(sample["image"].shape) for sample in samples})
    if len(shapes) > 1:
        raise SizeMismatchError(
            "images of different sizes cannot share a batch", found=shapes, hint=_one_size(samples[0])
        )
    subject = [sample.get("id") for sample in samples]
    unlike = next((sample for sample in samples if sample.keys() != samples[0].keys()), None)
    if unlike is not None:  # torch would drop keys missing from the first sample
        found = f"{sorted(samples[0])} and {sorted(unlike)}"
        raise DataError("samples of different keys cannot share a batch", subject=subject, found=found)
    try:
        return _widened(default_collate(list(samples)))
    except (RuntimeError, TypeError) as error:
        hint = "every plane of a sample needs the image's height and width"
        raise DataError("samples cannot be stacked", subject=subject, found=str(error), hint=hint) from error


def _widened(batch: Batch) -> Batch:
    """Convert images to float32 and class indices to int64 for network and loss; raw samples are left unchanged."""
    if "moves" in batch:
        return batch
    batch["image"] = batch["image"].float()
    for name in ("mask", "instances"):
        plane = batch.get(name)
        if isinstance(plane, torch.Tensor) and not plane.is_floating_point():
            batch[name] = plane.long()
    return batch


def _one_size(sample: dict[str, Any]) -> str:
    if "moves" in sample:  # its size and crop are applied to the batch, which needs images of equal size first
        return 'resize before batches are made: data.cache=true, or transform.train.on="loader"'
    return "set transform.size or transform.crop, or train.batch_size=1"


def by_shape(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Stack samples to batches of equal shapes, in order (to evaluate images at their original sizes)."""
    batches: list[list[dict[str, Any]]] = []
    for sample in samples:
        if batches and batches[-1][0]["image"].shape == sample["image"].shape:
            batches[-1].append(sample)
        else:
            batches.append([sample])
    return [stack(batch) for batch in batches]


def in_groups(batches: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield groups of `size` batches; the last group may have fewer.

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
    """Prepare a batch for the network: move it to the device without waiting, transform it and set its memory layout.

    Args:
        batch: A batch from the loader.
        device: The device of the network.
        transform: The batch transform.
        channels_last: Convert the images to this layout after the transform.

    Raises:
        ConfigError: The samples need a batch transform to finish their transform, and there is none.
    """
    batch = transferred(batch, device)
    if transform is not None:
        batch = transform(batch)
    if left := sorted({"moves", "mixing"} & batch.keys()):
        raise ConfigError(
            "samples of a Transform that needs a BatchTransform",
            found=f"{' and '.join(left)} in the batch",
            hint="give the Trainer batch_transform=unetzoo.datasets.BatchTransform(train.transform), "
            "and the validation data Transform(train=False)",
        )
    return {**batch, "image": batch["image"].to(memory_format=torch.channels_last)} if channels_last else batch


def transferred(batch: Batch, device: torch.device) -> Batch:
    """Move a batch to the device without blocking the host.

    To a GPU, tensors are copied on a separate stream, so that the copy of a batch overlaps with the computation on the
    previous one. The current stream waits only for the copy. This requires pinned memory; copies from other memory
    block the host.

    Args:
        batch: Tensors, and other values that belong to the samples.
        device: The device of the network.

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
        copy.record_stream(working)  # otherwise the side stream reuses this memory too early
    return copies


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
