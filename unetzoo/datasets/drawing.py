"""Numbered drawings of cut-outs with soft edges.

A number gives the same drawing at every size. Shapes are in the square [−1, 1]², y downwards; each figure is a list of
parts, painted over each other and shaded as if inflated.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

Array = np.ndarray
RNG = np.random.Generator
NEAR, FAR = 0.4, 1.0  # depth of a scene at the bottom row and at the horizon
_FOREGROUND, BACKGROUND = 15, 16  # different random streams for the two kinds
_OVERSAMPLE = 4


@dataclass
class Part:
    """A polygon with a color, and a second color for its pattern."""

    points: Array
    color: Array
    second: Array | None = None
    pattern: str = "plain"
    flat: bool = False


def hsv(hue: float, saturation: float, value: float) -> Array:
    """RGB color in 0…1 from hue in turns, saturation and value."""
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, min(saturation, 1.0), min(value, 1.0)))


def _ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0, power: float = 2.0) -> Array:
    """A superellipse |x/rx|^p + |y/ry|^p = 1, rotated about its center."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    c, s = np.cos(angle), np.sin(angle)
    px, py = rx * np.sign(c) * np.abs(c) ** (2 / power), ry * np.sign(s) * np.abs(s) ** (2 / power)
    return np.stack([x + px * np.cos(turn) - py * np.sin(turn), y + px * np.sin(turn) + py * np.cos(turn)], 1)


def _capsule(x0: float, y0: float, x1: float, y1: float, r0: float, r1: float | None = None) -> Array:
    """The convex hull of two circles, for limbs."""
    r1 = r0 if r1 is None else r1
    turn = np.arctan2(y1 - y0, x1 - x0)
    half = np.linspace(-np.pi / 2, np.pi / 2, 14)
    end = np.stack([x1 + r1 * np.cos(turn + half), y1 + r1 * np.sin(turn + half)], 1)
    start = np.stack([x0 - r0 * np.cos(turn + half), y0 - r0 * np.sin(turn + half)], 1)
    return np.concatenate([end, start])


def _wavy(rng: RNG, x: float, y: float, radius: float, roughness: float, waves: int = 6) -> Array:
    """A closed curve whose radius is a short Fourier series."""
    angle = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    r = np.ones_like(angle)
    for k in range(2, 2 + waves):
        r += roughness * rng.normal() / k * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    r = radius * np.clip(r, 0.45, 1.6)
    return np.stack([x + r * np.cos(angle), y + r * np.sin(angle)], 1)


def _eyes(x: float, y: float, gap: float, r: float) -> list[Part]:
    white, black = np.full(3, 0.98), np.full(3, 0.08)
    sides = (-gap, gap) if gap else (0.0,)
    eyes = [Part(_ellipse(x + s, y, r, r), white, flat=True) for s in sides]
    return eyes + [Part(_ellipse(x + s + 0.2 * r, y + 0.1 * r, 0.5 * r, 0.55 * r), black, flat=True) for s in sides]


class _Palette:
    """Three matching colors, one of them dark, and a pattern."""

    def __init__(self, rng: RNG) -> None:
        hue, saturation, value = rng.uniform(), rng.uniform(0.45, 0.9), rng.uniform(0.65, 0.98)
        self.main = hsv(hue, saturation, value)
        self.other = hsv(hue + rng.choice([0.08, 0.45, 0.55, -0.12]), rng.uniform(0.4, 0.9), rng.uniform(0.7, 1.0))
        self.dark = hsv(hue + 0.03, saturation, 0.45 * value)
        self.pattern = str(rng.choice(["plain", "stripes", "dots", "checks", "mottle"]))


def _blob(rng: RNG, p: _Palette) -> list[Part]:
    body = [Part(_wavy(rng, 0, 0, 0.8, 0.35), p.main, p.other, p.pattern)]
    return body + (_eyes(0, -0.2, 0.2, 0.14) if rng.uniform() < 0.6 else [])


def _solid(rng: RNG, p: _Palette) -> list[Part]:
    shape = _ellipse(0, 0, 0.85, rng.uniform(0.5, 0.85), rng.uniform(0, np.pi), rng.choice([0.9, 1.3, 3.0, 5.0]))
    return [Part(shape, p.main, p.other, p.pattern), Part(0.4 * shape, p.other)]


def _star(rng: RNG, p: _Palette) -> list[Part]:
    tips = int(rng.integers(4, 9))
    angle = np.arange(2 * tips) * np.pi / tips + rng.uniform(0, np.pi)
    radius = np.where(np.arange(2 * tips) % 2, rng.uniform(0.45, 0.7), 0.95)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    return [Part(points, p.main, p.other, p.pattern), *_eyes(0, -0.05, 0.17, 0.12)]


def _fish(rng: RNG, p: _Palette) -> list[Part]:
    height = rng.uniform(0.35, 0.55)
    tail = np.array([[0.45, 0.0], [0.95, -0.42], [0.85, 0.0], [0.95, 0.42]])
    fin = np.array([[-0.2, -0.8 * height], [0.1, -height - 0.3], [0.4, -0.5 * height]])
    body = _ellipse(-0.15, 0, 0.75, height)
    return [
        Part(tail, p.other),
        Part(fin, p.other),
        Part(body, p.main, p.other, p.pattern),
        *_eyes(-0.55, -0.1, 0, 0.1),
    ]


