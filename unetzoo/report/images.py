"""Images of a run: inputs, masks in class colors, and maps of values such as depth in a color scale."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from ..images.display import as_rgb
from ..labels import LabelSpec, distinct_colors

Pixels = NDArray[np.uint8]
CAPTION = 14  # height of a caption in pixels
LEGIBLE = 96  # minimum width of an image with a caption
GRAY, WHITE = (128, 128, 128), (255, 255, 255)
SCALE = "viridis"  # its lightness increases, so it is readable without color
BINARY = ((0, 0, 0), WHITE)


def colors_of(labels: LabelSpec, *, multilabel: bool = False) -> tuple[tuple[int, int, int], ...]:
    """Return one color per class. By default, two classes are black and white, which is easiest to read.

    Args:
        labels: The label set. A single name means background and that class.
        multilabel: Whether pixels can have several classes, on a black background; black classes become white.

    Examples:
        >>> colors_of(LabelSpec(("background", "cell")))
        ((0, 0, 0), (255, 255, 255))
    """
    if multilabel:
        return tuple(color if any(color) else BINARY[1] for color in labels.palette)
    if labels.classes == 1:
        return BINARY[0], colors_of(labels, multilabel=True)[0]
    return BINARY if labels.palette == distinct_colors(2) else labels.palette


def color_names(labels: LabelSpec) -> dict[str, str]:
    """Return the color of every class as `#rrggbb`, by name.

    Examples:
        >>> color_names(LabelSpec(("cell",)))
        {'background': '#000000', 'cell': '#ffffff'}
    """
    names = ("background", *labels.names) if labels.classes == 1 else labels.names
    return {name: hex_of(color) for name, color in zip(names, colors_of(labels), strict=True)}


def ignored_color(labels: LabelSpec) -> tuple[int, int, int]:
    """Return the color of unlabeled pixels: gray, or another color if a class is gray.

    Examples:
        >>> ignored_color(LabelSpec(("sky", "road"), palette=((128, 128, 128), (128, 64, 128))))
        (255, 255, 255)
    """
    free = (color for color in (GRAY, WHITE, (0, 0, 0)) if color not in colors_of(labels))
    return next(free, GRAY)


def colored(mask: NDArray[Any], labels: LabelSpec) -> Pixels:
    """Convert class indices (H, W) to RGB, including ignored pixels; for masks (K, H, W), the last label is shown.

    Examples:
        >>> colored(np.array([[1, 255]]), LabelSpec(("background", "cell"), ignore_index=255)).tolist()
        [[[255, 255, 255], [128, 128, 128]]]
    """
    colors = np.array([*colors_of(labels, multilabel=mask.ndim == 3), ignored_color(labels)], np.uint8)
    if mask.ndim == 2:
        known = (mask >= 0) & (mask < len(colors) - 1)
        return colors[np.where(known, mask.astype(np.int64), -1)]
    image = np.zeros((*mask.shape[1:], 3), np.uint8)
    for plane, color in zip(mask, colors[:-1], strict=True):
        image[plane == 1] = color
    image[((mask != 0) & (mask != 1)).any(0)] = colors[-1]
    return image


def overlaid(image: Pixels, colors: Pixels) -> Pixels:
    """Blend an image with the colors of its classes; black classes (background) leave it unchanged."""
    shown = colors.any(-1, keepdims=True)
    return np.where(shown, image // 2 + colors // 2, image)


def inputs_of(image: Tensor) -> dict[str, Pixels]:
    """Convert a network's input (C, H, W) to RGB images, scaled to the full range.

    Of images with other than 1, 3 or 6 channels (image and background), the first three are shown, or the first.
    """
    array = np.nan_to_num(image.detach().float().cpu().numpy())
    if len(array) not in (1, 3, 6):
        return {"input": as_rgb(array.transpose(1, 2, 0))}
    low, high = array.min(), array.max()
    array = ((array - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
    if len(array) == 6:
        return {"input": array[:3].transpose(1, 2, 0), "background": array[3:].transpose(1, 2, 0)}
    channels = array[:3] if len(array) >= 3 else array[:1].repeat(3, 0)
    return {"input": channels.transpose(1, 2, 0)}


def limits_of(*planes: NDArray[Any]) -> tuple[float, float]:
    """Return the common range of several maps, without non-finite values and 0.5% of values at either end."""
    values = np.concatenate([plane[np.isfinite(plane)].ravel() for plane in planes])
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, (0.5, 99.5)).tolist()
    return (low, high) if high > low else (low, low + 1.0)


def scaled(plane: NDArray[Any], limits: tuple[float, float]) -> Pixels:
    """Convert a map (H, W) to colors of the scale; values that are not finite are gray."""
    low, high = limits
    finite = np.isfinite(plane)
    places = np.clip((np.where(finite, plane, low) - low) / (high - low), 0, 1)
    return np.where(finite[..., None], _scale()[np.rint(places * 255).astype(np.uint8)], np.uint8(GRAY[0]))


def scale_colors(count: int) -> list[str]:
    """Return the color scale from lowest to highest value, as `count` CSS colors.

    Examples:
        >>> scale_colors(2)
        ['#440154', '#fde725']
    """
    return [hex_of(color) for color in _scale()[np.linspace(0, 255, count).round().astype(int)].tolist()]


def hex_of(color: Sequence[int]) -> str:
    """Format a color as `#rrggbb`."""
    return f"#{bytes(color).hex()}"


def shrunk(image: Pixels, side: int, *, smooth: bool) -> Pixels:
    """Shrink an image to at most `side` pixels per side. Masks must not be smoothed, as that changes classes."""
    height, width = image.shape[:2]
    factor = side / max(height, width)
    if factor >= 1:
        return image
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    how = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size, how, reducing_gap=None))


def encoded(image: Pixels, *, photo: bool) -> tuple[str, bytes]:
    """Return media type and encoded bytes of an image: JPEG for photographs, PNG for flat colors."""
    file, kind = io.BytesIO(), "jpeg" if photo else "png"
    options = {"quality": 85} if photo else {"optimize": True}
    Image.fromarray(np.ascontiguousarray(image)).save(file, kind, **options)
    return f"image/{kind}", file.getvalue()


def side_by_side(panels: Mapping[str, Pixels], gap: int = 4) -> Image.Image:
    """Join images in a row with captions above; small images are enlarged to fit the captions."""
    times = max(-(-LEGIBLE // max(panel.shape[1] for panel in panels.values())), 1)
    panels = {caption: panel.repeat(times, 0).repeat(times, 1) for caption, panel in panels.items()}
    height = max(panel.shape[0] for panel in panels.values())
    width = sum(panel.shape[1] + gap for panel in panels.values()) - gap
    sheet = Image.new("RGB", (width, height + CAPTION), "white")
    pen, left = ImageDraw.Draw(sheet), 0
    for caption, panel in panels.items():
        pen.text((left + 2, 1), caption, fill="black")
        sheet.paste(Image.fromarray(np.ascontiguousarray(panel)), (left, CAPTION))
        left += panel.shape[1] + gap
    return sheet


def below(rows: Sequence[Image.Image], gap: int = 4) -> Image.Image:
    """Stack images vertically."""
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height + gap for row in rows) - gap), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height + gap
    return sheet


def _scale() -> Pixels:
    from matplotlib import colormaps

    return (colormaps[SCALE](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
