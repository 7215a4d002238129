"""Render `report.html`, a self-contained page about a run.

The markup is in `templates/`.
"""

from __future__ import annotations

import base64
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from .._version import __version__
from ..labels import LabelSpec
from ..training.logs import columns_of, plain
from ..wording import format_score, printable
from . import style
from .curves import COUNTS, Chart, Row, charts
from .gallery import Ranked
from .images import Pixels, color_names, encoded, hex_of, ignored_color, limits_of, scale_colors
from .plots import DASHES, inline_svg
from .samples import Sample

CLASS_SCORES = {
    "iou": "IoU", "f1": "F1", "precision": "Precision", "sensitivity": "Sensitivity", "specificity": "Specificity",
    "nsd": "NSD", "hd95": "HD95", "assd": "ASSD",
}  # fmt: skip


@dataclass(frozen=True)
class Report:
    """Contents of the page.

    Args:
        name: Name of the run.
        recipe: The resolved recipe.
        labels: Names and colors of the classes.
        history: One row per epoch.
        monitor: The score that decides which epoch is best.
        best_epoch: The best epoch, counted from 1.
        scores: Scores of the best network.
        baseline: Scores of the dataset's baseline.
        heads: Scored heads other than the mask.
        confusion: Confusion counts of the best network; None if the metric has none.
        classes: Names of the rows of `confusion`.
        ranked: Best and worst samples per head.
        events: Rows of `events.jsonl`.
        environment: Versions and machine.
        commands: Commands to use and to repeat the run, by heading.
        files: Descriptions of the files in the run folder, by name.
        memory: Peak memory, as text.
        intervals: Ends of the 95% intervals of the best network's scores.
        caution: The reason why the intervals are unreliable; empty if they are not.
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
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    memory: str = ""
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    caution: str = ""


def render(run: Report) -> str:
    """Render the page as HTML.

    Examples:
        >>> render(Report("demo", {"model": {"name": "unet"}}, LabelSpec(("cell",)), [])).count("<h1>unet on ?</h1>")
        1
    """
    scores, classes, confusion = _scores(run), _classes(run), _confusion(run)
    drawn = [_chart(chart, number) for number, chart in enumerate(charts(run.history, run.heads), start=1)]
    samples = [group for head, ranked in run.ranked.items() for group in _samples(head, ranked, run.labels)]
    return _environment().get_template("report.html.jinja").render(
        run=run,
        title=f"{_name_in(run, 'model')} on {_name_in(run, 'data')}",
        sections={"scores": scores, "curves": drawn, "classes": classes, "confusion": confusion, "samples": samples,
                  "run": True, "recipe": True},
        lead=_lead(run),
        warnings=list({str(event["said"]): event for event in run.events if event.get("said")}.values()),  # each once
        scores=scores,
        charts=drawn,
        epochs=_epochs(run),
        classes=classes,
        confusion=confusion,
        palette=color_names(run.labels),
        samples=samples,
        palette_key=_palette_key(run.labels) if any(ranked.is_mask and ranked.kept for ranked in run.ranked.values())
        else None,
        timings=_timings(run),
        files=run.files,
        recipe=json.dumps(run.recipe, indent=2),
    )  # fmt: skip


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("unetzoo.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) or not isinstance(value, str) else printable(value),
    )
    environment.filters["score"] = format_score
    environment.globals |= {"style": style, "shades": style.shades}
    return environment


def _name_in(run: Report, section: str) -> str:
    return str(dict(run.recipe.get(section) or {}).get("name", "?"))


def _lead(run: Report) -> dict[str, str]:
    """Return the key figures at the top of the page."""
    wanted = [run.monitor, "miou", "mdice", "pixel_accuracy", *(f"{head}/rmse" for head in run.heads)]
    shown = {name: format_score(run.scores[name]) for name in wanted if name in run.scores}
    return shown | ({"best epoch": f"{run.best_epoch} of {len(run.history)}"} if run.best_epoch else {})


def _scores(run: Report) -> dict[str, Any] | None:
    names = [name for name in run.scores if _is_of_the_whole(name, run.heads)]
    if not names:
        return None
    columns: dict[str, Mapping[str, float]] = {
        "best network": run.scores,
        "last epoch": run.history[-1] if run.history else {},
    }
    if run.baseline:
        columns["baseline"] = run.baseline
    rows = [[name, *(format_score(scores.get(name)) for scores in columns.values())] for name in names]
    head = ["score", *columns]
    if any(name in run.intervals for name in names):
        rows = [[*row, _interval(run, row[0])] for row in rows]
        head.append("95% interval")
    return {"head": head, "rows": rows}


def _interval(run: Report, name: str) -> str:
    ends = [format_score(end) for end in run.intervals.get(name, ())]
    return " … ".join(ends) if "–" not in ends else "–"


def _is_of_the_whole(name: str, heads: Sequence[str]) -> bool:
    kind, _, of = name.partition("/")
    return not of or kind in ("val", *heads)


def _chart(chart: Chart, number: int) -> dict[str, Any]:
    key = {name: {"color": chart.color(name), "dashes": DASHES[chart.style(name)]} for name in chart.curves}
    return {"title": chart.title, "log": chart.log, "svg": Markup(inline_svg(chart, number)), "key": key}


def _epochs(run: Report) -> dict[str, Any]:
    names = [name for name in columns_of(run.history) if _is_of_the_whole(name, (*run.heads, "train"))]
    names = [name for name in names if name != "epoch" and name.rpartition("/")[2] not in COUNTS]
    rows = [[f"{row['epoch']:.0f}", *(format_score(row.get(name)) for name in names)] for row in run.history]
    return {"head": ["epoch", *names], "rows": rows}


def _classes(run: Report) -> dict[str, Any] | None:
    """Return one row per class, then per group, with scores and share of the true pixels."""
    names = list(dict.fromkeys([*run.classes, *run.labels.groups]))
    kinds = [kind for kind in CLASS_SCORES if any(f"{kind}/{name}" in run.scores for name in names)]
    if not kinds:
        return None
    shares = _true_shares(run)
    rows = []
    for name in names:
        cells = [format_score(run.scores.get(f"{kind}/{name}")) for kind in kinds]
        rows.append((name, cells + ([f"{shares[name]:.2%}" if name in shares else ""] if shares else [])))
    head = ["class", *(CLASS_SCORES[kind] for kind in kinds), *(["true pixels"] if shares else [])]
    if "iou" in kinds and any(f"iou/{name}" in run.intervals for name in names):
        rows = [(name, [*cells, _interval(run, f"iou/{name}")]) for name, cells in rows]
        head.append("95% interval of IoU")
    return {"head": head, "rows": rows}


def _true_shares(run: Report) -> dict[str, float]:
    if run.confusion is None:
        return {}
    true = run.confusion[:, 1].sum(-1) if run.confusion.ndim == 3 else run.confusion.sum(1)
    total = run.confusion.reshape(len(true), -1).sum(-1) if run.confusion.ndim == 3 else true.sum()
    shares = np.divide(true, total, out=np.zeros(len(true)), where=np.broadcast_to(total, true.shape) > 0)
    return dict(zip(run.classes, shares.tolist(), strict=True))


def _confusion(run: Report) -> dict[str, Any] | None:
    counts = run.confusion
    if counts is None or not counts.sum():
        return None
    multilabel = counts.ndim == 3
    shares = np.stack([_shares(counts[:, row])[:, 1] for row in (1, 0)], 1) if multilabel else _shares(counts)
    columns = ["found", "false alarm"] if multilabel else list(run.classes)
    rows = [
        (name, list(zip(columns, row, strict=True))) for name, row in zip(run.classes, shares.tolist(), strict=True)
    ]
    return {"multilabel": multilabel, "columns": columns, "rows": rows}


def _shares(counts: NDArray[Any]) -> NDArray[Any]:
    pixels = counts.sum(-1, keepdims=True)
    return np.divide(counts, pixels, out=np.full(counts.shape, np.nan), where=pixels > 0)


def _samples(head: str, ranked: Ranked, labels: LabelSpec) -> list[dict[str, Any]]:
    """Return the best and worst samples of a head."""
    by = "mean IoU over the classes that occur in it" if ranked.is_mask else "root mean squared error"
    return [
        {"title": f"{which} {head}", "by": by, "score": "mIoU" if ranked.is_mask else "RMSE",
         "figures": [_figure(sample, labels) for sample in samples]}
        for which, samples in (("Best", ranked.best), ("Worst", ranked.worst)) if samples
    ]  # fmt: skip


def _figure(sample: Sample, labels: LabelSpec) -> dict[str, Any]:
    """Return the images of a sample, each with an alternative text for screen readers."""
    told = {caption: sample.described(caption, labels) for caption in sample.panels(labels)}
    panels = [
        _panel(caption, image, f"{caption} of {sample.name}" + told[caption], photo=caption in sample.photos)
        for caption, image in sample.panels(labels).items()
    ]
    scales = [
        {"head": head, "low": limits[0], "high": limits[1], "colors": scale_colors(9)}
        for head, limits in ((head, limits_of(*planes)) for head, planes in sample.planes.items())
    ]
    return {"name": sample.name, "score": sample.score, "panels": panels, "scales": scales}


def _panel(caption: str, image: Pixels, alt: str, *, photo: bool) -> dict[str, Any]:
    kind, data = encoded(image, photo=photo)
    height, width = image.shape[:2]
    source = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    return {"caption": caption, "source": source, "alt": alt, "width": width, "height": height, "photo": photo}


def _palette_key(labels: LabelSpec) -> dict[str, str]:
    ignored = {} if labels.ignore_index is None else {"not labeled": hex_of(ignored_color(labels))}
    return color_names(labels) | ignored


def _timings(run: Report) -> dict[str, Any]:
    seconds = [row["seconds"] for row in run.history if math.isfinite(row.get("seconds", math.nan))]
    entries: dict[str, Any] = {"epochs": len(run.history)}
    if seconds:
        entries |= {"time": str(timedelta(seconds=round(sum(seconds)))),
                    "time per epoch": f"{statistics.median(seconds):.1f} s"}  # fmt: skip
    entries |= {"peak memory": run.memory} if run.memory else {}
    entries |= {"report by": f"unetzoo {__version__}"}
    return entries | {name.replace("_", " "): _as_text(value) for name, value in run.environment.items()}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(plain(value) if isinstance(value, Mapping) else value)
