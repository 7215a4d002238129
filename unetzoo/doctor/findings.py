"""Findings of an audit, grouped by kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..wording import printable
from .kinds import KINDS, Severity

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
SHOWN = 20  # cases of a finding that are stored; the others are only counted


def legible(text: str) -> str:
    """Text that can be printed and encoded: bytes of file names that are not UTF-8 become escapes."""
    return printable(text.encode("utf-8", "backslashreplace").decode("utf-8"))


def fitting(share: float) -> str:
    """The share of images that fit a layout, as text."""
    return "all images fit" if share == 1 else f"{share:.0%} of the images fit"


@dataclass(frozen=True)
class Case:
    """One occurrence of a finding: the file, relative to the root of the data, and a detail."""

    file: str
    detail: str = ""

    def __str__(self) -> str:
        return legible(f"{self.file}: {self.detail}" if self.detail else self.file)


@dataclass(frozen=True)
class Finding:
    """All occurrences of one kind of problem.

    Args:
        code: Its kind, e.g. "missing-mask".
        severity: "error": training on these data fails or learns wrong labels. "warning": probably a mistake. "note":
            for information.
        reason: Why it matters.
        fix: How to fix it.
        cases: The first 20 occurrences.
        count: Number of occurrences.
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
    """Collects cases; those of the same kind and severity become one finding."""

    def __init__(self) -> None:
        self._cases: dict[tuple[str, Severity], list[Case]] = {}

    def add(self, code: str, file: str, detail: str = "", severity: Severity | None = None) -> None:
        """Add a case, by default with the severity of its kind."""
        self._cases.setdefault((code, severity or KINDS[code].severity), []).append(Case(file, detail))

    def any(self, severity: Severity) -> bool:
        """Whether there is a case of this severity."""
        return any(found == severity for _, found in self._cases)

    def has(self, code: str) -> bool:
        """Whether there is a case of this kind."""
        return any(found == code for found, _ in self._cases)

    def by_file(self) -> dict[str, list[tuple[Severity, str]]]:
        """Severity and kind of the errors and warnings of each file, the worst first."""
        found: dict[str, list[tuple[Severity, str]]] = {}
        for code, severity, cases in self._sorted():
            for case in cases if severity != "note" else ():
                found.setdefault(case.file, []).append((severity, code))
        return found

    def __iter__(self) -> Iterator[Finding]:
        for code, severity, cases in self._sorted():
            yield Finding(code, severity, KINDS[code].reason, KINDS[code].fix, tuple(cases[:SHOWN]), len(cases))

    def _sorted(self) -> list[tuple[str, Severity, list[Case]]]:
        keys = sorted(self._cases, key=lambda key: (SEVERITIES.index(key[1]), key[0]))
        return [(code, severity, self._cases[code, severity]) for code, severity in keys]


@dataclass(frozen=True)
class ClassShare:
    """The pixels of a class, their share of the labeled pixels, and the images that contain it."""

    name: str
    pixels: int
    images: int
    share: float
