"""Writes `docs/benchmarks.md` and its figures from the stored results: `python -m benchmarks.report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import goals
from .figures import bars
from .harness import load_records

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
FIGURE = PAGE.parent / "figures" / "benchmarks.svg"
TOPICS = {
    "training": "Training step",
    "inference": "Inference",
    "tiling": "Large images",
    "metrics": "Metric updates",
    "losses": "Losses",
    "memory": "Memory of training",
    "precision": "Precision",
    "trainer": "Overhead of the Trainer",
    "composites": "Composites",
    "cache": "Cached data sets",
    "imports": "Imports",
}
HEAD = """# Benchmarks

![How many times faster than its peers](figures/benchmarks.svg)

Each bar is the time of a peer divided by ours, for the same work on the same inputs on one CPU; where several
measurements count, the worst. What is computed is compared first: outputs, losses and gradients, counts.

Contenders take turns, so that other load on the machine affects all alike. Times are medians, ± is the interquartile
range, and *× ours* is the time divided by that of the first row of a measurement, which is ours: below 1, marked ◂, the
other is faster. Differences below 5% are within noise. Other libraries run as published (float32) and with what makes
them fastest: bfloat16, `channels_last`, `torch.compile`, OpenVINO, ONNX Runtime. *× limit* is the time divided by the
least that the machine needs, from its own speeds measured in the same run.

`python -m benchmarks` measures all of it from a checkout, `python -m benchmarks training inference` some of it;
`python -m benchmarks.report` writes this page from `benchmarks/results/`. Peers that are not installed are left out.
"""


def page(records: list[dict[str, Any]]) -> str:
    """The page as Markdown: a figure, a table per topic, the goals."""
    parts = [HEAD]
    for record in sorted(records, key=_order):
        parts += [_heading(record), table(record), _where(record)]
    parts += ["## Goals\n\nWhere several measurements count towards a goal, the worst one decides.\n"]
    parts += ["\n".join([f"| {' | '.join(goals.HEAD)} |", "|---" * len(goals.HEAD) + "|",
                        *(f"| {' | '.join(row)} |" for row in goals.rows(records)), ""])]  # fmt: skip
    return "\n".join(parts)


def _order(record: dict[str, Any]) -> tuple[int, str]:
    names = [*TOPICS]
    return (names.index(record["what"]) if record["what"] in TOPICS else len(names)), str(record["environment"]["gpu"])


def _heading(record: dict[str, Any]) -> str:
    gpu = record["environment"]["gpu"]
    return f"## {TOPICS.get(record['what'], record['what'])}{f', {gpu}' if gpu else ''}\n"


def _where(record: dict[str, Any]) -> str:
    where = record["environment"]
    device = where["gpu"] or f"CPU, {where['threads']} thread{'s' * (where['threads'] != 1)}, {where['machine']}"
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    return f"`{record['command']}`, {record['date']}; {device}; Python {where['python']}, {versions}.\n"


def table(record: dict[str, Any]) -> str:
    """All measurements of one topic."""
    races = record["races"]
    memory = any("extra_mb" in row for race in races for row in race["rows"].values())
    limited = any("limit" in race for race in races)
    columns = ["", "ms", "±", "× ours", "per second", *["× limit"] * limited, *["extra MB"] * memory]
    lines = [f"| {' | '.join(columns)} |", "|---" + "|---:" * (len(columns) - 1) + "|"]
    notes: dict[str, None] = {}
    for race in races:
        limit = race.get("limit")
        lines.append(f"| **{race['name']}** " + "| " * (len(columns) - 1) + "|")
        for name, row in race["rows"].items():
            lost = " ◂" * (row["ratio_to_first"] < 0.95)
            cells = [name, number(row["ms"]), number(row["iqr_ms"]), f"{row['ratio_to_first']:.2f}{lost}"]
            cells.append(f"{number(row['per_second'])} {race['unit']}")
            cells += [f"{row['ms'] / limit['ms']:.2f}" if limit else ""] if limited else []
            cells += [number(row.get("extra_mb"))] if memory else []
            lines.append(f"| {' | '.join(cells)} |")
        notes |= {f"{name}: {row['note']}": None for name, row in race["rows"].items() if "note" in row}
        notes |= {f"limit of {race['name']}, {number(limit['ms'])} ms: {limit['what']}": None} if limit else {}
    return "\n".join([*lines, "", *(f"- {note}" for note in notes), *[""] * bool(notes)])


def number(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    stored = load_records()
    PAGE.write_text(page(stored))
    FIGURE.write_text(bars(list(goals.headlines(stored))))
    print(f"written: {PAGE.name} and {FIGURE.name}")
