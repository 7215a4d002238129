"""The report of an audit, and how it is shown in a terminal."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..labels import LabelSpec
from ..wording import pluralize
from .findings import SEVERITIES, ClassShare, Finding, Severity, legible
from .propose import as_options

_COLORS = {"error": "red", "warning": "yellow", "note": "cyan"}
_FILES = 5


@dataclass
class Report:
    """The outcome of an audit.

    Args:
        source: What was audited.
        dataset: The dataset's name.
        confidence: How sure the layout was recognized, in [0, 1]; None where the dataset was named.
        options: The dataset's arguments.
        labels: The declared label set; None where none was declared.
        proposal: A declaration that fits the values found, as arguments of the dataset, where none was given.
        findings: What was found, errors first.
        classes: The balance of the classes.
        samples: How many samples there are.
        audited: How many of these were read.
        splits: Samples a split.
        seconds: How long it took.

    Examples:
        >>> from unetzoo.doctor import Case, Finding
        >>> empty = Finding("empty-file", "error", "nothing in it", "fetch it again", (Case("a.png"),), 1)
        >>> report = Report("data", "folder", findings=(empty,))
        >>> report.errors == (empty,), report.warnings, report.codes
        (True, (), {'empty-file'})
    """

    source: str
    dataset: str
    confidence: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    labels: LabelSpec | None = None
    proposal: Mapping[str, Any] | None = None
    findings: tuple[Finding, ...] = ()
    classes: tuple[ClassShare, ...] = ()
    samples: int = 0
    audited: int = 0
    splits: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of one severity."""
        return tuple(finding for finding in self.findings if finding.severity == severity)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What makes training fail or learn wrong labels."""
        return self.of("error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What is very likely not meant."""
        return self.of("warning")

    @property
    def notes(self) -> tuple[Finding, ...]:
        """What is worth knowing."""
        return self.of("note")

    @property
    def codes(self) -> set[str]:
        """The kinds that were found."""
        return {finding.code for finding in self.findings}

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "source": legible(self.source), "dataset": self.dataset, "confidence": self.confidence,
            "options": dict(self.options), "labels": self.labels.to_dict() if self.labels else None,
            "proposal": dict(self.proposal) if self.proposal else None,
            "samples": self.samples, "audited": self.audited, "splits": dict(self.splits),
            "summary": {severity: sum(f.count for f in self.of(severity)) for severity in SEVERITIES},
            "findings": [finding.to_dict() for finding in self.findings],
            "classes": [vars(share) for share in self.classes], "seconds": round(self.seconds, 3),
        }  # fmt: skip

    def __rich__(self) -> Any:
        return rendered(self)


def rendered(report: Report) -> RenderableType:
    """What was audited, each finding with its first files, the balance of the classes, a summary."""
    parts: list[RenderableType] = [_header(report)]
    parts += [render_finding(finding) for finding in report.findings]
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


def render_finding(finding: Finding) -> RenderableType:
    """Its severity, kind, reason and fix, with the first of its files."""
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
        table.add_row(Text(legible(share.name)), f"{share.pixels:,}", f"{share.share:.2%}", f"{share.images:,}")
    return table


def _summary(report: Report) -> Text:
    counts = {severity: len(report.of(severity)) for severity in ("error", "warning", "note")}
    parts: list[str | tuple[str, str]] = []
    for severity, count in counts.items():
        parts += [", "] * bool(parts and count) + [(pluralize(count, severity), _COLORS[severity])] * bool(count)
    seconds = (f"  ({report.seconds:.1f} s)", "dim")
    return Text.assemble("kinds of findings: ", *(parts or [("nothing found", "green")]), seconds)
