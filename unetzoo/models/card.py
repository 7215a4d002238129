"""Cards: a network's paper, where ours differs from it, and the facts that `unetzoo verify` measures again."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..contracts import check_built
from ..errors import ConfigError, PluginBuildError, UnetzooError
from ..heads import heads_of
from ..registry import MODELS


@dataclass(frozen=True)
class Deviation:
    """One place where a network differs from its paper."""

    paper: str
    ours: str
    reason: str


@dataclass(frozen=True)
class Fact:
    """A statement about a network that can be measured.

    Args:
        name: What is stated, with the configuration.
        stated: The value.
        measure: Measures it again, given the class.
    """

    name: str
    stated: Any
    measure: Callable[[type], Any]

    def agrees(self, measured: Any) -> bool:
        """Whether a measurement is the stated value (within 2 % where it is a drawn quantity)."""
        if isinstance(self.stated, float):
            return abs(measured - self.stated) <= 0.02 * abs(self.stated)
        return measured == self.stated


@dataclass(frozen=True)
class Card:
    """Where a network comes from and what is known of it.

    Args:
        title: The network's usual name.
        paper: Title of the paper.
        authors: Its authors.
        year: Its year.
        source: Where to read it.
        figure: The figure that shows the network.
        faithful: What follows the paper.
        deviations: What does not, with the reason.
        facts: What is stated of the network, each measurable.
    """

    title: str
    paper: str
    authors: str
    year: int
    source: str
    figure: str
    faithful: str
    deviations: tuple[Deviation, ...] = ()
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True)
class Info:
    """Result of `info`."""

    name: str
    distribution: str
    version: str
    signature: dict[str, Any]
    parameters: int
    output_sizes: dict[int, tuple[int, ...]]
    legal_sizes: str
    receptive_field: int | None
    halo: int | None
    tags: tuple[str, ...]
    card: Card | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        plain = {**self.__dict__, "card": None}
        if self.card is not None:
            card = {**self.card.__dict__}
            card["deviations"] = [deviation.__dict__ for deviation in self.card.deviations]
            card["facts"] = [{"name": fact.name, "stated": fact.stated} for fact in self.card.facts]
            plain["card"] = card
        return plain


def info(name: str, **config: Any) -> Info:
    """Describe a model: signature, parameters, sizes, card.

    Args:
        name: Its registry name.
        config: Constructor arguments; the defaults otherwise.

    Raises:
        UnknownNameError: No such model or keyword.

    Examples:
        >>> import unetzoo
        >>> unetzoo.info("unet", in_channels=1, classes=2).parameters
        31030658
    """
    entry = MODELS.entry(name)
    target = MODELS.get(name)
    signature = {
        p.name: None if p.default is p.empty else p.default for p in inspect.signature(target).parameters.values()
    }
    net = _without_memory(name, config)
    geometry = getattr(net, "geometry", None)
    return Info(
        name=entry.name,
        distribution=entry.distribution,
        version=entry.version,
        signature=signature,
        parameters=sum(p.numel() for p in net.parameters()),
        output_sizes=_output_sizes(net, config.get("in_channels") or signature.get("in_channels") or 3),
        legal_sizes=net.legal_sizes() if hasattr(net, "legal_sizes") else "not stated",
        receptive_field=geometry.receptive_field if geometry else None,
        halo=geometry.halo if geometry else None,
        tags=tuple(getattr(target, "tags", ())),
        card=getattr(net, "card", None),
    )


def verify(pattern: str = "*") -> Iterator[tuple[str, Fact, Any]]:
    """Measure every fact of every card again: yields (model, fact, measured).

    Args:
        pattern: Shell pattern of model names.

    Raises:
        ConfigError: No model of that name has a card.
    """
    found = False
    for name in MODELS.names(pattern):
        if MODELS.entry(name).builtin and name.startswith("smp-"):
            continue  # SMP's own networks have no card of ours
        model = MODELS.get(name)
        card = getattr(model, "card", None)
        for fact in card.facts if card else ():
            found = True
            try:
                measured = fact.measure(model)
            except UnetzooError as error:
                measured = str(error)
            yield name, fact, measured
    if not found:
        raise ConfigError("nothing to verify", subject=pattern, hint="name a model that has a card; see `unetzoo list`")


def pretrained_text(
    name: str,
    card: Card | None,
    arguments: Mapping[str, Any],
    metrics: Mapping[str, Any] | None = None,
    dataset: str | None = None,
) -> str:
    """The README beside saved weights."""
    lines = [
        "---",
        "library_name: unetzoo",
        "pipeline_tag: image-segmentation",
        "tags:",
        "- unetzoo",
        "- semantic-segmentation",
        "---",
        f"# {card.title if card else name}",
        "",
        "```python",
        "import unetzoo",
        "",
        'net = unetzoo.from_pretrained("<this folder or repository>")',
        "```",
        "",
        "## Arguments",
        "",
        "```json",
        json.dumps(dict(arguments), indent=2),
        "```",
    ]
    if card:
        lines += ["", "## Source", "", f"{card.authors}: *{card.paper}* ({card.year}), {card.source}."]
        lines += ["", "## Deviations from the paper", ""]
        lines += [f"- {d.paper} Ours: {d.ours} Reason: {d.reason}" for d in card.deviations]
    if dataset:
        lines += ["", f"Dataset: {dataset}"]
    if metrics:
        lines += ["", "## Metrics", "", "```json", json.dumps(dict(metrics), indent=2), "```"]
    return "\n".join(lines) + "\n"


def _without_memory(name: str, config: dict[str, Any]) -> Any:
    """The network on the meta device: only shapes and counts.

    Raises:
        PluginContractError: It is not a network.
    """
    try:
        with torch.device("meta"):
            net = MODELS.build(name, **config)
    except PluginBuildError:  # it may need the values of its tensors
        net = MODELS.build(name, **config)
    check_built(MODELS, name, net)
    return net.to("meta")


def _output_sizes(net: torch.nn.Module, in_channels: int) -> dict[int, tuple[int, ...]]:
    sizes = {}
    geometry = getattr(net, "geometry", None)
    for wanted in (64, 256, 512, 572):
        size = geometry.fit(wanted) if geometry else wanted
        try:
            heads = heads_of(net.eval()(torch.zeros(1, in_channels, size, size, device="meta")))
        except Exception:  # a plugin's network may refuse a size in its own way, or return something else
            continue
        sizes[size] = tuple(next(iter(heads.values())).shape[1:])
    return sizes
