"""LabelSpec: names, file values, colors, groups and mirrored pairs of the classes of a dataset.

Used by datasets, transforms, metrics and reports. Standard library only.
"""

from __future__ import annotations

import colorsys
import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from .errors import ConfigError, did_you_mean

Color = tuple[int, int, int]
Mode = Literal["binary", "multiclass", "multilabel"]  # of a mask; a pixel may have several labels if "multilabel"


@dataclass(frozen=True)
class LabelSpec:
    """The label set of a dataset.

    Args:
        names: Class names; the position is the class index that networks predict.
        ids: The value of each class in mask files; defaults to the class indices. In masks of colors, the value of a
            pixel is its color as a number, 0xRRGGBB; `from_colors` sets these values.
        remap: Additional file values, each with the index of the class it is merged into.
        ignore_ids: File values of unlabeled pixels; they become `ignore_index`.
        ignore_index: The value of ignored pixels in a loaded mask.
        palette: One RGB color per class; distinct colors by default.
        groups: Named unions of classes, for scores of merged regions.
        swap_pairs: Pairs of classes that swap when the image is mirrored (left eye, right eye).
        side: Whether left and right are the viewer's (left in the image) or the subject's own.

    Raises:
        ConfigError: Invalid or contradictory arguments.

    Examples:
        >>> spec = LabelSpec(("membrane", "cell"), ids=(0, 255), remap={254: 1})
        >>> spec.lookup()
        {0: 0, 255: 1, 254: 1}
        >>> LabelSpec.from_dict(spec.to_dict()) == spec
        True
    """

    names: tuple[str, ...]
    ids: tuple[int, ...] = ()
    ignore_ids: tuple[int, ...] = ()
    ignore_index: int | None = None
    palette: tuple[Color, ...] = ()
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    swap_pairs: tuple[tuple[int, int], ...] = ()
    side: Literal["viewer", "subject"] | None = None
    remap: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.names, str):
            raise ConfigError("invalid label set", subject="names", expected="a list of names", found=repr(self.names))
        try:
            tidy: dict[str, Any] = {
                "names": tuple(self.names),
                "ids": _integers(self.ids) or tuple(range(len(self.names))),
                "remap": {_integer(raw): _integer(index) for raw, index in self.remap.items()},
                "ignore_ids": _integers(self.ignore_ids),
                "ignore_index": None if self.ignore_index is None else _integer(self.ignore_index),
                "palette": tuple(_integers(color) for color in self.palette) or distinct_colors(len(self.names)),
                "groups": {name: _integers(members) for name, members in self.groups.items()},
                "swap_pairs": tuple(_integers(pair) for pair in self.swap_pairs),
            }
        except (TypeError, ValueError, AttributeError) as error:
            raise ConfigError(
                "invalid label set", found=str(error), hint="see the arguments of unetzoo.LabelSpec"
            ) from error
        for name, value in tidy.items():
            object.__setattr__(self, name, value)
        self._check()

    def __len__(self) -> int:
        return len(self.names)

    def __hash__(self) -> int:
        return hash((self.names, self.ids, self.ignore_ids, self.ignore_index))

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.names)

    @classmethod
    def indexed(cls, classes: int, ignore_index: int | None = None) -> LabelSpec:
        """A label set whose classes are named by their index."""
        return cls(tuple(str(i) for i in range(classes)), ignore_index=ignore_index)

    @classmethod
    def from_colors(
        cls,
        colors: Mapping[str, Sequence[int]],
        ignore_colors: Sequence[Sequence[int]] = (),
        ignore_index: int | None = None,
        **options: Any,
    ) -> LabelSpec:
        """A label set for masks of colors.

        Args:
            colors: Class name → red, green and blue in mask files; the order gives the class indices.
            ignore_colors: Colors of unlabeled pixels.
            ignore_index: The value of these pixels in a loaded mask.
            options: `groups`, `swap_pairs` and `side`.

        Raises:
            ConfigError: Invalid or contradictory colors.

        Examples:
            >>> spec = LabelSpec.from_colors({"background": (0, 0, 0), "road": (128, 64, 128)})
            >>> spec.palette[1], f"{spec.ids[1]:06x}"
            ((128, 64, 128), '804080')
        """
        if not isinstance(colors, Mapping):
            raise ConfigError(
                "invalid colors", expected="{name: [red, green, blue], …}", found=repr(colors)[:80],
                hint='e.g. colors = {background = [0, 0, 0], road = [128, 64, 128]}',
            )  # fmt: skip
        ids = tuple(color_number(color, name) for name, color in colors.items())
        ignored = tuple(color_number(color, "ignore_colors") for color in ignore_colors)
        return cls(tuple(colors), ids, ignored, ignore_index, tuple(map(color_of, ids)), **options)

    def lookup(self) -> dict[int, int]:
        """File value → value in a loaded mask."""
        table = {raw: index for index, raw in enumerate(self.ids)} | dict(self.remap)
        if self.ignore_index is not None:
            table |= dict.fromkeys(self.ignore_ids, self.ignore_index)
        return table

    def swapped_by(self, hflip: bool = False, vflip: bool = False, turns: int = 0) -> tuple[int, ...]:
        """The class indices after a flip followed by a rotation: class i becomes `result[i]`.

        The subject's left and right swap in every mirror image, and never in a rotation. The viewer's swap whenever
        columns are reversed: in a horizontal flip or a half turn. After a quarter turn the viewer's left and right are
        undefined. Pixels of `ignore_index` do not change.

        Args:
            hflip: Whether the image was flipped horizontally.
            vflip: Whether the image was flipped vertically.
            turns: Number of quarter turns afterwards, in either direction.

        Raises:
            ConfigError: A quarter turn with pairs of the viewer's side.

        Examples:
            >>> eyes = LabelSpec(("skin", "left", "right"), swap_pairs=((1, 2),), side="viewer")
            >>> eyes.swapped_by(hflip=True), eyes.swapped_by(vflip=True), eyes.swapped_by(hflip=True, turns=2)
            ((0, 2, 1), (0, 1, 2), (0, 1, 2))
        """
        names = list(range(self.classes))
        if self.swap_pairs and self.side == "viewer" and turns % 2:
            raise ConfigError(
                "the viewer's left and right are undefined after a quarter turn",
                subject="labels with the viewer's sides",
                found=", ".join("/".join(self.names[i] for i in pair) for pair in self.swap_pairs),
                hint="do not use rot90, and keep rotate ≤ 45",
            )
        half_turn = turns % 4 == 2
        if bool(hflip) != (half_turn if self.side == "viewer" else bool(vflip)):
            for one, other in self.swap_pairs:
                names[one], names[other] = other, one
        return tuple(names)

    def to_dict(self) -> dict[str, Any]:
        """As a dict that survives JSON: lists, and str keys."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LabelSpec:
        """Create a label set from the output of `to_dict`, also after JSON.

        Raises:
            ConfigError: Unknown keys, missing names or invalid values.
        """
        known = [part.name for part in fields(cls)]
        unknown = sorted(set(data) - set(known))
        if unknown:
            raise ConfigError("invalid label set", found=unknown, hint=did_you_mean(str(unknown[0]), known, "key"))
        if "names" not in data:
            raise ConfigError("invalid label set", expected="names", found=sorted(data))
        return cls(**data)

    def _check(self) -> None:
        def refuse(what: str, found: object, expected: object) -> None:
            raise ConfigError("invalid label set", subject=what, expected=expected, found=found)

        count = len(self.names)
        if not count:
            refuse("names", "none", "at least one class")
        if len(set(self.names)) != count:
            refuse("names", _repeated(self.names), "distinct names")
        if not all(isinstance(name, str) and name for name in (*self.names, *self.groups)):
            refuse("names and groups", [*self.names, *self.groups], "nonempty strings")
        if len(self.ids) != count:
            refuse("ids", f"{len(self.ids)} values", f"{count}, one per class")
        raws = [*self.ids, *self.remap, *set(self.ignore_ids)]
        if len(set(raws)) != len(raws):
            refuse("ids, remap and ignore_ids", _repeated(raws), "each file value once")
        if self.ignore_ids and self.ignore_index is None:
            refuse("ignore_index", None, "a value for the ignored pixels, e.g. 255")
        if self.ignore_index is not None and 0 <= self.ignore_index < count:
            refuse("ignore_index", self.ignore_index, f"a value outside the classes 0…{count - 1}")
        if len(self.palette) != count:
            refuse("palette", f"{len(self.palette)} colors", f"{count}, one per class")
        if any(len(color) != 3 or not all(0 <= part <= 255 for part in color) for color in self.palette):
            refuse("palette", list(self.palette), "three numbers in 0…255 per color")
        swapped = [i for pair in self.swap_pairs for i in pair]
        members = [*(i for group in self.groups.values() for i in group), *swapped, *self.remap.values()]
        if any(not 0 <= i < count for i in members):
            refuse("groups, swap pairs and remap", members, f"classes 0…{count - 1}")
        if any(len(pair) != 2 for pair in self.swap_pairs) or len(set(swapped)) != len(swapped):
            refuse("swap_pairs", list(self.swap_pairs), "pairs of two classes, each class in one pair")
        if self.side not in ("viewer", "subject", None) or (self.swap_pairs and self.side is None):
            refuse("side", repr(self.side), '"viewer" or "subject"')


def distinct_colors(count: int) -> tuple[Color, ...]:
    """Black for the first class and well-separated hues for the others.

    Examples:
        >>> distinct_colors(3)
        ((0, 0, 0), (242, 12, 12), (97, 139, 242))
    """

    def color(index: int) -> Color:
        hue = (index - 1) * 0.618034 % 1.0
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.95 if index % 2 else 0.6, 0.95)
        return round(red * 255), round(green * 255), round(blue * 255)

    return ((0, 0, 0), *(color(index) for index in range(1, count)))[:count]


def color_number(color: Sequence[int], subject: str = "") -> int:
    """A color as a number, 0xRRGGBB.

    Raises:
        ConfigError: Not three integers in 0…255.

    Examples:
        >>> color_number((128, 64, 128)), color_of(8405120)
        (8405120, (128, 64, 128))
    """
    parts = list(color) if isinstance(color, Sequence) else []
    if len(parts) != 3 or not all(isinstance(part, int) and 0 <= part <= 255 for part in parts):
        raise ConfigError(
            "invalid color", subject=subject, expected="three integers in 0…255: red, green, blue", found=repr(color),
            hint="e.g. [128, 64, 128]",
        )  # fmt: skip
    red, green, blue = parts
    return red << 16 | green << 8 | blue


def color_of(number: int) -> Color:
    """The inverse of `color_number`."""
    return number >> 16, number >> 8 & 255, number & 255


def _integer(value: Any) -> int:
    """An integer, or a str of one, since JSON keys are strings."""
    return int(value) if isinstance(value, str) else operator.index(value)


def _integers(values: Sequence[Any]) -> tuple[int, ...]:
    return tuple(_integer(value) for value in values)


def _repeated(values: Sequence[object]) -> list[object]:
    return sorted({v for v in values if values.count(v) > 1}, key=str)
