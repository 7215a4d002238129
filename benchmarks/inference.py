"""Inference of our networks, as built and optimized, compared with other implementations.

The outputs of contenders with the same weights are compared first. Networks of others run as published (float32), and
in bfloat16 with channels_last; those with our weights, on a GPU all, also compiled. On a GPU with batches of 8 and 1.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

import unetzoo
from unetzoo.heads import split_heads
from unetzoo.inference.engines import Engine, run_by
from unetzoo.inference.openvino import compiled, network_model, quantized

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
SIZE = 256
EXACT, ROUGH = 1e-4, 0.15  # of the largest output of an untrained network


def races() -> Iterator[Race]:
    """One race per network and batch."""
    for name, config in NETWORKS.items():
        for batch in (8, 1) if CUDA else (1,):
            yield race(name, config, batch)


def race(name: str, config: dict[str, Any], batch: int, size: int = SIZE) -> Race:
    """The contenders, ours first."""
    torch.manual_seed(0)
    net = settled(unetzoo.build(name, **config)).to(DEVICE)
    size = net.geometry.fit(size)
    x = torch.randn(batch, net.in_channels, size, size).to(DEVICE)
    foreign, notes = others(3, 1) if name == "bnunet" else ({}, {})
    peers: dict[str, Any] = {f"common {name}": same(name, net)} if name in SAME else {}
    peers |= {key: each.eval() for key, each in foreign.items()}
    calls: dict[str, Callable[[Tensor], Any]] = {
        "unetzoo.optimize, bf16": unetzoo.optimize(net, example=x, dtype=torch.bfloat16, tolerance=ROUGH),
        "unetzoo.optimize, float32": unetzoo.optimize(net, example=x, dtype=torch.float32),
    }
    if not CUDA:
        calls |= engines(net, x)
    calls["eager, float32"] = net
    for key, each in peers.items():
        calls[f"{key}, float32"] = each.to(DEVICE)
        if key in notes:
            notes[f"{key}, float32"] = notes.pop(key)
        calls[f"{key}, bf16"] = by_our_recipe(each, compiled=CUDA)
        if key.startswith("common"):
            calls[f"{key}, bf16, compiled"] = by_our_recipe(each, compiled=True)
    if absent := missing():
        notes["eager, float32"] = absent
    comparable = {key for key in calls if key.startswith(("unetzoo", "eager", "common", "OpenVINO", "ONNX"))}
    comparable -= {"OpenVINO, int8"}  # `export` compares it, by the score of a trained network
    return Race(
        f"{name}, {net.in_channels}×{size}×{size}, batch {batch}, inference",
        {key: partial(run, call, x) for key, call in calls.items()},
        check=partial(equal, among=comparable),
        notes=notes | ({} if CUDA else {"OpenVINO, int8": "calibrated with random images; only its speed is measured"}),
        work=(batch, "images"),
        memory=True,
        limit=limit(Case(name, (size, size), batch, config, torch.bfloat16), train=False),
    )


def engines(net: Any, x: Tensor) -> dict[str, Callable[[Tensor], Any]]:
    """The network in OpenVINO and ONNX Runtime, as far as they are installed."""
    found: dict[str, Callable[[Tensor], Any]] = {}
    _, rebuild = split_heads(net(x))
    if find_spec("openvino"):
        model = network_model(net, torch.cat([x, x]), fixed=True)
        for precision in ("bf16", "float32"):
            found[f"OpenVINO, {precision}"] = Engine(net, compiled(model, precision), rebuild)
        if find_spec("nncf"):
            images = [torch.randn_like(x).numpy() for _ in range(4)]
            found["OpenVINO, int8"] = Engine(net, compiled(quantized(model, images), "int8"), rebuild)
    if find_spec("onnxruntime"):
        found["ONNX Runtime, float32"] = run_by(net, "onnx")
    return found


def by_our_recipe(net: nn.Module, *, compiled: bool) -> Callable[[Tensor], Any]:
    """A peer's network in bfloat16 and channels_last: autocast on a CPU, converted weights on a GPU."""
    layout = torch.channels_last
    tuned = copy.deepcopy(net).eval().to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    tuned = tuned.to(torch.bfloat16) if CUDA else tuned
    ready = torch.compile(tuned) if compiled else tuned

    def call(x: Tensor) -> Any:
        x = x.to(torch.bfloat16 if CUDA else x.dtype, memory_format=layout)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=not CUDA):
            return ready(x)

    return call


def settled(net: nn.Module, like: nn.Module | None = None) -> Any:
    """Evaluation mode, with running statistics of a few batches so that outputs have a normal scale."""
    if like is not None:
        net.load_state_dict(like.state_dict())
        return net.eval()
    size = net.geometry.fit(64)  # pyright: ignore
    with torch.no_grad():
        net.train()
        for _ in range(8):
            net(torch.randn(2, net.in_channels, size, size))  # pyright: ignore
    return net.eval()


def run(net: Callable[[Tensor], Any], x: Tensor) -> Any:
    with torch.inference_mode():
        return net(x)


def equal(outputs: dict[str, Any], among: set[str]) -> None:
    """Outputs of the same weights must equal the eager output up to rounding."""
    wanted = flat(outputs["eager, float32"])
    for name in among:
        error = (flat(outputs[name]) - wanted).abs().max() / wanted.abs().max()
        assert error <= (EXACT if "float32" in name else ROUGH), f"{name} differs by {error:.2g} of the largest output"


def flat(output: Any) -> Tensor:
    return torch.cat([part.flatten().float() for part in (output if isinstance(output, tuple) else (output,))])
