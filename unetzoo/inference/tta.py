"""Test-time augmentation: which views of an image a network is run on.

A *view* is a version of the image: scaled, mirrored, turned. Mirrorings and quarter turns only move pixels, so
they are done on each window and tiles stay exact; other angles and scales resample the whole image before it is cut,
and the output after it is stitched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from ..errors import ConfigError, did_you_mean
from .views import View

Merge = Literal["gmean", "mean", "max"]
Mode = Literal["multiclass", "multilabel", "raw"]
MERGES: tuple[Merge, ...] = ("gmean", "mean", "max")
MODES: tuple[Mode, ...] = ("multiclass", "multilabel", "raw")
MOST_ROTATIONS = 360
SCALES = (0.1, 10.0)


def _check(holds: bool, subject: str, expected: str, found: object) -> None:
    if not holds:
        raise ConfigError("wrong test-time augmentation", subject=subject, expected=expected, found=repr(found))


@dataclass(frozen=True)
class TTA:
    """The views of an image that a network is run on, and how its outputs are merged.

    All combinations of `flips`, `rotations` and `scales` are used, each once: `TTA(flips=True, rotations=4)` has 8
    views, since two mirrorings are half a turn.

    The U-Net paper (arXiv:1505.04597, section 4) states that its EM result was "averaged over 7 rotated versions
    of the input data", and no more: neither the angles, nor whether the upright image is one of them, nor what fills
    the corners. `tta="paper"` is `TTA(rotations=7, merge="mean")`: the angles 0, 1/7, …, 6/7 of a turn about the
    center, bilinear, corners mirrored, the probabilities averaged.

    Args:
        flips: Also mirror the image left to right, top to bottom, and both.
        rotations: Number of angles, evenly spread over a full turn, counter-clockwise, the upright image first. 1, 2
            and 4 only move pixels.
        scales: Sizes as multiples of the image's; the output is brought back to its size.
        merge: "gmean": geometric mean of the probabilities, that is the mean of the logits, for every mode;
            "mean": arithmetic mean of the probabilities; "max": the largest probability of each class. The
            result is logits: their softmax (sigmoid) gives the merged probabilities, with sum one for several
            classes.
        mode: What the output's channels are. "multiclass": softmax over them, sigmoid for one channel; "multilabel":
            sigmoid of each; "raw": not logits (an output `activation`), merged without conversion; excludes
            "gmean".

    A depth head is always averaged.

    Raises:
        ConfigError: Invalid values.

    Examples:
        >>> len(TTA(flips=True).views()), len(TTA(flips=True, rotations=4, scales=(0.75, 1, 1.25)).views())
        (4, 24)
        >>> as_tta("paper")
        TTA(flips=False, rotations=7, scales=(1.0,), merge='mean', mode='multiclass')
    """

    flips: bool = False
    rotations: int = 1
    scales: tuple[float, ...] = (1.0,)
    merge: Merge = "gmean"
    mode: Mode = "multiclass"

    def __post_init__(self) -> None:
        _check(isinstance(self.flips, bool), "flips", "True or False", self.flips)
        count = self.rotations
        whole = isinstance(count, int) and not isinstance(count, bool) and 1 <= count <= MOST_ROTATIONS
        _check(whole, "rotations", f"a number of angles, 1…{MOST_ROTATIONS}", count)
        scales = self.scales if isinstance(self.scales, Sequence) and not isinstance(self.scales, str) else ()
        legal = all(isinstance(s, int | float) and SCALES[0] <= s <= SCALES[1] for s in scales)
        _check(
            bool(scales) and legal and len(set(scales)) == len(scales),
            "scales", f"different factors, {SCALES[0]}…{SCALES[1]}, e.g. (0.75, 1, 1.25)", self.scales,
        )  # fmt: skip
        object.__setattr__(self, "scales", tuple(float(s) for s in scales))
        for name, value, choices in (("merge", self.merge, MERGES), ("mode", self.mode, MODES)):
            if value not in choices:
                raise ConfigError(f"unknown {name} of tta: {value!r}", hint=did_you_mean(str(value), choices, name))
        if self.mode == "raw" and self.merge == "gmean":
            raise ConfigError(
                "outputs that are no logits have no geometric mean here", subject="TTA", hint='merge="mean" or "max"'
            )

    def views(self) -> tuple[View, ...]:
        """All views; the unchanged image, if it is one of them, comes first."""
        mirrorings = ((False, 0), (True, 0), (True, 2), (False, 2)) if self.flips else ((False, 0),)
        views: dict[View, None] = {}
        for scale in sorted(self.scales, key=lambda s: s != 1):
            for step in range(self.rotations):
                quarters = Fraction(4 * step, self.rotations)
                for mirror, half in mirrorings:
                    turns = math.floor(quarters) + half
                    views[View(scale, float(quarters % 1) * 90.0, mirror, turns % 4)] = None
        return tuple(views)


TTALike = TTA | str | None
PRESETS = {
    "flips": TTA(flips=True),
    "d4": TTA(flips=True, rotations=4),
    "paper": TTA(rotations=7, merge="mean"),
}


def as_tta(tta: TTALike) -> TTA | None:
    """Return the augmentation for a name: "flips", "d4" (all 8 mirrorings and quarter turns), "paper".

    Raises:
        ConfigError: Unknown name.
    """
    if tta is None or isinstance(tta, TTA):
        return tta
    if isinstance(tta, str) and tta in PRESETS:
        return PRESETS[tta]
    raise ConfigError(
        f"unknown tta {tta!r}", hint=did_you_mean(str(tta), PRESETS, "tta") + " (or None, or unetzoo.inference.TTA)"
    )
