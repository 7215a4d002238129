"""One picture through a network: as it is, and optimized."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import unetzoo

from .harness import Race

NETWORKS = {
    "bnunet": {},
    "r2unet": {},
    "ddunet": {},
    "unet": {"in_channels": 1, "classes": 2},
    "dualunet": {},
}
SIZE = 256


def races() -> Iterator[Race]:
    """One race a network."""
    torch.manual_seed(0)
    for name, config in NETWORKS.items():
        net = settled(unetzoo.build(name, **config))
        size = net.geometry.fit(SIZE)
        x = torch.randn(1, net.in_channels, size, size)
        yield Race(
            f"{name}, {net.in_channels}×{size}×{size}, batch 1, inference",
            {
                "unetzoo.optimize": partial(run, unetzoo.optimize(net), x),
                "unetzoo.optimize, compiled": partial(run, unetzoo.optimize(net, compile=True, example=x), x),
                "eager": partial(run, net, x),
                "eager, channels_last": partial(
                    run,
                    settled(unetzoo.build(name, **config), net).to(memory_format=torch.channels_last),  # pyright: ignore
                    x.to(memory_format=torch.channels_last),
                ),
            },
            check=partial(equal, tolerance=1e-4),
            work=(1, "pictures"),
        )


def settled(net: nn.Module, like: nn.Module | None = None) -> Any:
    """Evaluation mode with statistics that a few batches left, so that answers are of ordinary size."""
    if like is not None:
        net.load_state_dict(like.state_dict())
        return net.eval()
    size = net.geometry.fit(64)  # pyright: ignore
    with torch.no_grad():
        net.train()
        for _ in range(20):
            net(torch.randn(2, net.in_channels, size, size))  # pyright: ignore
    return net.eval()


def run(net: Callable[[Tensor], Any], x: Tensor) -> Any:
    with torch.inference_mode():
        return net(x)


def equal(answers: dict[str, Any], tolerance: float) -> None:
    """All answers as far from the last as rounding takes them."""
    wanted = flat(answers["eager"])
    for name, answer in answers.items():
        error = (flat(answer) - wanted).abs().max() / wanted.abs().max()
        assert error <= tolerance, f"{name} differs by {error:.2g} of the largest answer"


def flat(answer: Any) -> Tensor:
    return torch.cat([part.flatten() for part in (answer if isinstance(answer, tuple) else (answer,))])
