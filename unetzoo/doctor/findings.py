"""What an audit says: findings, grouped by kind, and the report that holds them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..labels import LabelSpec
from .kinds import KINDS

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
_ORDER = {severity: place for place, severity in enumerate(SEVERITIES)}
SHOWN = 20  # cases of a finding that are kept with their files; the rest are counted


def legible(text: str) -> str:
    """A file's name may hold bytes that are no text; these are shown as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True)
class Case:
    """One place where a finding holds: the file, relative to the data's folder, and what is special about it."""

    file: str
    detail: str = ""

    def __str__(self) -> str:
        return legible(f"{self.file}: {self.detail}" if self.detail else self.file)


@dataclass(frozen=True)
class Finding:
    """One kind of thing that is wrong, or worth knowing, and where.

    Args:
        code: Its kind, e.g. "missing-mask".
        severity: "error": training on these data fails or learns wrong labels. "warning": very likely not meant.
            "note": worth knowing.
        reason: Why it matters.
        fix: What the user can do about it.
        cases: The first 20 files.
        count: How many there are.
    """

    code: str
    severity: Severity
    reason: str
    fix: str
    cases: tuple[Case, ...]
    count: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "code": self.code, "severity": self.severity, "reason": self.reason, "fix": self.fix, "count": self.count,
            "files": [{"file": legible(case.file), "detail": legible(case.detail)} for case in self.cases],
        }  # fmt: skip


class Findings:
    """A growing collection of cases; those of one code and severity become one finding."""

    def __init__(self) -> None:
        self._cases: dict[tuple[str, Severity], list[Case]] = {}

    def add(self, code: str, file: str, detail: str = "", severity: Severity | None = None) -> None:
        """Note a case; its severity is the kind's unless another is given."""
        self._cases.setdefault((code, severity or KINDS[code].severity), []).append(Case(file, detail))

    def any(self, severity: Severity) -> bool:
        """Whether there is a case of this severity."""
        return any(found == severity for _, found in self._cases)

    def by_file(self) -> dict[str, list[tuple[Severity, str]]]:
        """The severities and kinds of each file's errors and warnings, the worst first."""
        found: dict[str, list[tuple[Severity, str]]] = {}
        for (code, severity), cases in sorted(self._cases.items(), key=lambda entry: _ORDER[entry[0][1]]):
            for case in cases if severity != "note" else ():
                found.setdefault(case.file, []).append((severity, code))
        return found

    def __iter__(self) -> Iterator[Finding]:
        for (code, severity), cases in sorted(self._cases.items(), key=lambda entry: (_ORDER[entry[0][1]], entry[0])):
            kind = KINDS[code]
            yield Finding(code, severity, kind.reason, kind.fix, tuple(cases[:SHOWN]), len(cases))


@dataclass(frozen=True)
class ClassShare:
    """How much of the data a class is: its pixels, and the images that show it."""

    name: str
    pixels: int
    images: int
    share: float


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
        from .rendering import rendered

        return rendered(self)
