"""Tiled inference, exact and blended, compared with MONAI's sliding window.

MONAI's windows are blended by design: they overlap, and every pixel is a mean of outputs with different context. Each
output is compared with the network's output for the whole image; the note of a row gives the difference, and for exact
tiles the number of pixels that are encoded twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

import unetzoo
from unetzoo.inference import plan_tiles

from .harness import Race
from .inference import settled

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
RUNS = ((8192, 512), (8192, 1024), (16384, 1024)) if CUDA else ((3072, 512), (3072, 1024), (6144, 512))  # image, tile
NETWORKS = {
    "bnunet, 4 poolings, width 8": ("bnunet", {"encoder_channels": (8, 16, 32, 64, 128), "classes": 19}),
}
EXACT = 1e-4  # of the largest output
MEMORY = "1GB"
PLANNED, SAME = f"unetzoo, exact, tile for {MEMORY}", "unetzoo, exact, same tile"


def races() -> Iterator[Race]:
    """One race per network, image and tile."""
    for title, (name, config) in NETWORKS.items():
        torch.manual_seed(0)
        net = settled(unetzoo.build(name, **config)).to(DEVICE)
        for size, tile in RUNS:
            yield race(title, net, size, tile)


def race(title: str, net: Any, size: int, tile: int) -> Race:
    """Outputs are compared in advance, one by one, because those of a large image do not fit into memory together."""
    image = torch.rand(net.in_channels, size, size, device=DEVICE)
    contenders: dict[str, Callable[[], Tensor]] = {
        PLANNED: partial(unetzoo.predict, net, image, memory=MEMORY),
        SAME: partial(unetzoo.predict, net, image, tile=tile),
        f"{PLANNED}, bf16": partial(unetzoo.predict, net, image, memory=MEMORY, precision="bf16"),
        "unetzoo, gaussian": partial(unetzoo.predict, net, image, tile=tile, blend="gaussian"),
        **monais(net, image, tile),
    }
    whole = unetzoo.predict(net, image)
    exact = {PLANNED: {"memory": MEMORY}, SAME: {"memory": "1TB", "tile": tile}}
    notes = {name: agreement(name, call(), whole, name in exact) for name, call in contenders.items()}
    for name, options in exact.items():
        notes[name] += f"; {plan_tiles(net, (size, size), **options)}"
    return Race(
        f"{title}: {size}×{size} by tiles of {tile}",
        {name: partial(shapes, call) for name, call in contenders.items()},
        check=lambda outputs: None,
        notes=notes,
        work=(size * size / 1e6, "megapixels"),
        memory=True,
    )


def shapes(call: Callable[[], Tensor]) -> torch.Size:
    """Do the work and discard the output."""
    return call().shape


def monais(net: Any, image: Tensor, tile: int) -> dict[str, Callable[[], Tensor]]:
    """MONAI's sliding window with its usual arguments; empty if it is not installed."""
    try:
        from monai.inferers import sliding_window_inference
    except ImportError:
        return {}

    def run(overlap: float, mode: str, batch: int, half: bool) -> Tensor:
        with torch.inference_mode(), torch.autocast(DEVICE.type, torch.bfloat16, enabled=half):
            output = sliding_window_inference(image[None], tile, batch, net, overlap=overlap, mode=mode)
        return output[0].float()  # pyright: ignore

    batch = 4 if CUDA else 1  # on a CPU one window at a time is the faster
    return {
        f"MONAI, {mode}, overlap {overlap}{', bf16' * half}": partial(run, overlap, mode, batch, half)
        for half in (False, True)
        for overlap, mode in ((0.25, "constant"), (0.25, "gaussian"), (0.5, "gaussian"))
    }


def agreement(name: str, output: Tensor, whole: Tensor, exact: bool) -> str:
    """The difference of an output from that of the whole image, as text; exact tiles may differ by rounding only."""
    largest, worst, same = whole.abs().amax(), torch.zeros((), device=DEVICE), 0
    for part, wanted in zip(output.split(1024, dim=1), whole.split(1024, dim=1), strict=True):
        worst = torch.maximum(worst, (part - wanted).abs().amax())
        same += int((part.argmax(0) == wanted.argmax(0)).sum())
    error, share = float(worst / largest), 100 * same / whole[0].numel()
    assert error <= (EXACT if exact else 1), f"{name} differs by {error:.2g}"
    return f"largest difference {error:.1e} of the largest output; {share:.4f} % of the pixels in the same class"
