"""Numbered drawings of scenes, the backgrounds of composites."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from .drawing import BACKGROUND, FAR, NEAR, RNG, Array, hsv, smooth_noise

Scene = tuple[Array, float]  # float RGB (H, W, 3) in 0…1, and the relative height of the horizon, from the top


def _blend(first: Array, second: Array, share: Array) -> Array:
    return first * (1 - share[..., None]) + second * share[..., None]


def _sky(rng: RNG, y: Array, horizon: float) -> Array:
    hue = rng.choice([0.55, 0.58, 0.62, 0.04, 0.08, 0.75, 0.9])
    top, low = hsv(hue, rng.uniform(0.35, 0.75), rng.uniform(0.5, 0.95)), hsv(rng.uniform(0.05, 0.15), 0.25, 0.98)
    sky = _blend(top, low, np.clip(y / max(horizon, 1e-3), 0, 1))
    clouds = np.clip(smooth_noise(rng, y.shape, 3, 4) * 3 - 1.6, 0, 0.75)
    return _blend(sky, np.full(3, 0.97), clouds * rng.uniform(0.2, 1.0))


def _sun(rng: RNG, x: Array, y: Array, image: Array, horizon: float) -> Array:
    cx, cy, radius = rng.uniform(0.1, 0.9), horizon * rng.uniform(0.2, 0.9), rng.uniform(0.04, 0.1)
    distance = np.hypot(x - cx, y - cy)
    glow = np.clip((radius - distance) * 100, 0, 1) + 0.4 * np.exp(-np.maximum(distance - radius, 0) * 8)
    return _blend(image, np.array([1.0, 0.95, 0.75]), np.clip(glow, 0, 1))


def _hills(rng: RNG, x: Array, y: Array) -> Scene:
    horizon = rng.uniform(0.35, 0.55)
    image = _sun(rng, x, y, _sky(rng, y, horizon), horizon)
    hue, count = rng.choice([0.25, 0.33, 0.45, 0.6, 0.07, 0.95]), int(rng.integers(3, 6))
    grain = smooth_noise(rng, y.shape, 24, 2) - 0.5
    for layer in range(count):
        near = (layer + 1) / count
        ridge = smooth_noise(rng, (1, y.shape[1]), 4)[0] - 0.5
        crest = horizon - 0.08 + 0.35 * (near - 1 / count) + 0.35 * ridge * (1.1 - near)
        color = hsv(hue + rng.normal() * 0.02, 0.15 + 0.5 * near, 0.8 - 0.4 * near)
        surface = color * (1 + 0.7 * near * grain)[..., None]
        image = _blend(image, surface, np.clip((y - crest[None]) * y.shape[0] * 0.7, 0, 1))
    return image, horizon


def _sea(rng: RNG, x: Array, y: Array) -> Scene:
    horizon = rng.uniform(0.4, 0.6)
    image = _sun(rng, x, y, _sky(rng, y, horizon), horizon)
    below = np.clip((y - horizon) / (1 - horizon), 0, 1)
    waves = np.sin((smooth_noise(rng, y.shape, 4) * 5 + 26 * np.sqrt(below + 0.01)) * 2 * np.pi) * (0.04 + 0.08 * below)
    hue = rng.uniform(0.48, 0.62)
    water = _blend(hsv(hue, 0.35, 0.85), hsv(hue + 0.03, 0.8, 0.4), below) * (1 + waves[..., None])
    return np.where((y > horizon)[..., None], water, image), horizon


def _floor(rng: RNG, x: Array, y: Array, horizon: float) -> Array:
    """A floor of boards, tiles or carpet in perspective."""
    depth = 0.35 / np.maximum(y - horizon + 0.12, 1e-3)
    across, along = (x - 0.5) * depth * 5, depth * 6
    color = hsv(rng.uniform(), rng.uniform(0.1, 0.6), rng.uniform(0.4, 0.9))
    kind = rng.choice(["tiles", "boards", "carpet"])
    if kind == "tiles":
        shade = np.sin(np.pi * across) * np.sin(np.pi * along) > 0
        image = color * np.where(shade, 1.0, rng.uniform(0.55, 0.8))[..., None]
    elif kind == "boards":
        tone = 0.8 + 0.25 * np.sin(np.floor(across * 2) * 12.9898)
        image = color * (tone * np.where((across * 2) % 1 < 0.05, 0.6, 1.0))[..., None]
    else:
        image = color * (0.75 + 0.4 * smooth_noise(rng, y.shape, 30, 2))[..., None]
    return image * (0.75 + 0.35 * (y - horizon))[..., None]


def _room(rng: RNG, x: Array, y: Array) -> Scene:
    horizon = rng.uniform(0.45, 0.65)
    wall = hsv(rng.uniform(), rng.uniform(0.08, 0.45), rng.uniform(0.55, 0.95)) * np.ones((*y.shape, 1))
    paper = rng.choice(["plain", "stripes", "dots"])
    if paper == "stripes":
        wall = wall * np.where((x * rng.integers(8, 20)) % 1 < 0.5, 1.0, rng.uniform(0.8, 0.93))[..., None]
    elif paper == "dots":
        n = rng.integers(8, 14)
        wall = wall * np.where(np.hypot((x * n) % 1 - 0.5, (y * n) % 1 - 0.5) < 0.2, 0.82, 1.0)[..., None]
    wall = wall * (1.05 - 0.3 * np.hypot(x - rng.uniform(0.2, 0.8), y - 0.2))[..., None]
    for _ in range(rng.integers(0, 4)):  # images and windows
        cx, cy, w, h = rng.uniform(0.1, 0.9), rng.uniform(0.15, 0.7) * horizon, *rng.uniform(0.06, 0.16, 2)
        frame = (np.abs(x - cx) < w) & (np.abs(y - cy) < h)
        inner = (np.abs(x - cx) < w - 0.02) & (np.abs(y - cy) < h - 0.02)
        art = _blend(hsv(rng.uniform(), 0.5, 0.9), hsv(rng.uniform(), 0.6, 0.5), smooth_noise(rng, y.shape, 8, 2))
        wall = np.where(inner[..., None], art, np.where(frame[..., None], hsv(0.08, 0.5, rng.uniform(0.2, 0.6)), wall))
    image = np.where((y > horizon)[..., None], _floor(rng, x, y, horizon), wall)
    skirting = (y > horizon - 0.025) & (y <= horizon)
    return np.where(skirting[..., None], np.full(3, rng.uniform(0.3, 0.95)), image), horizon


def _city(rng: RNG, x: Array, y: Array) -> Scene:
    horizon = rng.uniform(0.5, 0.65)
    image = _sky(rng, y, horizon)
    hue = rng.uniform()
    for row in (0.6, 1.0):
        edge = -rng.uniform(0, 0.1)
        while edge < 1:
            width, top = rng.uniform(0.08, 0.2), horizon - rng.uniform(0.1, 0.42) * (1.35 - row * 0.5)
            house = (x >= edge) & (x < edge + width) & (y > top)
            color = hsv(hue + rng.normal() * 0.08, rng.uniform(0.1, 0.5), rng.uniform(0.35, 0.85) * (1.3 - 0.4 * row))
            n = int(rng.integers(2, 5))
            u, v = ((x - edge) / width * n) % 1, ((y - top) / width * n) % 1
            lit = rng.uniform(0.2, 1.3)
            window = house & (u > 0.3) & (u < 0.75) & (v > 0.3) & (v < 0.8)
            image = np.where(house[..., None], color, image)
            image = np.where(window[..., None], np.clip(color * 0.4 + np.array([0.5, 0.45, 0.3]) * lit, 0, 1), image)
            edge += width
    return np.where((y > horizon)[..., None], _floor(rng, x, y, horizon), image), horizon


def _lights(rng: RNG, x: Array, y: Array) -> Scene:
    """Out-of-focus lights on a gradient."""
    hue = rng.uniform()
    image = _blend(hsv(hue, 0.6, 0.55), hsv(hue + 0.12, 0.55, 0.2), y)
    for _ in range(rng.integers(12, 30)):
        distance = np.hypot(x - rng.uniform(), y - rng.uniform())
        radius, color = rng.uniform(0.03, 0.13), hsv(hue + rng.normal() * 0.12, rng.uniform(0.2, 0.7), 1.0)
        disc = np.clip((radius - distance) * 60, 0, 1) * rng.uniform(0.1, 0.45)
        image = _blend(image, color, disc)
    return image, 0.0


def _marble(rng: RNG, x: Array, y: Array) -> Scene:
    warp = smooth_noise(rng, y.shape, 3, 5)
    veins = 0.5 + 0.5 * np.sin(2 * np.pi * (rng.uniform(1, 4) * x + rng.uniform(1, 4) * y + 3 * warp))
    hue = rng.uniform()
    image = _blend(hsv(hue, rng.uniform(0.1, 0.7), 0.9), hsv(hue + rng.uniform(0, 0.3), 0.6, 0.4), veins)
    return image * (1.1 - 0.3 * y)[..., None] * (0.85 + 0.3 * smooth_noise(rng, y.shape, 32, 2))[..., None], 0.0


SCENES: tuple[Callable[[RNG, Array, Array], Scene], ...] = (_hills, _sea, _room, _city, _lights, _marble, _room, _hills)


def background(identity: int, size: int) -> tuple[Array, Array]:
    """Draw a scene: uint8 (size, size, 3), and the depth of its rows, float32 (size,)."""
    rng = np.random.default_rng(np.random.SeedSequence([BACKGROUND, identity]))
    scene = SCENES[int(rng.integers(len(SCENES)))]
    drawn = 2 * size  # halved below, for smooth edges
    y, x = (np.mgrid[0:drawn, 0:drawn] + 0.5) / drawn
    image, horizon = scene(rng, x, y)
    rendered = Image.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8))
    return np.asarray(rendered.resize((size, size), Image.Resampling.BOX)), ramp(size, horizon)


def ramp(size: int, horizon: float = 0.0) -> Array:
    """Depth of each row of a scene: FAR down to the horizon, then linear to NEAR at the bottom row.

    Examples:
        >>> ramp(3).tolist()
        [1.0, 0.699999988079071, 0.4000000059604645]
    """
    rows = np.linspace(0, 1, size)
    below = np.clip((rows - horizon) / (1 - horizon), 0, 1)
    return (FAR + (NEAR - FAR) * below).astype(np.float32)
