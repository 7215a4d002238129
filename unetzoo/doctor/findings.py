"""What an audit finds: findings, grouped by kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ..wording import printable
from .kinds import KINDS

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
_ORDER = {severity: place for place, severity in enumerate(SEVERITIES)}
SHOWN = 20  # cases of a finding that are kept with their files; the rest are counted


def legible(text: str) -> str:
    """Text that can be printed and encoded: bytes of file names that are not UTF-8 become escapes."""
    return printable(text.encode("utf-8", "backslashreplace").decode("utf-8"))


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

    def has(self, code: str) -> bool:
        """Whether there is a case of this kind."""
        return any(found == code for found, _ in self._cases)

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
