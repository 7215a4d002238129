"""`report.html`: what a run came to, on one page that needs nothing but itself."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._version import __version__
from ..labels import LabelSpec
from ..training.logs import columns_of, plain
from .curves import COUNTS, Row, charts
from .html import Html, chart, facts, join, number, table, tag
from .samples import Ranked
from .show import colors_key, sample_figure, swatch
from .style import stylesheet

CLASS_SCORES = {
    "iou": "IoU", "f1": "F1", "precision": "Precision", "sensitivity": "Sensitivity", "specificity": "Specificity",
    "nsd": "NSD", "hd95": "HD95", "assd": "ASSD",
}  # fmt: skip
MANY = 25  # classes from which the cells of a confusion matrix are small
SAFE = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # nothing is fetched, nothing runs


@dataclass(frozen=True)
class Facts:
    """What the page tells.

    Args:
        name: Of the run.
        recipe: Resolved.
        labels: Names and colors of the classes.
        history: A row an epoch.
        monitor: The score that said which epoch is best.
        best_epoch: Which one, from 1.
        scores: Of the best network.
        baseline: Of the dataset's own baseline.
        heads: Heads that are scored beside the mask.
        confusion: Of the best network; None where the metric counts none.
        classes: Names of its rows.
        ranked: Best and worst samples by head.
        events: What happened, as `events.jsonl` has it.
        environment: Versions and machine.
        commands: How to do it again.
        memory: Peak, for a reader.
    """

    name: str
    recipe: Mapping[str, Any]
    labels: LabelSpec
    history: Sequence[Row]
    monitor: str = ""
    best_epoch: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)
    baseline: Mapping[str, float] = field(default_factory=dict)
    heads: Sequence[str] = ()
    confusion: NDArray[Any] | None = None
    classes: Sequence[str] = ()
    ranked: Mapping[str, Ranked] = field(default_factory=dict)
    events: Sequence[Mapping[str, Any]] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    commands: Sequence[str] = ()
    memory: str = ""


def page(run: Facts) -> str:
    """The whole page."""
    parts = {
        "Scores": _scores(run),
        "Curves": _curves(run),
        "Classes": _classes(run),
        "Confusion": _confusion(run),
        "Samples": _samples(run),
        "Run": _timings(run),
        "Recipe": tag("pre", json.dumps(run.recipe, indent=2), tabindex="0"),
    }
    parts = {name: part for name, part in parts.items() if part}
    title = f"{_named(run, 'model')} on {_named(run, 'data')}"
    links = tag("nav", tag("ul", *(tag("li", tag("a", name, href=f"#{name.lower()}")) for name in parts)),
                aria_label="Sections")  # fmt: skip
    sections = (tag("section", tag("h2", name), part, id=name.lower()) for name, part in parts.items())
    body = tag("body", tag("header", tag("h1", title), tag("p", run.name, class_="quiet"), _lead(run), _warnings(run)),
               links, tag("main", *sections))  # fmt: skip
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=SAFE),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{title}: {run.name}"),
        tag("style", Html(stylesheet())),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _named(run: Facts, section: str) -> str:
    return str(dict(run.recipe.get(section) or {}).get("name", "?"))


def _lead(run: Facts) -> Html | None:
    """The numbers that a reader looks for first."""
    shown = {run.monitor: number(run.scores.get(run.monitor))} if run.monitor in run.scores else {}
    further = [name for name in ("miou", "mdice", "pixel_accuracy", *(f"{head}/rmse" for head in run.heads))]
    shown |= {name: number(run.scores[name]) for name in further if name in run.scores and name not in shown}
    if run.best_epoch:
        shown["best epoch"] = f"{run.best_epoch} of {len(run.history)}"
    tiles = (tag("div", tag("dt", name), tag("dd", value)) for name, value in shown.items())
    return tag("dl", *tiles, class_="lead") if shown else None


def _warnings(run: Facts) -> Html | None:
    """What happened; each thing once, though a run that was resumed may have met it twice."""
    told = {str(event["said"]): event for event in run.events if event.get("said")}
    boxes = []
    for said, event in told.items():
        causes = event.get("causes") or ()
        listed = tag("ul", *(tag("li", cause) for cause in causes)) if causes else None
        boxes.append(tag("div", tag("p", said), tag("p", "Likely causes:") if causes else None, listed,
                         class_="warn" if event.get("event") != "recovered" else "quiet"))  # fmt: skip
    return join(boxes) if boxes else None


def _scores(run: Facts) -> Html | None:
    names = [name for name in run.scores if _is_of_the_whole(name, run.heads)]
    if not names:
        return None
    last = run.history[-1] if run.history else {}
    columns: dict[str, Mapping[str, float]] = {"best network": run.scores, "last epoch": last}
    if run.baseline:
        columns["baseline"] = run.baseline
    rows = [[name, *(number(scores.get(name)) for scores in columns.values())] for name in names]
    said = tag("p", "On the validation data: the network of the best epoch, and that of the last.", class_="quiet")
    return join([said, table(["score", *columns], rows, "Scores")])


def _is_of_the_whole(name: str, heads: Sequence[str]) -> bool:
    kind, _, of = name.partition("/")
    return not of or kind in ("val", *heads)


def _curves(run: Facts) -> Html | None:
    drawn = [chart(part, place) for place, part in enumerate(charts(run.history, run.heads), start=1)]
    if not drawn:
        return None
    names = [name for name in columns_of(run.history) if _is_of_the_whole(name, (*run.heads, "train"))]
    names = [name for name in names if name != "epoch" and name.rpartition("/")[2] not in COUNTS]
    rows = [[f"{row['epoch']:.0f}", *(number(row.get(name)) for name in names)] for row in run.history]
    numbers = table(["epoch", *names], rows, "Epochs")
    folded = tag("details", tag("summary", "All epochs as a table"), numbers)
    return join([tag("div", *drawn, class_="charts"), folded])


def _classes(run: Facts) -> Html | None:
    """A row a class, with its color and its share of the true pixels; then the groups."""
    names = list(dict.fromkeys([*run.classes, *run.labels.groups]))
    kinds = [kind for kind in CLASS_SCORES if any(f"{kind}/{name}" in run.scores for name in names)]
    if not kinds:
        return None
    shares = _true_shares(run)
    rows = []
    for name in names:
        own = [number(run.scores.get(f"{kind}/{name}")) for kind in kinds]
        share = f"{100 * shares[name]:.2f} %" if name in shares else ""
        rows.append([join([swatch(run.labels, name), name]), *own, *([share] if shares else [])])
    head = ["class", *(CLASS_SCORES[kind] for kind in kinds), *(["true pixels"] if shares else [])]
    said = "A score that is not defined, as of a class that neither occurs nor is predicted, is shown as –."
    return join([tag("p", said, class_="quiet"), table(head, rows, "Scores by class")])


def _true_shares(run: Facts) -> dict[str, float]:
    if run.confusion is None:
        return {}
    true = run.confusion[:, 1].sum(-1) if run.confusion.ndim == 3 else run.confusion.sum(1)
    total = run.confusion.reshape(len(true), -1).sum(-1) if run.confusion.ndim == 3 else true.sum()
    shares = np.divide(true, total, out=np.zeros(len(true)), where=np.broadcast_to(total, true.shape) > 0)
    return dict(zip(run.classes, shares.tolist(), strict=True))


def _confusion(run: Facts) -> Html | None:
    counts = run.confusion
    if counts is None or not counts.sum():
        return None
    if counts.ndim == 3:
        rows = np.stack([_shares(counts[:, 1])[:, 1], _shares(counts[:, 0])[:, 1]], 1)
        columns, said = ["found", "false alarm"], "In % of the pixels with the label, and of those without it."
    else:
        rows, columns = _shares(counts), list(run.classes)
        said = "Rows are the truth, columns the prediction, in % of the true pixels of a class."
    body = [
        [name, *(_shade(share, f"{name} → {column}") for share, column in zip(row, columns, strict=True))]
        for name, row in zip(run.classes, rows.tolist(), strict=True)
    ]
    many = " many" if len(columns) > MANY else ""
    drawn = table(["truth", *columns], body, "Confusion matrix", class_=f"confusion{many}")
    return join([tag("p", said, class_="quiet"), drawn])


def _shares(counts: NDArray[Any]) -> NDArray[Any]:
    pixels = counts.sum(-1, keepdims=True)
    return np.divide(counts, pixels, out=np.full(counts.shape, np.nan), where=pixels > 0)


def _shade(share: float, what: str) -> Html:
    if math.isnan(share):
        return tag("td", "–", title=f"{what}: no such pixels")
    text = "" if share == 0 else "<1" if share < 0.005 else ">99" if 0.995 < share < 1 else f"{100 * share:.0f}"
    return tag("td", text, class_=f"d{round(10 * share)}", title=f"{what}: {100 * share:.2f} %")


def _samples(run: Facts) -> Html | None:
    parts: list[Html] = []
    for head, ranked in run.ranked.items():
        by = "mean IoU over the classes that occur in it" if ranked.is_mask else "root mean squared error"
        score = "mIoU" if ranked.is_mask else "RMSE"
        for title, samples in ((f"Best {head}", ranked.best), (f"Worst {head}", ranked.worst)):
            if samples:
                figures = (sample_figure(sample, run.labels, f"{score} {number(sample.score)}") for sample in samples)
                parts += [tag("h3", title, tag("small", f" by each image's {by}")), *figures]
        if ranked.is_mask and ranked.kept:
            parts.append(colors_key(run.labels))
    return join(parts) if parts else None


def _timings(run: Facts) -> Html:
    seconds = [row["seconds"] for row in run.history if math.isfinite(row.get("seconds", math.nan))]
    entries: dict[str, Any] = {"epochs": len(run.history)}
    if seconds:
        entries |= {"time": timedelta(seconds=round(sum(seconds))), "an epoch": f"{statistics.median(seconds):.1f} s"}
    entries |= {"peak memory": run.memory} if run.memory else {}
    entries |= {"report by": f"unetzoo {__version__}"}
    environment = {name.replace("_", " "): _fact(value) for name, value in run.environment.items()}
    again = (tag("pre", "\n".join(run.commands), tabindex="0"),) if run.commands else ()
    return join([facts(entries | environment), tag("h3", "To do it again") if again else None, *again])


def _fact(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(plain(value) if isinstance(value, Mapping) else value)