def _person(rng: RNG, p: _Palette) -> list[Part]:
    skin = hsv(rng.uniform(0.04, 0.1), rng.uniform(0.3, 0.6), rng.uniform(0.45, 0.95))
    lift, stride = rng.uniform(-0.4, 0.35), rng.uniform(0.12, 0.4)
    arms = [_capsule(s * 0.26, -0.3, s * 0.58, lift * (1 if s < 0 else -0.6), 0.1, 0.085) for s in (-1, 1)]
    legs = [_capsule(s * 0.13, 0.25, s * stride, 0.9, 0.15, 0.11) for s in (-1, 1)]
    torso = Part(_capsule(0, -0.22, 0, 0.25, 0.3, 0.25), p.main, p.other, p.pattern)
    head, hair = _ellipse(0, -0.74, 0.2, 0.23), _ellipse(0, -0.84, 0.23, 0.17)
    return [
        *(Part(a, skin) for a in arms),
        *(Part(g, p.dark) for g in legs),
        torso,
        Part(head, skin),
        Part(hair, p.dark),
    ]


def _beast(rng: RNG, p: _Palette) -> list[Part]:
    back, neck = rng.uniform(0.26, 0.36), rng.uniform(-0.5, -0.2)
    legs = [_capsule(x, 0.1, x + rng.uniform(-0.08, 0.08), 0.72, 0.13, 0.1) for x in (-0.38, -0.2, 0.3, 0.48)]
    tail = _capsule(0.55, -0.05, 0.85, rng.uniform(-0.5, 0.1), 0.09, 0.05)
    head = [Part(_capsule(-0.45, 0, -0.68, neck, 0.2, 0.17), p.main), Part(_ellipse(-0.76, neck, 0.25, 0.2), p.main)]
    ear = Part(_ellipse(-0.62, neck - 0.2, 0.09, 0.18, 0.4), p.dark)
    body = Part(_ellipse(0.05, 0.02, 0.58, back, power=2.5), p.main, p.other, p.pattern)
    limbs = [Part(leg, p.dark if i % 2 else p.main) for i, leg in enumerate(legs)]
    return [Part(tail, p.main), *limbs, body, *head, ear, *_eyes(-0.82, neck - 0.04, 0, 0.06)]


def _tree(rng: RNG, p: _Palette) -> list[Part]:
    trunk = Part(_capsule(0, 0.9, 0, 0, 0.15, 0.09), hsv(0.07, 0.55, rng.uniform(0.3, 0.5)), p.dark, "stripes")
    crown = [Part(_wavy(rng, x, y, r, 0.3), p.main * s, p.other, "mottle")
             for x, y, r, s in ((-0.34, -0.1, 0.42, 0.8), (0.36, -0.14, 0.4, 0.9), (0, -0.5, 0.46, 1.0))]  # fmt: skip
    return [trunk, *crown]


def _mushroom(rng: RNG, p: _Palette) -> list[Part]:
    cap = _ellipse(0, -0.1, 0.85, rng.uniform(0.6, 0.8))
    cap[:, 1] = np.minimum(cap[:, 1], 0.02 + 0.1 * np.cos(cap[:, 0] * 2))
    stem = Part(_capsule(0, 0, 0, 0.68, 0.2, 0.26), hsv(0.11, 0.2, 0.92))
    return [stem, Part(cap, p.main, np.full(3, 0.95), "dots")]


def _balloon(rng: RNG, p: _Palette) -> list[Part]:
    ropes = [Part(_capsule(s * 0.4, 0.2, s * 0.14, 0.75, 0.025), p.dark, flat=True) for s in (-1, 1)]
    basket = Part(_ellipse(0, 0.82, 0.19, 0.14, power=5.0), hsv(0.08, 0.6, 0.55), p.dark, "checks")
    return [*ropes, basket, Part(_ellipse(0, -0.25, 0.68, 0.72), p.main, p.other, "stripes")]


def _robot(rng: RNG, p: _Palette) -> list[Part]:
    box, wide = 6.0, rng.uniform(0.4, 0.55)
    limbs = [Part(_capsule(s * wide, -0.05, s * (wide + 0.22), rng.uniform(-0.4, 0.4), 0.09), p.dark) for s in (-1, 1)]
    limbs += [Part(_ellipse(s * 0.22, 0.75, 0.14, 0.2, power=box), p.dark) for s in (-1, 1)]
    body = Part(_ellipse(0, 0.2, wide, 0.42, power=box), p.main, p.other, p.pattern)
    return [*limbs, body, Part(_ellipse(0, -0.52, 0.36, 0.28, power=box), p.other), *_eyes(0, -0.54, 0.16, 0.1)]


