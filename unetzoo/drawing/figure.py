"""Draw any network as a U-Net figure."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..wording import pluralize
from .layout import lay_out
from .reading import figure_of
from .stages import Figure, Stage
from .svg import render
from .trace import Trace, traced


def draw(model: str | nn.Module, size: int | None = None, *, title: str | None = None, **config: Any) -> str:
    """Draw a network as an SVG figure: stages by resolution, channels, sizes, skips, dilation, recurrence.

    The network runs once on a blank image (on the meta device if possible) and is drawn from the recorded operations,
    so any network that takes one image works, whether from this library, SMP, a plugin or your own code.

    Args:
        model: A registry name, or a network.
        size: Height and width of the image, rounded up to a legal size. By default 256, or 572 for a network whose
            output is smaller than its image (the U-Net paper's figure).
        title: Heading. Default: the name of the network.
        config: Constructor arguments of a network given by name. For a network that is already built, only
            `in_channels`, for when the image's channels differ from those of the first convolution.

    Raises:
        ConfigError: The network rejects the size, or constructor arguments are given for an existing network.
        UnknownNameError: There is no such model.
        UnknownKeywordError: The model does not accept a keyword.

    Examples:
        >>> import unetzoo
        >>> svg = unetzoo.draw("r2unet", classes=19, encoder_channels=[8, 16, 32])
        >>> svg.startswith("<svg") and "3×256×256 → 19×256×256" in svg
        True
    """
    net, trace = traced(model, size, **config)
    figure = figure_of(trace)
    title = title or _title(model, net)
    return render(lay_out(figure, trace.shape[1]), title, _subtitle(net, trace), describe(figure))


def _title(model: str | nn.Module, net: nn.Module) -> str:
    card = getattr(net, "card", None)
    if card is not None:
        return card.title
    name = type(net).__name__
    return name if isinstance(model, nn.Module) else f"{name} ({model})"


def _subtitle(net: nn.Module, trace: Trace) -> str:
    def extent(shape: tuple[int, ...]) -> str:
        return "×".join(map(str, shape[1:]))

    outputs = [f"{name} {extent(shape)}".strip() for (name, _), shape in zip(trace.outputs, trace.shapes, strict=True)]
    count = sum(p.numel() for p in net.parameters())
    return f"{extent(trace.shape)} → {', '.join(outputs)} · {count:,} parameters"


def describe(figure: Figure) -> str:
    """Describe a figure in words for screen readers.

    Args:
        figure: Stages and edges.
    """
    names = {number: f"stage {place}" for place, number in enumerate(figure.stages, 1)}
    sentences = []
    for number, stage in figure.stages.items():
        sentence = f"{names[number].capitalize()}, {stage.size[0]}×{stage.size[1]}: {_contents(stage)}"
        ways = [f"{edge.label or 'skip'} from {names[edge.source]}" for edge in figure.into(number)]
        sentence += f"; {', '.join(ways)}" if ways else ""
        sentence += "".join(f"; outputs {name or 'logits'}, {pluralize(c, 'channel')}" for name, c in stage.outputs)
        sentences.append(sentence + ".")
    return " ".join(sentences)


def _contents(stage: Stage) -> str:
    layers = [layer for layer in stage.layers if layer.kind in ("conv", "attention")]
    if not layers:
        return pluralize(stage.channels, "channel")
    if len(layers) > 6:
        return f"{len(layers)} layers, {pluralize(stage.channels, 'channel')}"
    words = []
    for layer in layers:
        kernel = f"{layer.kernel}×{layer.kernel} convolution" if layer.kind == "conv" else "attention"
        dilation = f" with dilation {layer.dilation}" if layer.dilation > 1 else ""
        times = f", applied {layer.times} times" if layer.times > 1 else ""
        words.append(f"{kernel}{dilation} to {pluralize(layer.channels, 'channel')}{times}")
    return ", ".join(words)
