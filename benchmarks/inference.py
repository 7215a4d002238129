"""Inference of our networks, as built and optimized, compared with other implementations.

The outputs of contenders with the same weights are compared first. On a GPU in float32, and in bfloat16 with
channels_last, compiled, with batches of 8 and 1.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import unetzoo

from .floors import limit
from .harness import Race
from .peers import SAME, missing, others, same
from .structure import Case

NETWORKS = {
    "bnunet": {},
    "r2unet": {},
    "ddunet": {},
    "unet": {"in_channels": 1, "classes": 2},
    "dualunet": {},
}
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
PRECISION = torch.bfloat16 if CUDA else torch.float32
SIZE = 256
RECIPE = "bfloat16, channels innermost, compiled"


def races() -> Iterator[Race]:
    """One race per network and batch."""
    for name, config in NETWORKS.items():
        for batch in (8, 1) if CUDA else (1,):
            yield race(name, config, batch)


def race(name: str, config: dict[str, Any], batch: int, size: int = SIZE) -> Race:
    """The contenders, ours first: the fastest variant that needs no compiler on a CPU, compiled on a GPU."""
    torch.manual_seed(0)
    net = settled(unetzoo.build(name, **config)).to(DEVICE)
    size = net.geometry.fit(size)
    x = torch.randn(batch, net.in_channels, size, size).to(DEVICE)
    notes: dict[str, str] = {}
    calls: dict[str, tuple[Callable[[Tensor], Any], Tensor]]
    if CUDA:
        calls = {
            "unetzoo.optimize, compiled": (unetzoo.optimize(net, compile=True, example=x), x.bfloat16()),
            "unetzoo.optimize": (unetzoo.optimize(net, example=x), x.bfloat16()),
        }
        notes["unetzoo.optimize, compiled"] = "bfloat16"
        notes["unetzoo.optimize"] = "bfloat16"
    else:
        calls = {
            "unetzoo.optimize": (unetzoo.optimize(net, example=x), x),
            "unetzoo.optimize, compiled": (unetzoo.optimize(net, compile=True, example=x), x),
        }
    calls["eager"] = (net, x)
    last, innermost = settled(unetzoo.build(name, **config), net), torch.channels_last
    calls["eager, channels_last"] = (last.to(DEVICE, memory_format=innermost), x.to(memory_format=innermost))
    if name in SAME:
        peer = same(name, net).to(DEVICE)
        calls[f"common {name}, eager"] = (peer, x)
        if CUDA:
            calls[f"common {name}, our recipe"] = by_our_recipe(same(name, net), x)
    if name == "bnunet":
        foreign, about = others(3, 1)
        calls |= {key: (each.eval().to(DEVICE), x) for key, each in foreign.items()}
        notes |= about
        if CUDA:
            calls |= {f"{key}, our recipe": by_our_recipe(copy.deepcopy(each), x) for key, each in foreign.items()}
        if absent := missing():
            notes["eager"] = absent
    notes |= dict.fromkeys((key for key in calls if key.endswith("our recipe")), RECIPE)
    comparable = {key for key in calls if key.startswith(("unetzoo", "eager", "common"))}
    return Race(
        f"{name}, {net.in_channels}×{size}×{size}, batch {batch}, inference",
        {key: partial(run, *call) for key, call in calls.items()},
        check=partial(equal, tolerance=0.1 if CUDA else 1e-4, among=comparable),
        notes=notes,
        work=(batch, "images"),
        memory=True,
        limit=limit(Case(name, (size, size), batch, config, PRECISION), train=False),
    )


def by_our_recipe(net: nn.Module, x: Tensor) -> tuple[Callable[[Tensor], Any], Tensor]:
    """A peer's network with our recipe on a GPU, and its input."""
    layout = torch.channels_last
    tuned = net.eval().to(DEVICE, torch.bfloat16, memory_format=layout)  # pyright: ignore[reportCallIssue]
    return torch.compile(tuned), x.to(torch.bfloat16, memory_format=layout)


def settled(net: nn.Module, like: nn.Module | None = None) -> Any:
    """Evaluation mode, with running statistics of a few batches so that outputs have a normal scale."""
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


def equal(outputs: dict[str, Any], tolerance: float, among: set[str]) -> None:
    """Outputs of the same weights must equal the eager output up to rounding."""
    wanted = flat(outputs["eager"])
    for name in among:
        error = (flat(outputs[name]) - wanted).abs().max() / wanted.abs().max()
        assert error <= tolerance, f"{name} differs by {error:.2g} of the largest output"


def flat(output: Any) -> Tensor:
    return torch.cat([part.flatten().float() for part in (output if isinstance(output, tuple) else (output,))])
