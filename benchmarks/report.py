"""The benchmarks' page, made from what was kept: `python -m benchmarks.report` writes it and its figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import goals
from .figures import bars
from .harness import RESULTS, check_schema

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
FIGURES = PAGE.parent / "figures"
HEAD = """# Benchmarks

Made from `benchmarks/results/` by `python -m benchmarks.report`. Each piece of work is done by all contenders on equal
inputs, their answers are compared first, and then they take turns, so that whatever else the machine does meets all of
them alike. Times are medians, ± is the interquartile range; *× first* is a contender's time over that of the first,
which is ours: above 1 we are faster, below 1 we lose (marked ◂, in red in the figures). Differences below 5 % say
nothing. *Apart* is the median of the calls before which two threads took over 1.3 times as long as one for small
products, *near* that of the others: a virtual machine's cores may be moved to where they share no cache. *× limit* is
the time over what the machine needs at the least, by the ceilings measured in that run.

Measure on your own machine, from a checkout: `python -m benchmarks` (or some of them: `python -m benchmarks losses`).
Peers that are not installed are left out.
"""


def kept() -> list[dict[str, Any]]:
    """All results in the races' schema, by name."""
    records = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    races = [record for record in records if "races" in record]
    for record in races:
        check_schema(record)
    return races


def page(records: list[dict[str, Any]]) -> str:
    """The page as Markdown."""
    parts = [HEAD, "## Goals\n\nOf several races the worst counts.\n"]
    parts += [f"| {' | '.join(goals.HEAD)} |", "|---" * len(goals.HEAD) + "|"]
    parts += [f"| {' | '.join(row)} |" for row in goals.rows(records)]
    parts.append("")
    for record in records:
        where = record["environment"]
        device = where["gpu"] or f"CPU, {where['threads']} thread{'s' * (where['threads'] != 1)}, {where['machine']}"
        versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
        parts.append(f"## {record['what']}\n\n`{record['command']}`, {record['date']}; {device}; Python "
                     f"{where['python']}, {versions}.\n")  # fmt: skip
        parts.append(f"![Times over the first]({figure(record).relative_to(PAGE.parent)})\n")
        parts += [table(race) for race in record["races"]]
    return "\n".join(parts)


def table(race: dict[str, Any]) -> str:
    """One race."""
    memory, limit = any("extra_mb" in row for row in race["rows"].values()), race.get("limit")
    columns = ["", "ms", "±", "× first", f"{race['unit']}/s"]
    moved = any("apart_ms" in row for row in race["rows"].values())
    columns += ["near ms", "apart ms"] * moved + ["× limit"] * bool(limit) + ["extra MB"] * memory
    lines = [f"**{race['name']}**\n", f"| {' | '.join(columns)} |", "|---" + "|---:" * (len(columns) - 1) + "|"]
    for name, row in race["rows"].items():
        lost = " ◂" * (row["ratio_to_first"] < 0.95)
        cells = [name, number(row["ms"]), number(row["iqr_ms"]), f"{row['ratio_to_first']:.2f}{lost}"]
        cells.append(number(row["per_second"]))
        cells += [number(row.get("near_ms")), number(row.get("apart_ms"))] if moved else []
        cells += [f"{row['ms'] / limit['ms']:.2f}"] if limit else []
        cells += [number(row.get("extra_mb"))] if memory else []
        lines.append(f"| {' | '.join(cells)} |")
    notes = [f"{name}: {row['note']}" for name, row in race["rows"].items() if "note" in row]
    notes += [f"limit {number(limit['ms'])} ms: {limit['what']}"] if limit else []
    return "\n".join([*lines, "", *([f"{'; '.join(notes)}.\n"] if notes else [])])


def figure(record: dict[str, Any]) -> Path:
    """Where a result's figure is kept."""
    return FIGURES / f"benchmark-{record['what']}-{'cuda' if record['environment']['gpu'] else 'cpu'}.svg"


def number(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    FIGURES.mkdir(exist_ok=True)
    PAGE.write_text(page(kept()))
    for record in kept():
        figure(record).write_text(bars(record))
    print(f"written: {PAGE.name} and figures")
