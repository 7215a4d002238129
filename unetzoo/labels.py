"""LabelSpec: what the classes of a data set are called, how files write them, which mirror which.

A plain value that travels to every room: loading, flips, metrics, colours and reports read it. Standard library only.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from .errors import ConfigError

Color = tuple[int, int, int]


@dataclass(frozen=True)
class LabelSpec:
    """The label set of a data set.

    Args:
        names: One name a class; the position is the class index that networks predict.
        ids: The value that mask files hold for each class; the class indices themselves by default.
        ignore_ids: File values that mean "not labelled"; they become `ignore_index`.
        ignore_index: The value of ignored pixels in a loaded mask.
        palette: One RGB colour a class; distinct colours are made when none are given.
        groups: Named unions of classes, for scores of merged regions.
        swap_pairs: Classes that change places when the picture is mirrored (left eye, right eye).
        side: Whose left and right the pairs mean: the viewer's or the subject's.

    Raises:
        ConfigError: Parts that contradict each other.

    Examples:
        >>> spec = LabelSpec(("membrane", "cell"), ids=(0, 255))
        >>> spec.lookup()
        {0: 0, 255: 1}
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

    def __post_init__(self) -> None:
        tidy: dict[str, Any] = {
            "names": tuple(self.names),
            "ids": tuple(self.ids) or tuple(range(len(self.names))),
            "ignore_ids": tuple(self.ignore_ids),
            "palette": tuple(tuple(color) for color in self.palette) or distinct_colors(len(self.names)),
            "groups": {name: tuple(members) for name, members in self.groups.items()},
            "swap_pairs": tuple(tuple(pair) for pair in self.swap_pairs),
        }
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
        """Classes without names: named by their index."""
        return cls(tuple(str(i) for i in range(classes)), ignore_index=ignore_index)

    def lookup(self) -> dict[int, int]:
        """File value → value in a loaded mask."""
        table = {raw: index for index, raw in enumerate(self.ids)}
        if self.ignore_index is not None:
            table |= dict.fromkeys(self.ignore_ids, self.ignore_index)
        return table

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self) | {"groups": {name: list(members) for name, members in self.groups.items()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LabelSpec:
        """The spec that `to_dict` wrote, also after a way through JSON."""
        return cls(**data)

    def _check(self) -> None:
        def refuse(what: str, found: object, expected: object) -> None:
            raise ConfigError("inconsistent label set", subject=what, expected=expected, found=found)

        count = len(self.names)
        if not count:
            refuse("names", "none", "at least one class")
        if len(set(self.names)) != count:
            refuse("names", _repeated(self.names), "distinct names")
        if len(self.ids) != count:
            refuse("ids", f"{len(self.ids)} values", f"{count}, one a class")
        if len({*self.ids, *self.ignore_ids}) != count + len(set(self.ignore_ids)):
            refuse("ids", _repeated([*self.ids, *set(self.ignore_ids)]), "each file value once")
        if self.ignore_ids and self.ignore_index is None:
            refuse("ignore_index", None, "a value for the ignored pixels, e.g. 255")
        if self.ignore_index is not None and 0 <= self.ignore_index < count:
            refuse("ignore_index", self.ignore_index, f"a value outside the classes 0…{count - 1}")
        if len(self.palette) != count:
            refuse("palette", f"{len(self.palette)} colours", f"{count}, one a class")
        members = [i for group in self.groups.values() for i in group] + [i for pair in self.swap_pairs for i in pair]
        if any(not 0 <= i < count for i in members):
            refuse("groups and swap pairs", members, f"classes 0…{count - 1}")
        if self.swap_pairs and self.side is None:
            refuse("side", None, '"viewer" or "subject", as there are swap pairs')


def distinct_colors(count: int) -> tuple[Color, ...]:
    """Black for the first class and well separated hues for the others.

    Examples:
        >>> distinct_colors(3)
        ((0, 0, 0), (242, 12, 12), (97, 139, 242))
    """

    def color(index: int) -> Color:
        hue = (index - 1) * 0.618034 % 1.0
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.95 if index % 2 else 0.6, 0.95)
        return round(red * 255), round(green * 255), round(blue * 255)

    return ((0, 0, 0), *(color(index) for index in range(1, count)))[:count]


def _repeated(values: Sequence[object]) -> list[object]:
    return sorted({v for v in values if values.count(v) > 1}, key=str)