FIGURES: tuple[Callable[[RNG, _Palette], list[Part]], ...] = (
    _blob, _solid, _star, _fish, _person, _beast, _tree, _mushroom, _balloon, _robot,
)  # fmt: skip


def foreground(identity: int, size: int) -> Array:
    """Draw a cut-out for images of `size`: uint8 (h, w, 4), cropped to its shape.

    It covers 7…20% of the image, and its sides are at most 0.6 of the side of the image.
    """
    rng = np.random.default_rng(np.random.SeedSequence([_FOREGROUND, identity]))
    figure = FIGURES[int(rng.integers(len(FIGURES)))]
    parts = figure(rng, _Palette(rng))
    turn, mirror, cover = rng.normal() * 0.12, rng.choice([-1, 1]), rng.uniform(0.07, 0.2)
    spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * [[mirror], [1]]
    for part in parts:
        part.points = part.points @ spin.T
    every = np.concatenate([part.points for part in parts])
    low, extent = every.min(0), np.ptp(every, axis=0)
    for part in parts:
        part.points = (part.points - low) / extent.max()
    extent = extent / extent.max()
    filled = Image.new("1", (128, 128))
    for part in parts:
        ImageDraw.Draw(filled).polygon([(x * 127, y * 127) for x, y in part.points.tolist()], fill=1)
    area = float(np.asarray(filled).mean())
    scale = size * min(0.6, np.sqrt(cover / area))
    width, height = np.maximum(np.ceil(extent * scale).astype(int), 2).tolist()
    return _paint(parts, scale, width, height, rng)


def _paint(parts: list[Part], scale: float, width: int, height: int, rng: RNG) -> Array:
    color, alpha = np.zeros((height, width, 3)), np.zeros((height, width, 1))
    grain = smooth_noise(rng, (height, width), 6)[..., None]
    rows, columns = (np.mgrid[0:height, 0:width] + 0.5) / scale
    for part in parts:
        canvas = Image.new("L", (width * _OVERSAMPLE, height * _OVERSAMPLE))
        corners = [(x * scale * _OVERSAMPLE, y * scale * _OVERSAMPLE) for x, y in part.points.tolist()]
        ImageDraw.Draw(canvas).polygon(corners, fill=255)
        cover = np.asarray(canvas.reduce(_OVERSAMPLE), np.float64)[..., None] / 255
        paint = np.broadcast_to(part.color, color.shape)
        if part.second is not None and part.pattern != "plain":
            mix = 0.75 * _pattern(part.pattern, rows, columns, grain[..., 0])[..., None]
            paint = paint * (1 - mix) + part.second * mix
        if not part.flat:
            paint = paint * _light(cover[..., 0], scale)[..., None] * (0.94 + 0.12 * grain)
        color = color * (1 - cover) + np.clip(paint, 0, 1) * cover
        alpha = alpha + cover - alpha * cover
    color = np.divide(color, alpha, out=np.zeros_like(color), where=alpha > 0)
    return np.rint(np.concatenate([color, alpha], 2) * 255).astype(np.uint8)


def _light(cover: Array, scale: float) -> Array:
    """Brightness of an inflated shape, lit from the upper left."""
    inside = np.asarray(ndimage.distance_transform_edt(np.pad(cover > 0.5, 1)))[1:-1, 1:-1]
    rim = max(0.22 * scale, 2.0)
    height = rim * np.sqrt(1 - (1 - np.clip(inside / rim, 0, 1)) ** 2)
    height = ndimage.gaussian_filter(height, 0.02 * scale)
    if min(height.shape) < 2:
        return np.ones_like(height)
    dy, dx = np.gradient(height)
    slope = np.clip((dx * 0.55 + dy * 0.75) / np.sqrt(1 + dx**2 + dy**2), -1, 1)
    return 0.98 + 0.36 * slope


def _pattern(name: str, rows: Array, columns: Array, grain: Array) -> Array:
    """Weight of the second color, 0…1; coordinates are relative to the longer side of the figure."""
    if name == "stripes":
        wave = np.sin(2 * np.pi * 6 * (columns + 0.35 * rows))
    elif name == "dots":
        wave = np.cos(2 * np.pi * 5 * columns) + np.cos(2 * np.pi * 5 * rows) - 0.7
    elif name == "checks":
        wave = np.sin(2 * np.pi * 4 * columns) * np.sin(2 * np.pi * 4 * rows) * 3
    else:
        wave = (grain - 0.5) * 8
    return np.clip(wave * 2 + 0.5, 0, 1)


def smooth_noise(rng: RNG, shape: tuple[int, ...], cells: int, octaves: int = 3) -> Array:
    """Smooth noise in 0…1: a sum of enlarged random grids, each twice as fine as the last."""
    total = np.zeros(shape)
    for octave in range(octaves):
        n = cells * 2**octave
        grid = Image.fromarray(rng.uniform(0, 1, (n, n)).astype(np.float32))
        total += np.asarray(grid.resize((shape[1], shape[0]), Image.Resampling.BICUBIC), np.float64) / 2**octave
    return np.clip(total / (2 - 2.0 ** (1 - octaves)), 0, 1)
