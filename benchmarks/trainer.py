"""Overhead of the Trainer over a bare loop, at the paper's width, on the same batches and with equal losses.

A run is a whole `fit` (with its rehearsal, the checks of every step and the log of the epoch); the bare loop is
forward, loss, backward and optimizer step alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

import unetzoo
from unetzoo.training.data import make_loader
from unetzoo.training.optim import make_optimizer

from .harness import Race

CLASSES = 2


class Images:
    """Tensors in memory, so that loading takes no time."""

    labels = unetzoo.LabelSpec(("background", "thing"))
    transform = None

    def __init__(self, length: int, size: int) -> None:
        draw = torch.Generator().manual_seed(0)
        self.images = torch.rand(length, 3, size, size, generator=draw)
        self.masks = (self.images.mean(1) > 0.5).long()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "mask": self.masks[index], "id": str(index)}


def races() -> Iterator[Race]:
    cuda = torch.cuda.is_available()
    steps, batch, size = (80, 8, 256) if cuda else (3, 2, 256)
    yield race("fp32", {"precision": "fp32"}, steps, batch, size)
    if cuda:
        yield race("bf16", {"precision": "bf16"}, steps, batch, size)
        yield race("bf16, channels_last", {"precision": "bf16", "channels_last": True}, steps, batch, size)


def race(name: str, settings: dict[str, Any], steps: int, batch: int, size: int) -> Race:
    """The bare loop and the Trainer, each with its own network and the same weights before every run."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data, loss = Images(steps * batch, size), unetzoo.LOSSES.build("ce")
    torch.manual_seed(0)
    start = {k: v.clone() for k, v in unetzoo.build("bnunet", classes=CLASSES).state_dict().items()}
    nets = {who: unetzoo.build("bnunet", classes=CLASSES).to(device) for who in ("bare loop", "Trainer")}
    layout = torch.channels_last if settings.get("channels_last") else torch.contiguous_format
    bare = nets["bare loop"].to(memory_format=layout)
    dtype = torch.bfloat16 if settings.get("precision") == "bf16" else None

    def bare_loop() -> float:
        net, optimizer = bare, make_optimizer(bare, "adamw", lr=1e-4)
        loader = make_loader(data, batch_size=batch, seed=0, workers=0, rank=0, world=1, train=True)
        net.train()
        total = torch.zeros((), device=device)
        for samples in loader:
            images = samples["image"].to(device, non_blocking=True).contiguous(memory_format=layout)
            masks = samples["mask"].to(device, non_blocking=True)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                logits = net(images)
            value = loss(logits.float(), masks)
            value.backward()
            optimizer.step()
            total += value.detach()
        return float(total) / steps

    def trainer() -> float:
        net = nets["Trainer"]
        made = unetzoo.Trainer(
            net,
            loss,
            optimizer=make_optimizer(net, "adamw", lr=1e-4),
            epochs=1,
            batch_size=batch,
            progress=False,
            **settings,
        )
        return made.fit(data)[0]["train/loss"]

    def reset() -> None:
        for net in nets.values():
            net.load_state_dict(start)

    def check(losses: dict[str, float]) -> None:
        np.testing.assert_allclose(losses["Trainer"], losses["bare loop"], rtol=1e-4 if dtype is None else 1e-2)

    reset()
    what = f"bnunet at width 64, {steps} steps of {batch}×{size}², AdamW, {name}"
    return Race(what, {"Trainer": trainer, "bare loop": bare_loop}, check, work=(steps, "steps"), between=reset)
