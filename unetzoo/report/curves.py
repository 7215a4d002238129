"""Group the curves of a run into charts: losses, scores and the learning rate over epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..training.logs import columns_of
from .style import CURVES_LIGHT

Row = Mapping[str, float]
ASIDE = ("epoch", "lr", "seconds", "skipped")
COUNTS = ("miou_defined", "pixels", "images", "count")
SMALLER = ("loss", "rmse", "abs_rel", "sq_rel", "rmse_log", "log10", "silog", "ece", "hausdorff", "hd95", "assd")
BY_CLASS = ("iou", "f1", "precision", "sensitivity", "specificity", "accuracy", "nsd", "hausdorff", "hd95", "assd")
CLASSES = 10  # maximum number of classes whose curves can be told apart
DECADES = 30.0  # ratio of largest to smallest value above which the axis is logarithmic


@dataclass(frozen=True)
class Chart:
    """Curves that share an axis.

    Args:
        title: Title.
        curves: Values per epoch, by name; NaN if missing.
        log: Whether the axis is logarithmic.
        colors: Color number of each curve; consecutive by default.
        dashed: Names of dashed curves.
    """

    title: str
    curves: dict[str, list[float]]
    log: bool = False
    colors: Mapping[str, int] = field(default_factory=dict)
    dashed: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not self.colors:
            object.__setattr__(self, "colors", {name: place for place, name in enumerate(self.curves)})

    def color(self, name: str) -> int:
        """Return the index of a curve's color."""
        return self.colors[name] % len(CURVES_LIGHT)

    def style(self, name: str) -> str:
        """Return the line style of a curve, which is dotted if its color is used a second time."""
        if self.colors[name] >= len(CURVES_LIGHT):
            return "dotted"
        return "dashed" if name in self.dashed else "solid"


def is_better_smaller(name: str) -> bool:
    """Whether smaller values of a score are better.

    Examples:
        >>> [is_better_smaller(name) for name in ("miou", "val/loss", "depth/rmse", "hd95/car", "iou/loss")]
        [False, True, True, True, False]
    """
    kind, _, of = name.partition("/")
    return kind in ("train", "val", *SMALLER) or (kind not in BY_CLASS and of in SMALLER)


def charts(history: Sequence[Row], heads: Sequence[str] = ()) -> list[Chart]:
    """Return the charts of a run, without empty ones.

    Args:
        history: One row per epoch, as returned by `Trainer.fit`.
        heads: Scored heads other than the mask.

    Examples:
        >>> rows = [{"epoch": e, "lr": 1e-3, "train/loss": 1 / e, "miou": 0.1 * e, "iou/car": 0.2} for e in (1, 2, 3)]
        >>> [(chart.title, list(chart.curves)) for chart in charts(rows)]
        [('Loss', ['train/loss']), ('Scores', ['miou']), ('IoU by class', ['iou/car']), ('Learning rate', ['lr'])]
    """
    names = columns_of(history)
    terms = [name for name in names if name.startswith(("train/", "val/"))]
    classes = [name for name in names if name.startswith("iou/")]
    made = [
        _chart("Loss", history, [name for name in terms if name.endswith("/loss")], log=True),
        _chart("Terms of the loss", history, _several([n for n in terms if not n.endswith("/loss")]), log=True),
        *_by_scale("Scores", history, [name for name in names if "/" not in name and name not in ASIDE + COUNTS]),
    ]
    for head in heads:
        own = [name for name in names if name.startswith(f"{head}/") and name.count("/") == 1]
        made += _by_scale(f"Scores of {head}", history, [name for name in own if name.partition("/")[2] not in COUNTS])
    made.append(_chart("IoU by class", history, classes if len(classes) <= CLASSES else []))
    made.append(_chart("Learning rate", history, [name for name in names if name == "lr"], log=True))
    return [chart for chart in made if chart.curves]


def _several(names: list[str]) -> list[str]:
    """Return the terms of the loss if there are several."""
    return names if len({name.partition("/")[2] for name in names}) > 1 else []


def _by_scale(title: str, history: Sequence[Row], names: Sequence[str]) -> list[Chart]:
    """Return scores up to 1 in one chart, and other scores grouped by magnitude."""
    groups: dict[int, list[str]] = {}
    for name in names:
        values = [abs(row[name]) for row in history if name in row and math.isfinite(row[name])]
        if values:
            smaller = is_better_smaller(name)
            size = 0 if max(values) <= 1 else 1 + max(round(math.log10(max(values))), 0)
            groups.setdefault(2 * size + smaller, []).append(name)
    titles = [f"{title}: {', '.join(name.rpartition('/')[2] for name in names[:3])}" for names in groups.values()]
    return [
        _chart(own if len(groups) > 1 else title, history, names)
        for own, names in zip(titles, groups.values(), strict=True)
    ]


def _chart(title: str, history: Sequence[Row], names: Sequence[str], *, log: bool = False) -> Chart:
    """Make a chart; with `log`, the axis is logarithmic if the values span decades.

    Both splits of a loss term have the same color; the curve of the training split is dashed.
    """
    curves = {name: [float(row.get(name, math.nan)) for row in history] for name in names}
    finite = [value for values in curves.values() for value in values if math.isfinite(value)]
    curves = {name: values for name, values in curves.items() if any(map(math.isfinite, values))}
    log = log and bool(finite) and min(finite) > 0 and max(finite) / min(finite) > DECADES
    terms = {name: name.removeprefix("train/").removeprefix("val/") for name in curves}
    places = {term: place for place, term in enumerate(dict.fromkeys(terms.values()))}
    colors = {name: places[term] for name, term in terms.items()}
    return Chart(title, curves, log, colors, frozenset(name for name in curves if name.startswith("train/")))
