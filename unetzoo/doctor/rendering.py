"""A report as tables for the terminal."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..wording import pluralize
from .findings import legible
from .propose import as_options

if TYPE_CHECKING:
    from .findings import Finding, Report
    from .registries import InstallReport

_COLORS = {"error": "red", "warning": "yellow", "note": "cyan"}
_FILES = 5


def rendered(report: Report) -> RenderableType:
    """What was audited, each finding with its first files, the balance of the classes, a summary."""
    parts: list[RenderableType] = [_header(report)]
    parts += [_finding(finding) for finding in report.findings]
    if report.proposal:
        parts += [
            Text("proposed declaration, for a command or under [data] of a recipe", style="bold"),
            *(Text(f"    {line}") for line in _commands(report)),
        ]
    if any(share.pixels for share in report.classes):
        parts.append(Padding(_balance(report), (1, 0)))
    parts.append(_summary(report))
    return Group(*parts)


def _header(report: Report) -> Text:
    sure = f", recognized by its names ({report.confidence:.0%} sure)" if report.confidence is not None else ""
    read = f"{report.audited:,} of " if report.audited < report.samples else ""
    splits = ", ".join(f"{name} {count:,}" for name, count in report.splits.items())
    return Text.assemble(
        (legible(report.source), "bold"), f"  {report.dataset}{sure}\n",
        read + pluralize(report.samples, "sample") + (f" ({splits})" if splits else ""),
    )  # fmt: skip


def _finding(finding: Finding) -> RenderableType:
    shown = finding.cases[: _FILES if finding.severity != "note" else 2]
    lines = [f"\n    {case}" for case in shown]
    if finding.count > len(shown):
        lines.append(f"\n    … and {finding.count - len(shown):,} more")
    fix = [(f"\n    Fix: {finding.fix}", "dim")] if finding.severity != "note" else []
    return Text.assemble(
        (finding.severity, _COLORS[finding.severity]), " ", (finding.code, "bold"),
        f" ({finding.count:,}): {finding.reason}", *lines, *fix,
    )  # fmt: skip


def _commands(report: Report) -> tuple[str, str]:
    """The audit with the proposed declaration, and a training."""
    options, source = {**report.options, **(report.proposal or {})}, Path(report.source)
    root = source.parent if source.name == options.get("manifest") else source  # the manifest itself may be audited
    data = {"name": report.dataset, "root": legible(str(root)), **options}
    return (
        f"unetzoo doctor {shlex.quote(legible(report.source))} --dataset {report.dataset} {as_options(options)}",
        f"unetzoo train RECIPE {as_options(data, 'data.')}",
    )


def _balance(report: Report) -> Table:
    table = Table("class", box=None)
    for column in ("pixels", "share", "images"):
        table.add_column(column, justify="right")
    for share in report.classes:
        table.add_row(Text(share.name), f"{share.pixels:,}", f"{share.share:.2%}", f"{share.images:,}")
    return table


def _summary(report: Report) -> Text:
    counts = {severity: len(report.of(severity)) for severity in ("error", "warning", "note")}
    parts: list[str | tuple[str, str]] = []
    for severity, count in counts.items():
        parts += [", "] * bool(parts and count) + [(pluralize(count, severity), _COLORS[severity])] * bool(count)
    seconds = (f"  ({report.seconds:.1f} s)", "dim")
    return Text.assemble("kinds of findings: ", *(parts or [("nothing found", "green")]), seconds)


def rendered_install(report: InstallReport) -> RenderableType:
    """Packages, distributions with what they offer, findings."""
    packages = Table("package", "wanted", "found", "", box=None)
    for package in report.packages:
        mark = Text("✓", style="green") if package.fits else Text("✗", style="red")
        packages.add_row(package.name, package.wanted, package.found or "missing", mark if package.wanted else "")
    offers = Table("distribution", "offers", box=None)
    for owner, kinds in report.distributions.items():
        kinds_of_names = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items())
        offers.add_row(Text(owner), Text(kinds_of_names))
    parts: list[RenderableType] = [packages, Padding(offers, (1, 0)), *(_finding(f) for f in report.findings)]
    if not report.findings:
        parts.append(Text("all names load, all packages fit", style="green"))
    return Group(*parts)
