"""Writes `docs/benchmarks.md` and its figures from the stored results: `python -m benchmarks.report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import goals
from .figures import bars
from .harness import load_records

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
FIGURES = PAGE.parent / "figures"
HEAD = """# Benchmarks

Generated from `benchmarks/results/` by `python -m benchmarks.report`. In each race all contenders do the same work on
the same inputs. Their outputs are compared first; then they take turns, so that other load on the machine affects all
of them alike. Times are medians, ± is the interquartile range. *× first* is a contender's time divided by that of the
first, which is ours: above 1 we are faster, below 1 we are slower (marked ◂, in red in the figures). Differences below
5% are within noise. *apart ms* is the median of the calls before which two threads took more than 1.3 times as long as
one for small matrix products, *near ms* that of the others: a virtual machine's cores may be moved to where they share
no cache. *× limit* is the time divided by the least that the machine needs, from the ceilings measured in the same run.

To measure on your own machine, run `python -m benchmarks` from a checkout (or some races only: `python -m benchmarks
losses`). Peers that are not installed are left out.
"""


def page(records: list[dict[str, Any]]) -> str:
    """The page as Markdown."""
    parts = [HEAD, "## Goals\n\nWhere several races count towards a goal, the worst one decides.\n"]
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
    """The path of a result's figure."""
    return FIGURES / f"benchmark-{record['what']}-{'cuda' if record['environment']['gpu'] else 'cpu'}.svg"


def number(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    FIGURES.mkdir(exist_ok=True)
    PAGE.write_text(page(load_records()))
    for record in load_records():
        figure(record).write_text(bars(record))
    print(f"written: {PAGE.name} and figures")
