"""One page per model: figure, paper, deviations, facts, costs, an example."""

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
assert net(torch.rand(1, 1, 188, 220)).shape == (1, 2, 4, 36)  # 184 pixels smaller, as published
logits = unetzoo.predict(net, torch.rand(1, 300, 200))  # mirrored borders: logits for every pixel
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
    """Every generated file with the function that creates it."""
    for name in own():
        yield f"models/{name}.md", functools.partial(model_page, name)
        yield f"models/{name}.svg", functools.partial(unetzoo.draw, name, **SHOWN.get(name, {}))
    yield "models/smp-architectures.md", smp_page
    for name in wrapped():
        yield f"models/{name}.svg", functools.partial(unetzoo.draw, name)


def figure(name: str, title: str) -> str:
    """A page's figure; the SVG holds a full description of itself."""
    return f"![Figure of {title}: stages by resolution, with channels, sizes and skips]({name}.svg)"


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
        f"Drawn by `unetzoo.draw({call})` or `unetzoo draw {name}`.",
        origin(card),
        "## Use\n\n```python\nimport torch\n\nimport unetzoo\n\n" + EXAMPLES[name] + "\n```",
        f"Arguments: [{target.__name__}][{target.__module__}.{target.__qualname__}].",
        "## Sizes and costs",
        "\n".join(
            [
                f"- Input sizes: {info.legal_sizes.removeprefix('sizes ')}.",
                f"- Receptive field: {info.receptive_field} pixels. Exact tiles need {info.halo} pixels of context.",
                f"- Parameters: {info.parameters:,} (`{call}`).",
            ]
        ),
        costs(name, config),
        "## Deviations",
        table(["original", "unetzoo", "reason"], [(d.paper, d.ours, d.reason) for d in card.deviations]),
        "## Facts",
        f"`unetzoo verify {name}` checks these facts on your machine.",
        table(["fact", "value"], [(fact.name, _value(fact.stated)) for fact in card.facts]),
        *results(name),
        "## Code",
        f"`{target.__module__.replace('.', '/')}.py`, with shared blocks in `unetzoo/models/blocks.py`.",
    )


def origin(card: Card) -> str:
    """Paper and source of a network."""
    paper = card.paper.removeprefix("none: ")
    title = f"**{paper}.**" if paper == card.paper else f"**No paper.** {paper[0].upper()}{paper[1:]}:"
    lines = [f"{title} {card.authors}, {card.year}; {source(card.source)}."]
    if card.figure != "none":
        lines.append(f"{card.figure}.")
    return " ".join(lines) + f"\n\n**As published:** {card.faithful}"


def costs(name: str, config: dict[str, object]) -> str:
    """FLOPs and memory at several sizes."""
    rows = []
    for size in SIZES:
        found = unetzoo.summary(name, size, **config)
        height, width = found.input[1:]
        flops, kept, peak = found.root.flops, found.root.training_bytes, found.inference_bytes
        rows.append((f"{height}×{width}", f"{flops / 1e9:,.0f}", f"{peak / 2**20:,.0f}", f"{kept / 2**20:,.0f}"))
    head = ["image", "GFLOPs", "MiB of activations, inference", "MiB of activations, training"]
    note = (
        f"For one image in float32, by [`unetzoo.summary`][unetzoo.drawing.costs.summary] "
        f"(`unetzoo info {name} --size 512`); a multiply–add counts as two operations. Minimum time on a device: "
        f"[`python -m benchmarks.floors {name}`](../performance.md#theoretical-minimum)."
    )
    return table(head, rows) + "\n\n" + note


def results(name: str) -> list[str]:
    """Stored results of the network."""
    rows = []
    for path in sorted(KEPT.glob("*.json")):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept.get("recipe", {}).get("model", {}).get("name") == name:
            scores = kept["scores"].get("best", kept["scores"])
            rows.append((kept["what"], f"{scores['miou']:.3f}", f"`benchmarks/results/{path.name}`"))
    where = "Short training runs on a CPU with narrow networks; [Results](../results.md) has the details."
    return ["## Results", where, table(["run", "mean IoU", "file"], rows)] if rows else []


def smp_page() -> str:
    """The page of SMP's architectures."""
    parts = [
        "The architectures of segmentation-models-pytorch under their registry names, with their default encoders. "
        "They take SMP's keywords; `encoder_weights` is None by default, so nothing is downloaded. "
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
