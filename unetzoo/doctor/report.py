"""The report of an audit."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..labels import LabelSpec
from ..wording import inline, pluralize
from .findings import SEVERITIES, ClassShare, Finding, fitting, legible
from .kinds import Severity
from .propose import as_options

_COLORS = {"error": "red", "warning": "yellow", "note": "cyan"}
_FILES = 5


@dataclass
class Report:
    """The outcome of an audit.

    Args:
        source: The audited folder or dataset.
        dataset: Name of the dataset.
        fits: Share of the images that fit the recognized layout; None if the dataset was named.
        options: Arguments of the dataset.
        labels: The declared label set; None if none was declared.
        proposal: Proposed arguments of the dataset, such as labels that match the values found; None if there is none.
        alternative: Arguments for the other meaning that the values may have; None if there is only one.
        findings: The findings, errors first.
        classes: Pixels and images per class.
        samples: Number of samples.
        audited: Number of samples that were read.
        splits: Number of samples per split.
        seconds: Duration of the audit.

    Examples:
        >>> from unetzoo.doctor import Case, Finding
        >>> empty = Finding("empty-file", "error", "no content", "save it again", (Case("a.png"),), 1)
        >>> report = Report("data", "folder", findings=(empty,))
        >>> report.errors == (empty,), report.warnings, report.codes
        (True, (), {'empty-file'})
    """

    source: str
    dataset: str
    fits: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    labels: LabelSpec | None = None
    proposal: Mapping[str, Any] | None = None
    alternative: Mapping[str, Any] | None = None
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
        """Findings for which training fails or learns wrong labels."""
        return self.of("error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings that are probably mistakes."""
        return self.of("warning")

    @property
    def notes(self) -> tuple[Finding, ...]:
        """Findings for information."""
        return self.of("note")

    @property
    def codes(self) -> set[str]:
        """The kinds of all findings."""
        return {finding.code for finding in self.findings}

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "source": legible(self.source), "dataset": self.dataset, "fits": self.fits,
            "options": dict(self.options), "labels": self.labels.to_dict() if self.labels else None,
            "proposal": dict(self.proposal) if self.proposal else None,
            "alternative": dict(self.alternative) if self.alternative else None,
            "samples": self.samples, "audited": self.audited, "splits": dict(self.splits),
            "summary": {severity: sum(f.count for f in self.of(severity)) for severity in SEVERITIES},
            "findings": [finding.to_dict() for finding in self.findings],
            "classes": [vars(share) for share in self.classes], "seconds": round(self.seconds, 3),
        }  # fmt: skip

    def __rich__(self) -> RenderableType:
        """Header, findings with their first files, proposal, classes, summary."""
        parts: list[RenderableType] = [_header(self), *map(render_finding, self.findings)]
        if self.proposal:
            parts += _block("proposed arguments, for the command line or a recipe", *_commands(self), "", *_table(self))
        elif self.fits is not None:
            parts += _block("for a recipe", *_table(self))
        if self.alternative:
            other = replace(self, proposal=self.alternative)
            parts += _block("or, if each value is the number of an object", *_commands(other), "", *_table(other))
        if any(share.pixels for share in self.classes):
            parts.append(Padding(_balance(self), (1, 0)))
        return Group(*parts, _summary(self))


def _block(title: str, *lines: str) -> list[RenderableType]:
    return [Text(title, style="bold"), *(Text(f"    {line}") for line in lines)]


def _header(report: Report) -> Text:
    fits = "" if report.fits is None else f", recognized by file names ({fitting(report.fits)})"
    read = f"{report.audited:,} of " if report.audited < report.samples else ""
    splits = ", ".join(f"{name} {count:,}" for name, count in report.splits.items())
    return Text.assemble(
        (legible(report.source), "bold"), f"  {report.dataset}{fits}\n",
        read + pluralize(report.samples, "sample") + (f" ({splits})" if splits else ""),
    )  # fmt: skip


def render_finding(finding: Finding) -> RenderableType:
    """Severity, kind, reason and fix of a finding, with its first files."""
    shown = finding.cases[: _FILES if finding.severity != "note" else 2]
    lines = [f"\n    {case}" for case in shown]
    if finding.count > len(shown):
        lines.append(f"\n    … and {finding.count - len(shown):,} more")
    fix = [(f"\n    Fix: {finding.fix}", "dim")] if finding.severity != "note" else []
    return Text.assemble(
        (finding.severity, _COLORS[finding.severity]), " ", (finding.code, "bold"),
        f" ({finding.count:,}): {finding.reason}", *lines, *fix,
    )  # fmt: skip


def _arguments(report: Report) -> dict[str, Any]:
    """The section `[data]` with the proposed arguments."""
    options, source = {**report.options, **(report.proposal or {})}, Path(report.source)
    root = source.parent if source.name == options.get("manifest") else source  # the source may be the manifest itself
    return {"name": report.dataset, "root": legible(str(root)), **options}


def _commands(report: Report) -> tuple[str, str]:
    """The commands that audit and train with the proposed arguments."""
    options = {**report.options, **(report.proposal or {})}
    return (
        f"unetzoo doctor {shlex.quote(legible(report.source))} --dataset {report.dataset} {as_options(options)}",
        f"unetzoo train RECIPE {as_options(_arguments(report), 'data.')}",
    )


def _table(report: Report) -> list[str]:
    """The section of a recipe with the proposed arguments."""
    return ["[data]", *(f"{key} = {inline(value)}" for key, value in _arguments(report).items())]


def _balance(report: Report) -> Table:
    table = Table("class", box=None)
    for column in ("pixels", "share", "images"):
        table.add_column(column, justify="right")
    for share in report.classes:
        table.add_row(Text(legible(share.name)), f"{share.pixels:,}", f"{share.share:.2%}", f"{share.images:,}")
    return table


def _summary(report: Report) -> Text:
    counts = {severity: len(report.of(severity)) for severity in SEVERITIES}
    found = [Text(pluralize(count, severity), _COLORS[severity]) for severity, count in counts.items() if count]
    text = Text.assemble("kinds of findings: ", Text(", ").join(found)) if found else Text("nothing found", "green")
    return Text.assemble(text, (f"  ({report.seconds:.1f} s)", "dim"))
