"""A training step (forward, cross-entropy, backward, Adam) of our networks and their peers.

Loss and gradients are compared first where the weights are the same. Every network runs as published (float32) and with
what our Trainer chooses (bfloat16 autocast and channels_last); networks with our weights, on a GPU all, also compiled.
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

from .floors import limit
from .harness import Race
from .peers import SAME, missing, others, same
from .structure import Case

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
PRECISION = torch.bfloat16 if CUDA else torch.float32
SIZE, BATCH, CLASSES = 256, 8 if CUDA else 1, 2
SAME_DIRECTION = 0.8  # cosine of gradients; bfloat16 rounding behind 18 batch norms leaves 0.88, compiled or not
Result = tuple[float, list[Tensor]]


def races(size: int = SIZE, batch: int = BATCH) -> Iterator[Race]:
    """One race per network that peers have too."""
    for name in SAME:
        yield race(name, size, batch)


def race(name: str, size: int, batch: int) -> Race:
    """Ours, the common definition with our weights, and other libraries' networks."""
    torch.manual_seed(0)
    net = unetzoo.build(name, classes=CLASSES)
    foreign, notes = others(3, CLASSES) if name == "bnunet" else ({}, {})
    nets = {"unetzoo": net, f"common {name}": same(name, net, classes=CLASSES), **foreign}
    compilable = nets if CUDA else {f"common {name}"}  # a CPU compiles for minutes
    data, steps = batch_of(size, batch), {}
    for key, each in nets.items():
        steps[f"{key}, bf16"] = Step(copy.deepcopy(each), *data, half=True)
        steps[f"{key}, float32"] = Step(copy.deepcopy(each), *data)
        if key in compilable:
            steps[f"{key}, bf16, compiled"] = Step(copy.deepcopy(each), *data, half=True, compiled=True)
        if key in notes:
            notes[f"{key}, float32"] = notes.pop(key)
    if absent := missing():
        notes["unetzoo, bf16"] = absent
    rough = {key for key in steps if key.startswith(("unetzoo", "common")) and "bf16" in key}
    return Race(
        f"{name}, training step, {batch}×3×{size}×{size}",
        steps,
        check=partial(equal, peer=f"common {name}, float32", exact={"unetzoo, float32"}, rough=rough),
        notes=notes,
        work=(batch, "images"),
        memory=True,
        limit=limit(Case(name, (size, size), batch, {"classes": CLASSES}, torch.bfloat16), train=True),
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
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-4, fused=True)
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
    """Loss and gradients must equal those of the peer with our weights; `rough` names the bfloat16 contenders.

    In bfloat16, the loss is equal to 2 %, and the gradients point the same way.
    """
    loss, slopes = outputs[peer]
    largest = max(float(slope.abs().max()) for slope in slopes)
    for name in exact | rough:
        other, others = outputs[name]
        assert abs(other - loss) <= (2e-2 if name in rough else 1e-5) * abs(loss), (name, other, loss)
        if name in rough:
            flat = [torch.cat([slope.flatten() for slope in gradient]) for gradient in (slopes, others)]
            assert torch.cosine_similarity(*flat, dim=0) >= SAME_DIRECTION, name
            continue
        for slope, wanted in zip(others, slopes, strict=True):
            assert (slope - wanted).abs().max() <= 1e-4 * largest, name
