"""bf16 against float32 over network widths and image sizes: where `precision="auto"` takes which, and what it gains.

The loss and gradients of a training step, and the outputs of a prediction, are compared first. The bounds in
`unetzoo.precision` are read off these races.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

import unetzoo
from unetzoo.precision import bf16_units, resolve

from .harness import Race
from .training import DEVICE, Step, batch_of, equal

WIDTHS = ((4, 8, 16), (16, 32, 64), (64, 128, 256))
SIZES = ((32, 8), (64, 8), (256, 1))  # images of a batch


def races() -> Iterator[Race]:
    """Training steps and predictions of a BN-UNet, from tiny to the paper's width."""
    for widths in WIDTHS:
        for size, batch in SIZES:
            yield training(widths, size, batch)
            yield inference(widths, size)


def training(widths: tuple[int, ...], size: int, batch: int) -> Race:
    """A training step in each precision."""
    torch.manual_seed(0)
    net = unetzoo.build("bnunet", classes=2, encoder_channels=widths)
    data = batch_of(size, batch)
    note = _note(resolve("auto", net, DEVICE, batch * size**2))
    steps = {"bf16": Step(copy.deepcopy(net), *data, half=True), "fp32": Step(net, *data)}
    name = f"training step, bnunet of width {widths[0]}, {batch}×3×{size}×{size}"
    return Race(
        name,
        steps,
        partial(equal, peer="fp32", exact=set(), rough={"bf16"}),
        notes={"bf16": note},
        work=(batch, "images"),
    )


def inference(widths: tuple[int, ...], size: int) -> Race:
    """`unetzoo.predict` in each precision."""
    torch.manual_seed(0)
    net = unetzoo.build("bnunet", classes=2, encoder_channels=widths).to(DEVICE).eval()
    image = torch.rand(3, size, size, device=DEVICE)
    note = _note(resolve("auto", net, DEVICE, size**2))
    contenders = {name: partial(unetzoo.predict, net, image, precision=name) for name in ("bf16", "fp32")}
    return Race(f"prediction, bnunet of width {widths[0]}, 3×{size}×{size}", contenders, _near, notes={"bf16": note})


def _near(outputs: dict[str, Tensor]) -> None:
    bf16, fp32 = outputs["bf16"], outputs["fp32"]
    assert (bf16 - fp32).abs().max() <= 5e-2 * fp32.abs().max()


def _note(chosen: str) -> str:
    return f'"auto" chooses {chosen}' + (f" ({bf16_units()} units)" if DEVICE == "cpu" else "")
