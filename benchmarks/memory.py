"""Memory and time of a training step with and without `save_memory`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

import unetzoo

from .floors import dtype_name
from .harness import Race
from .peers import SAME
from .training import BATCH, CLASSES, CUDA, PRECISION, SIZE, Step, batch_of, equal


def races(size: int = SIZE, batch: int = BATCH) -> Iterator[Race]:
    """One race per network."""
    for name in SAME:
        yield memory_saving(name, size, batch)


def memory_saving(name: str, size: int, batch: int) -> Race:
    """One network with and without `save_memory`."""
    torch.manual_seed(0)
    net = unetzoo.build(name, classes=CLASSES)
    other = unetzoo.build(name, classes=CLASSES)
    other.load_state_dict(net.state_dict())
    image, mask = batch_of(size, 4 * batch)
    steps = {
        "save_memory": Step(other, image, mask, half=CUDA, save=True),
        "without": Step(net, image, mask, half=CUDA),
    }
    same, near = (set(), {"save_memory"}) if CUDA else ({"save_memory"}, set())
    return Race(
        f"{name}, training step with save_memory, {4 * batch}×3×{size}×{size}, {dtype_name(PRECISION)}",
        steps,
        check=partial(equal, peer="without", exact=same, rough=near),
        work=(4 * batch, "images"),
        memory=True,
    )
