"""A training step (forward, cross-entropy, backward, Adam) of our networks and their peers.

Loss and gradients are compared first where the weights are the same. On a GPU all contenders run as published (float32)
and with our recipe (bfloat16, channels_last, compiled).
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import unetzoo
from unetzoo.recompute import save_memory

from .floors import dtype_name, limit
from .harness import Race
from .peers import SAME, missing, others, same
from .structure import Case

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
PRECISION = torch.bfloat16 if CUDA else torch.float32
SIZE, BATCH, CLASSES = 256, 8 if CUDA else 1, 2
Result = tuple[float, list[Tensor]]


def races(size: int = SIZE, batch: int = BATCH) -> Iterator[Race]:
    """One race per network that peers have too, then memory with and without `save_memory`."""
    for name in SAME:
        yield race(name, size, batch)
    for name in SAME:
        yield memory_saving(name, size, batch)


def race(name: str, size: int, batch: int) -> Race:
    """Ours, the common definition with our weights, and other libraries' networks."""
    torch.manual_seed(0)
    net = unetzoo.build(name, classes=CLASSES)
    ours, common = f"unetzoo {name}", f"common {name}, eager"
    foreign, notes = others(3, CLASSES) if name == "bnunet" else ({}, {})
    nets = {ours: net, common: same(name, net, classes=CLASSES), **foreign}
    if absent := missing():
        notes[ours] = absent
    data = batch_of(size, batch)
    steps = {}
    if CUDA:
        steps = {
            f"{key}, our recipe": Step(copy.deepcopy(each), *data, half=True, compiled=True)
            for key, each in nets.items()
        }
        notes |= dict.fromkeys(steps, "bfloat16, channels innermost, compiled")
    steps |= {key: Step(each, *data) for key, each in nets.items()}
    rough = {f"{ours}, our recipe", f"{common}, our recipe"} & set(steps)
    return Race(
        f"{name}, training step, {batch}×3×{size}×{size}, float32 where not said otherwise",
        steps,
        check=partial(equal, peer=common, exact={ours}, rough=rough),
        notes=notes,
        work=(batch, "images"),
        memory=True,
        limit=limit(Case(name, (size, size), batch, {"classes": CLASSES}, PRECISION), train=True),
    )


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


def batch_of(size: int, batch: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    image = torch.rand(batch, 3, size, size, generator=draw)
    return image.to(DEVICE), (image.mean(1) > 0.5).long().to(DEVICE)


class Step:
    """One training step; return the loss and the gradients before the update."""

    def __init__(
        self,
        net: nn.Module,
        image: Tensor,
        mask: Tensor,
        half: bool = False,
        compiled: bool = False,
        save: bool = False,
    ) -> None:
        self.net, self.image, self.mask, self.half = net.to(DEVICE).train(), image, mask, half
        self.saving = save_memory if save else contextlib.nullcontext
        if half:
            self.net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
            self.image = image.to(memory_format=torch.channels_last)
        self.run: Callable[[Tensor], Any] = torch.compile(self.net) if compiled else self.net
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-4, fused=CUDA)
        self.steps = 0

    def __call__(self) -> Result | None:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=self.half):
            with self.saving():
                output = self.run(self.image)
            loss = F.cross_entropy(output, self.mask)
        loss.backward()
        first = None
        if self.steps == 0:
            first = float(loss.detach()), [p.grad.float().clone() for p in self.net.parameters() if p.grad is not None]
        self.optimizer.step()
        self.steps += 1
        return first


def equal(outputs: dict[str, Any], peer: str, exact: set[str], rough: set[str]) -> None:
    """Loss and gradients must equal those of the peer with our weights; `rough` names the bfloat16 contenders."""
    loss, slopes = outputs[peer]
    largest = max(float(slope.abs().max()) for slope in slopes)
    for name in exact | rough:
        other, others = outputs[name]
        assert abs(other - loss) <= (2e-2 if name in rough else 1e-5) * abs(loss), (name, other, loss)
        for slope, wanted in zip(others, slopes, strict=True):
            assert (slope - wanted).abs().max() <= (5e-2 if name in rough else 1e-4) * largest, name
