"""Samples and colors on the page."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..labels import LabelSpec
from .html import Html, image_tag, number, tag
from .images import Pixels, colored, colors_of, hex_of, ignored_color, limits_of, scale_colors, scaled
from .samples import Sample


def swatch(labels: LabelSpec, name: str) -> Html | None:
    """A class's color; nothing for groups."""
    colors = _colors(labels)
    return _square(colors[name]) if name in colors else None


def colors_key(labels: LabelSpec) -> Html:
    """Every class beside its color."""
    keys = [tag("li", _square(color), name) for name, color in _colors(labels).items()]
    if labels.ignore_index is not None:
        keys.append(tag("li", _square(hex_of(ignored_color(labels))), "not labeled"))
    return tag("ul", *keys, class_="keys")


def sample_figure(sample: Sample, labels: LabelSpec, score: str) -> Html:
    """A sample's images beside each other, with its name and its score."""
    panels: list[Html] = []
    for caption, image in sample.inputs.items():
        panels.append(_panel(caption, image, f"{caption} of {sample.name}", photo=True))
    for caption, mask in sample.masks.items():
        shares = _shares(mask, labels)
        panels.append(_panel(caption, colored(mask, labels), f"{caption} of {sample.name}: {shares}"))
    scales: list[Html] = []
    for head, (true, predicted) in sample.planes.items():
        limits = limits_of(true, predicted)
        for caption, plane in ((f"true {head}", true), (f"predicted {head}", predicted)):
            own = "from {} to {}".format(*(number(value) for value in limits_of(plane)))
            panels.append(_panel(caption, scaled(plane, limits), f"{caption} of {sample.name}, {own}"))
        scales.append(_scale(head, limits))
    caption = tag("figcaption", tag("b", sample.name), f" {score}")
    return tag("figure", caption, tag("div", *panels, class_="panels"), *scales)


def _panel(caption: str, image: Pixels, alt: str, *, photo: bool = False) -> Html:
    shown = image_tag(image, alt, photo=photo, class_="photo" if photo else None)
    return tag("div", shown, tag("small", caption))


def _scale(head: str, limits: tuple[float, float]) -> Html:
    low, high = (number(value) for value in limits)
    colors = ",".join(scale_colors(9))
    bar = tag("i", style=f"background:linear-gradient(to right,{colors})", aria_hidden="true")
    return tag("div", f"{head} {low}", bar, high, class_="scale")


def _square(color: str) -> Html:
    return tag("span", class_="swatch", style=f"background:{color}", aria_hidden="true")


def _colors(labels: LabelSpec) -> dict[str, str]:
    names = ("background", *labels.names) if labels.classes == 1 else labels.names
    return {name: hex_of(color) for name, color in zip(names, colors_of(labels), strict=True)}


def _shares(mask: NDArray[Any], labels: LabelSpec) -> str:
    """What a mask shows, for those who cannot see it: its three largest classes."""
    names = list(_colors(labels))
    pixels = mask.shape[-1] * mask.shape[-2]
    if mask.ndim == 3:
        found = dict(zip(labels.names, (mask == 1).sum((1, 2)).tolist(), strict=True))
    else:
        values, counts = np.unique(mask, return_counts=True)
        known = zip(values.tolist(), counts.tolist(), strict=True)
        found = {names[value]: count for value, count in known if 0 <= value < len(names)}
    largest = sorted(found.items(), key=lambda entry: -entry[1])[:3]
    return ", ".join(f"{name} {100 * count / max(pixels, 1):.0f} %" for name, count in largest) or "nothing"
