"""Batches on their way to the device: on a GPU they travel while it still works on what came before."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

Batch = dict[str, Any]


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
