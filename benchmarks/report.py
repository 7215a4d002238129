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

![Bar chart of the speed of unetzoo relative to other libraries, for each goal](figures/benchmarks.svg)

Each bar is the time of another library divided by that of unetzoo, for the same work and the same inputs on a CPU; for
several measurements, the worst ratio. Outputs, losses and gradients are compared before times are measured.

Libraries are measured in alternation, so that other load on the machine affects all of them. Times are medians; ± is
the interquartile range. *Relative* is the time relative to the first row of a measurement, which is unetzoo; ◂ marks
faster ones. Differences below 5% are noise. Other libraries run as published (float32), and with the settings that make
them fastest: bfloat16, `channels_last`, `torch.compile`, OpenVINO, ONNX Runtime. *× limit* is the time relative to the
theoretical minimum for the machine, whose speed is measured in the same run.

From a checkout, `python -m benchmarks` runs all measurements, `python -m benchmarks training inference` some of them,
and `python -m benchmarks.report` writes this page from `benchmarks/results/`. Libraries that are not installed are
skipped.
"""


def page(records: list[dict[str, Any]]) -> str:
    """The page as Markdown: a figure, a table per topic, the goals."""
    parts = [HEAD]
    for record in sorted(records, key=_order):
        parts += [_heading(record), table(record), _details(record)]
    parts += ["## Goals\n\nIf a goal has several measurements, the worst one counts.\n"]
    parts += ["\n".join([f"| {' | '.join(goals.HEAD)} |", "|---" * len(goals.HEAD) + "|",
                        *(f"| {' | '.join(row)} |" for row in goals.rows(records)), ""])]  # fmt: skip
    return "\n".join(parts)


def _order(record: dict[str, Any]) -> tuple[int, str]:
    names = [*TOPICS]
    return (names.index(record["what"]) if record["what"] in TOPICS else len(names)), str(record["environment"]["gpu"])


def _heading(record: dict[str, Any]) -> str:
    gpu = record["environment"]["gpu"]
    return f"## {TOPICS.get(record['what'], record['what'])}{f', {gpu}' if gpu else ''}\n"


def _details(record: dict[str, Any]) -> str:
    """Notes and environment, folded."""
    lines = ['<details markdown="1">', "<summary>Notes and environment</summary>", ""]
    return "\n".join([*lines, *notes(record), f"- {_where(record)}", "</details>", ""])


def _where(record: dict[str, Any]) -> str:
    where = record["environment"]
    device = where["gpu"] or f"CPU, {where['threads']} thread{'s' * (where['threads'] != 1)}, {where['machine']}"
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    return f"`{record['command']}`, {record['date']}; {device}; Python {where['python']}, {versions}."


def table(record: dict[str, Any]) -> str:
    """All measurements of one topic."""
    races = record["races"]
    memory = any("extra_mb" in row for race in races for row in race["rows"].values())
    limited = any("limit" in race for race in races)
    columns = ["", "ms", "±", "relative", "per second", *["× limit"] * limited, *["extra MB"] * memory]
    lines = [f"| {' | '.join(columns)} |", "|---" + "|---:" * (len(columns) - 1) + "|"]
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
    return "\n".join([*lines, ""])


def notes(record: dict[str, Any]) -> list[str]:
    """Notes on rows, and the limits, as a list without repetitions."""
    found: dict[str, None] = {}
    for race in record["races"]:
        found |= {f"- {name}: {row['note']}": None for name, row in race["rows"].items() if "note" in row}
        if limit := race.get("limit"):
            found[f"- limit of {race['name']}, {number(limit['ms'])} ms: {limit['what']}"] = None
    return [*found]


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
