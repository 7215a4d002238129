"""Drawn masks, and images painted from them.

Shapes are defined in the unit square, x to the right and y downwards, so the class of each position is known.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import ndimage, spatial

from ..datasets.drawing import smooth_noise

Array = np.ndarray
RNG = np.random.Generator

# Left and right of the parts are the subject's, as in CelebAMask-HQ; colors distinguish the sides.
FACE_COLORS = {
    "background": (150, 170, 190), "skin": (224, 180, 150), "nose": (205, 150, 125), "eye_g": (40, 40, 45),
    "l_eye": (60, 170, 80), "r_eye": (60, 90, 220), "l_brow": (70, 90, 40), "r_brow": (50, 40, 90),
    "l_ear": (210, 165, 110), "r_ear": (210, 150, 150), "mouth": (90, 20, 30), "u_lip": (190, 60, 70),
    "l_lip": (225, 95, 105), "hair": (85, 55, 30), "hat": (170, 40, 40), "ear_r": (250, 220, 90),
    "neck_l": (250, 250, 200), "neck": (205, 160, 130), "cloth": (60, 110, 130),
}  # fmt: skip
HAIR = ((85, 55, 30), (35, 30, 30), (190, 150, 80), (120, 60, 35), (150, 150, 150))


def grid(height: int, width: int) -> tuple[Array, Array]:
    """X and y of pixel centers in the unit square."""
    y, x = np.mgrid[0:height, 0:width]
    return (x + 0.5) / width, (y + 0.5) / height


def paint(labels: Array, colors: Mapping[int, tuple[int, int, int]], rng: RNG, spread: float = 8) -> Array:
    """Paint a mask: colors with a standard deviation of `spread`, uneven lighting, noise. uint8 (H, W, 3)."""
    table = rng.normal(0, spread, (max(colors) + 1, 3))
    for value, color in colors.items():
        table[value] += color
    light = 0.85 + 0.3 * smooth_noise(rng, labels.shape, 3)[..., None]
    grain = rng.normal(0, 4, (*labels.shape, 1))
    return np.clip(np.rint(table[labels] * light + grain), 0, 255).astype(np.uint8)


def complexion(rng: RNG) -> dict[int, tuple[int, int, int]]:
    """Random colors of a face, by the positions of parts in `FACE_COLORS`; eyes and brows are fixed."""
    tone = rng.uniform(0.5, 1.08)
    hair = HAIR[int(rng.integers(len(HAIR)))]
    colors = {}
    for i, (name, (red, green, blue)) in enumerate(FACE_COLORS.items()):
        fleshy = name in ("skin", "nose", "l_ear", "r_ear", "neck")
        colors[i] = (int(red * tone), int(green * tone), int(blue * tone)) if fleshy else (red, green, blue)
    return colors | {list(FACE_COLORS).index("hair"): hair}


def face(rng: RNG, size: int, extras: tuple[str, ...] = ()) -> dict[str, Array]:
    """The parts of a face, bool (size, size) by the names of CelebAMask-HQ; skin includes the features on it.

    Args:
        rng: Shifts and scales the face slightly.
        size: Height and width.
        extras: Optional parts: "eye_g", "hat", "ear_r", "neck_l".
    """
    x, y = grid(size, size)
    scale = rng.uniform(0.85, 1.05)
    x, y = (x - 0.5 - rng.uniform(-0.05, 0.05)) / scale + 0.5, (y - 0.5 - rng.uniform(-0.05, 0.05)) / scale + 0.5

    def oval(cx: float, cy: float, rx: float, ry: float) -> Array:
        return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1

    head, lips, inner = oval(0.5, 0.55, 0.28, 0.36), oval(0.5, 0.76, 0.13, 0.075), oval(0.5, 0.76, 0.09, 0.028)
    neck = (abs(x - 0.5) < 0.13) & (y > 0.8)
    parts = {
        "skin": head,
        "nose": oval(0.5, 0.6, 0.05, 0.09),
        "l_eye": oval(0.62, 0.5, 0.065, 0.04),
        "r_eye": oval(0.38, 0.5, 0.065, 0.04),
        "l_brow": oval(0.63, 0.415, 0.085, 0.028),
        "r_brow": oval(0.37, 0.415, 0.085, 0.028),
        "l_ear": oval(0.79, 0.56, 0.045, 0.09) & ~head,
        "r_ear": oval(0.21, 0.56, 0.045, 0.09) & ~head,
        "mouth": inner,
        "u_lip": lips & ~inner & (y < 0.76),
        "l_lip": lips & ~inner & (y >= 0.76),
        "hair": oval(0.5, 0.38, 0.37, 0.34) & (~head | (y < 0.33)),
        "neck": neck & ~head,
        "cloth": oval(0.5, 1.05, 0.5, 0.14) & ~neck,
    }
    rims = [oval(cx, 0.5, 0.1, 0.07) & ~oval(cx, 0.5, 0.075, 0.05) for cx in (0.38, 0.62)]
    worn = {
        "eye_g": rims[0] | rims[1],
        "hat": oval(0.5, 0.12, 0.38, 0.13),
        "ear_r": oval(0.79, 0.69, 0.035, 0.035) | oval(0.21, 0.69, 0.035, 0.035),
        "neck_l": parts["neck"] & (abs(y - 0.93) < 0.03),
    }
    if "neck_l" in extras:
        parts["neck"] &= ~worn["neck_l"]  # the neck is painted last
    return parts | {name: worn[name] for name in extras}


def street(rng: RNG, height: int, width: int) -> Array:
    """A street in Cityscapes' label ids, with all 19 classes and void (ids 0…4)."""
    x, y = grid(height, width)
    horizon = 0.42 + rng.uniform(-0.03, 0.03)
    labels = np.full((height, width), 23, np.uint8)  # sky
    for column in range(8):  # houses and trees
        top = horizon - rng.uniform(0.12, 0.3)
        labels[(x * 8 // 1 == column) & (y > top)] = 21 if column % 3 == 1 else 11
    labels[y > horizon] = 22  # terrain
    labels[y > horizon + 0.06] = 8  # sidewalk
    road = (y > horizon + 0.1) & (abs(x - 0.5) < 0.16 + 0.75 * (y - horizon))
    labels[road] = 7
    labels[(abs(y - horizon - 0.02) < 0.05) & (x < 0.12)] = 12  # wall
    labels[(abs(y - horizon - 0.02) < 0.05) & (x > 0.88)] = 13  # fence
    things = ((26, 0.1), (27, 0.2), (28, 0.22), (31, 0.22), (24, 0.2), (25, 0.18), (32, 0.12), (33, 0.12))
    places = rng.permutation(len(things))
    for (value, high), place in zip(things, places, strict=True):
        left, foot = 0.09 + 0.105 * place, horizon + rng.uniform(0.2, 0.3)
        labels[(x >= left) & (x < left + 0.085) & (y > foot - high) & (y <= foot)] = value
    pole = 0.03 + rng.uniform(0, 0.04)
    labels[(abs(x - pole) < 0.012) & (y > 0.1) & (y < horizon + 0.3)] = 17
    labels[(abs(x - pole) < 0.03) & (abs(y - 0.16) < 0.07)] = 19  # traffic light
    labels[(abs(x - 1 + pole) < 0.012) & (y > 0.1) & (y < horizon + 0.3)] = 17
    labels[(abs(x - 1 + pole) < 0.03) & (abs(y - 0.16) < 0.06)] = 20  # traffic sign
    labels[(x > 0.45) & (x < 0.5) & (abs(y - 0.8) < 0.04)] = 4  # static
    labels[(x > 0.6) & (x < 0.63) & (abs(y - 0.8) < 0.03)] = 0  # unlabeled
    labels[((x - 0.5) / 0.4) ** 2 + ((y - 1) / 0.1) ** 2 < 1] = 1  # the ego vehicle
    labels[(x < 1.5 / width) | (x > 1 - 1.5 / width)] = 3  # out of the region of interest
    return labels


def car(rng: RNG, height: int, width: int, view: int) -> Array:
    """A car in a studio: 0 background, 1 body, 2 windows, 3 wheels. View 1 is the front, view 5 the side."""
    x, y = grid(height, width)
    side = abs(np.sin((view - 1) * np.pi / 8))  # 16 views around the car
    x, y = x - 0.5 - rng.uniform(-0.08, 0.08), y - rng.uniform(-0.06, 0.06)
    half = 0.2 + 0.18 * side
    labels = np.zeros((height, width), np.uint8)
    labels[(abs(x) / half) ** 4 + (abs(y - 0.6) / 0.16) ** 4 < 1] = 1
    cabin = (abs(x) / (0.72 * half)) ** 4 + (abs(y - 0.44) / 0.15) ** 4 < 1
    labels[cabin & (labels == 0)] = 1
    labels[(abs(x) < 0.55 * half) & (abs(y - 0.4) < 0.07)] = 2
    for s in (-1, 1):
        labels[((x - s * 0.62 * half) / (0.05 + 0.03 * side)) ** 2 + ((y - 0.75) / 0.09) ** 2 < 1] = 3
    return labels


def membranes(rng: RNG, size: int) -> Array:
    """Cells and the membranes between them: 0 membrane, 1 cell."""
    x, y = grid(size, size)
    places = np.stack(np.meshgrid(*[np.linspace(-0.1, 1.1, 7)] * 2), 2).reshape(-1, 2)
    points = places + rng.uniform(-0.08, 0.08, places.shape)  # about one cell per grid point
    shift = smooth_noise(rng, (size, size), 4)[..., None] * 0.12
    near, _ = spatial.KDTree(points).query(np.stack([x, y], 2) + shift, k=2)
    return (near[..., 1] - near[..., 0] > 0.025).astype(np.uint8)


def nuclei(rng: RNG, size: int) -> Array:
    """Nuclei with the numbers 1, 2, 3, …, uint16; each second one touches the one before."""
    x, y = grid(size, size)
    numbers = np.zeros((size, size), np.uint16)
    places = rng.permutation(9)[: rng.integers(4, 8)]
    for place in places:
        cx, cy = (np.array([place % 3, place // 3]) + rng.uniform(0.35, 0.65, 2)) / 3
        for side in (-1, 1)[: 1 + int(place % 2)]:
            wide, tall = rng.uniform(0.05, 0.08), rng.uniform(0.07, 0.11)
            one = ((x - cx - side * 0.06) / wide) ** 2 + ((y - cy) / tall) ** 2 < 1
            numbers[one & (numbers == 0)] = numbers.max() + 1
    return numbers


def shapes(rng: RNG, size: int, classes: int) -> Array:
    """A disc, square or triangle for each class except the first, the background."""
    x, y = grid(size, size)
    labels = np.zeros((size, size), np.uint8)
    side = max(2, int(np.ceil(np.sqrt(classes))))  # places in a row
    for kind, place in zip(range(1, classes), rng.permutation(side * side), strict=False):
        r = rng.uniform(0.2, 0.4) / side
        across, down = rng.uniform(r + 0.01, 0.99 / side - r, 2)
        dx, dy = x - across - place % side / side, y - down - place // side / side
        shape = (
            dx**2 + dy**2 < r**2,
            np.maximum(abs(dx), abs(dy)) < 0.9 * r,
            (dy < 0.8 * r) & (dy > -r + 1.8 * abs(dx)),
        )[(kind - 1) % 3]
        labels[shape] = kind
    return labels


def rim(labels: Array) -> Array:
    """The outlines of the classes, bool."""
    return ndimage.maximum_filter(labels, 3) != ndimage.minimum_filter(labels, 3)
