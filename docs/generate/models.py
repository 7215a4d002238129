"""A page a model: figure, paper, deviations, facts, costs, an example."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import segmentation_models_pytorch as smp

import unetzoo
from unetzoo.models.card import Card
from unetzoo.registry import MODELS

from .markdown import page, source, table

SHOWN: dict[str, dict[str, object]] = {
    "unet": {"in_channels": 1, "classes": 2},
    "r2unet": {"classes": 19},
    "ddunet": {"classes": 19},
}
SIZES = (256, 512, 1024)
EXAMPLES = {
    "unet": """net = unetzoo.build("unet", in_channels=1, classes=2, encoder_channels=[8, 16, 32, 64, 128])
assert net(torch.rand(1, 1, 188, 220)).shape == (1, 2, 4, 36)  # 184 pixels less, as published
logits = unetzoo.predict(net, torch.rand(1, 300, 200))  # mirrored at the border: logits for every pixel
assert logits.shape == (2, 300, 200)""",
    "bnunet": """net = unetzoo.build("bnunet", classes=11, encoder_channels=[8, 16, 32], hidden_act="leaky_relu")
assert net(torch.rand(1, 3, 101, 57)).shape == (1, 11, 101, 57)""",
    "r2unet": """net = unetzoo.build("r2unet", classes=19, encoder_channels=[8, 16, 32], t=3)
assert net(torch.rand(1, 3, 64, 50)).shape == (1, 19, 64, 50)
paper = unetzoo.build("r2unet", variant="paper", encoder_channels=[16, 32, 64, 128])""",
    "ddunet": """net = unetzoo.build("ddunet", classes=19, encoder_channels=[8, 16, 32, 64])
assert net(torch.rand(1, 3, 64, 50)).shape == (1, 19, 64, 50)""",
    "dualunet": """net = unetzoo.build("dualunet", in_channels=3, encoder_name="resnet18")
mask, depth = net(torch.rand(1, 3, 64, 96))
assert mask.shape == depth.shape == (1, 1, 64, 96)""",
}
SMP_VERSION = smp.__version__
KEPT = Path(__file__).parents[2] / "benchmarks" / "results"


def own() -> list[str]:
    """The models that have a card."""
    return list(EXAMPLES)


def wrapped() -> list[str]:
    """SMP's architectures."""
    return [name for name in MODELS.names("smp-*") if MODELS.entry(name).builtin]


def files() -> Iterator[tuple[str, Callable[[], str]]]:
    """Every generated file and what makes it."""
    for name in own():
        yield f"models/{name}.md", functools.partial(model_page, name)
        yield f"models/{name}.svg", functools.partial(unetzoo.draw, name, **SHOWN.get(name, {}))
    yield "models/smp-architectures.md", smp_page
    for name in wrapped():
        yield f"models/{name}.svg", functools.partial(unetzoo.draw, name)


def figure(name: str, title: str) -> str:
    """A page's figure; the SVG holds a full description of itself."""
    return f"![Figure of {title}: its stages by resolution, with channels, sizes and skips]({name}.svg)"


def model_page(name: str) -> str:
    """The page of a model with a card."""
    config = SHOWN.get(name, {})
    info = unetzoo.info(name, **config)
    card, target = info.card, MODELS.get(name)
    assert card is not None
    call = ", ".join([f'"{name}"', *(f"{key}={value!r}" for key, value in config.items())])
    return page(
        f"{card.title}: `{name}`",
        figure(name, card.title),
        f"Drawn from the network itself: `unetzoo.draw({call})`, or `unetzoo draw {name}`.",
        origin(card),
        "## Use\n\n```python\nimport torch\n\nimport unetzoo\n\n" + EXAMPLES[name] + "\n```",
        f"Every argument: [{target.__name__}][{target.__module__}.{target.__qualname__}].",
        "## Sizes and costs",
        "\n".join(
            [
                f"- Input: {info.legal_sizes}.",
                f"- Receptive field: {info.receptive_field} pixels; a tile with {info.halo} pixels of context gives "
                "the very numbers of the whole image.",
                f"- Parameters: {info.parameters:,} (`{call}`).",
            ]
        ),
        costs(name, config),
        "## Deviations from the paper",
        table(["the paper", "here", "because"], [(d.paper, d.ours, d.reason) for d in card.deviations]),
        "## Facts",
        "`unetzoo verify` measures each of them again on your machine.",
        table(["fact", "value"], [(fact.name, _value(fact.stated)) for fact in card.facts]),
        *results(name),
        "## Code",
        f"`{target.__module__.replace('.', '/')}.py`, and what networks share: `unetzoo/models/blocks.py`.",
    )


def origin(card: Card) -> str:
    """Where a network comes from."""
    lines = [f"**{card.paper}.** {card.authors}, {card.year}; {source(card.source)}."]
    if card.figure != "none":
        lines.append(f"{card.figure}.")
    return " ".join(lines) + f"\n\n**Faithful to it:** {card.faithful}"


def costs(name: str, config: dict[str, object]) -> str:
    """FLOPs and memory at some sizes."""
    rows = []
    for size in SIZES:
        found = unetzoo.summary(name, size, **config)
        height, width = found.input[1:]
        flops, kept, peak = found.root.flops, found.root.training_bytes, found.inference_bytes
        rows.append((f"{height}×{width}", f"{flops / 1e9:,.0f}", f"{peak / 2**20:,.0f}", f"{kept / 2**20:,.0f}"))
    head = ["image", "GFLOPs", "MiB of maps without gradients", "MiB of maps kept for training"]
    note = (
        f"For one image in float32, by [`unetzoo.summary`][unetzoo.drawing.costs.summary] "
        f"(`unetzoo info {name} --size 512`); a multiplication with an addition is two operations. The least time that "
        f"they need on a device: [`python -m benchmarks.floors {name}`](../performance.md#the-least-that-is-possible)."
    )
    return table(head, rows) + "\n\n" + note


def results(name: str) -> list[str]:
    """What was trained with it, from what the benchmarks keep."""
    rows = []
    for path in sorted(KEPT.glob("*.json")):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept.get("recipe", {}).get("model", {}).get("name") == name:
            scores = kept["scores"].get("best", kept["scores"])
            rows.append((kept["what"], f"{scores['miou']:.3f}", f"`benchmarks/results/{path.name}`"))
    where = "Trained on processors, small and briefly; how, and more of it: [results](../results.md)."
    return ["## Results", where, table(["run", "mean IoU", "kept as"], rows)] if rows else []


def smp_page() -> str:
    """SMP's architectures, one after the other."""
    parts = [
        "segmentation-models-pytorch's own architectures by their names here, each with its default encoder. They take "
        "SMP's keywords, spelt out; `encoder_weights` is None by default, so that nothing is downloaded. "
        f"Figures and counts are of SMP {SMP_VERSION}.",
    ]
    for name in wrapped():
        found = unetzoo.info(name)
        title = MODELS.get(name).__doc__.removeprefix("SMP's ").partition(";")[0]
        encoder = found.signature["encoder_name"]
        line = f"`unetzoo.build({name!r})`: encoder `{encoder}`, {found.parameters:,} parameters."
        parts += [f"## {title}: `{name}`", line.replace("'", '"'), figure(name, title)]
    return page("SMP's architectures", *parts)


def _value(stated: object) -> str:
    return f"{stated:,}" if isinstance(stated, int) else f"{stated:.4g}" if isinstance(stated, float) else str(stated)
