"""A picture by tiles: exact and blended, against MONAI's sliding window, with how far each is from the whole picture.

MONAI's windows are blended by construction: they overlap, and every pixel is a mean of answers with different context.
Each answer is compared with that of the network on the whole picture; the note of a row says how far it is from it, and
for exact tiles how many pixels are encoded twice. UNETZOO_TILING_SIZE sets the side of the picture.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

import unetzoo
from unetzoo.inference import plan_tiles

from .harness import Race
from .inference import settled

SIZE = int(os.environ.get("UNETZOO_TILING_SIZE", "3072"))
TILES = (512, 1024)
NETWORKS = {
    "bnunet, 4 poolings, width 8": ("bnunet", {"encoder_channels": (8, 16, 32, 64, 128), "classes": 19}),
}
EXACT = 1e-4  # of the largest answer
MEMORY = "1GB"
PLANNED, SAME = f"unetzoo, exact, tile for {MEMORY}", "unetzoo, exact, same tile"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def races() -> Iterator[Race]:
    """One race a network and tile."""
    torch.manual_seed(0)
    for title, (name, config) in NETWORKS.items():
        net = settled(unetzoo.build(name, **config)).to(DEVICE)
        picture = torch.rand(net.in_channels, SIZE, SIZE, device=DEVICE)
        whole = unetzoo.predict(net, picture)
        for tile in (tile for tile in TILES if tile < SIZE):
            contenders: dict[str, Callable[[], Tensor]] = {
                PLANNED: partial(unetzoo.predict, net, picture, memory=MEMORY),
                SAME: partial(unetzoo.predict, net, picture, tile=tile),
                "unetzoo, gaussian": partial(unetzoo.predict, net, picture, tile=tile, blend="gaussian"),
                **monais(net, picture, tile),
            }
            notes = {name: agreement(call(), whole) for name, call in contenders.items()}
            fits = {PLANNED: {"memory": MEMORY}, SAME: {"memory": "1TB", "tile": tile}}
            for name, options in fits.items():
                notes[name] += f"; {plan_tiles(net, (SIZE, SIZE), **options)}"
            yield Race(
                f"{title}: {SIZE}×{SIZE} by tiles of {tile}",
                contenders,
                check=partial(exact_and_near, whole=whole),
                notes=notes,
                work=(SIZE * SIZE / 1e6, "megapixels"),
                memory=True,
            )


def monais(net: Any, picture: Tensor, tile: int) -> dict[str, Callable[[], Tensor]]:
    """MONAI's sliding window as people call it; none where it is not installed."""
    try:
        from monai.inferers import sliding_window_inference
    except ImportError:
        return {}

    def run(overlap: float, mode: str, batch: int) -> Tensor:
        with torch.inference_mode():
            answer = sliding_window_inference(picture[None], tile, batch, net, overlap=overlap, mode=mode)
        return answer[0]  # pyright: ignore

    batch = 4 if DEVICE.type == "cuda" else 1  # on a CPU one window at a time is the faster
    return {
        f"MONAI, {mode}, overlap {overlap}": partial(run, overlap, mode, batch)
        for overlap, mode in ((0.25, "constant"), (0.25, "gaussian"), (0.5, "gaussian"))
    }


def agreement(answer: Tensor, whole: Tensor) -> str:
    """How an answer differs from the whole picture's, as readers of the table see it."""
    error = ((answer - whole).abs().max() / whole.abs().max()).item()
    same = (answer.argmax(0) == whole.argmax(0)).double().mean().item()
    return f"largest difference {error:.1e} of the largest answer; {100 * same:.4f} % of the pixels in the same class"


def exact_and_near(answers: dict[str, Tensor], whole: Tensor) -> None:
    """Exact tiles are the whole; blended ones are of its kind at least."""
    errors = {name: (answer - whole).abs().max() / whole.abs().max() for name, answer in answers.items()}
    for name, error in errors.items():
        assert error <= (EXACT if name in (PLANNED, SAME) else 1), f"{name} differs by {error:.2g}"
