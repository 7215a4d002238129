"""Define, run and report checks."""

from __future__ import annotations

import importlib
import time
import unittest
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ..errors import PluginError, UnetzooError
from ..process_state import restore, snapshot
from ..wording import describe
from .case import KINDS, Case

SEED = 7_354_051  # an unusual number, as code that sets the same seed would go unnoticed
MODULES = (
    *("common", "models", "smp_models", "encoders", "losses", "metrics", "datasets", "recipes", "callbacks"),
    "weights",
)


class CheckFailed(PluginError, AssertionError):
    """An object violates the contract of its kind.

    Args:
        check: Name of the check.
        subject: The case that failed.
        expected: What the contract requires.
        found: What was found instead.
        why: Why it matters to users.
    """

    def __init__(self, check: str, subject: str, expected: str, found: str, why: str) -> None:
        super().__init__(f"check {check!r} failed", subject=subject, expected=expected, found=found)
        self.check, self.why = check, why
        self.args = (f"{self.args[0]}. Why it matters: {why}",)

    def __reduce__(self) -> Any:
        """Keep the parts when the error is pickled."""
        return CheckFailed, (self.check, str(self.subject), str(self.expected), str(self.found), self.why)


class Blocked(unittest.SkipTest):
    """The check was not run because the object fails the first check of its kind. Pytest reports it as skipped."""


class Skipped(unittest.SkipTest):
    """The check does not apply to this object; the message gives the reason. Pytest reports it as skipped."""


class Violation(Exception):
    """Raised inside a check; it becomes a `CheckFailed`."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(expected, found)
        self.expected, self.found = expected, found


@dataclass(frozen=True)
class Check:
    """One requirement of a contract. Call it with a case to run it.

    Args:
        name: Name in tables, in `--only` and in expected failures.
        kinds: The kinds of object the check applies to.
        why: Why it matters to users, in one sentence.
        function: Raises `Violation` if the object does not meet the requirement.
        applies: Whether the check applies to a case.
        first: Whether the other checks of the kind depend on this one.
        independent: Whether the check can run even if the first check of the kind fails.
    """

    name: str
    kinds: tuple[str, ...]
    why: str
    function: Callable[[Case], None]
    applies: Callable[[Case], bool]
    first: bool = False
    independent: bool = False

    def __call__(self, case: Case) -> None:
        """Run the check.

        Raises:
            CheckFailed: The object violates the contract.
            Blocked: The first check of its kind fails.
            Skipped: The check does not apply to this object.
        """
        if not self.first and not self.independent and first_failure(case) is not None:
            raise Blocked(f"{case}: check {_first_of(case.kind).name!r} fails")
        self._run(case)

    def _run(self, case: Case) -> None:
        try:
            with _isolated():
                self.function(case)
        except Violation as violation:
            raise CheckFailed(self.name, str(case), violation.expected, violation.found, self.why) from None
        except (CheckFailed, Blocked, Skipped, KeyboardInterrupt):
            raise
        except BaseException as error:  # foreign code may raise anything, including SystemExit
            raise CheckFailed(self.name, str(case), "no error", _short(describe(error)), self.why) from error


_CHECKS: list[Check] = []


def check(
    *kinds: str, applies: Callable[[Case], bool] = lambda case: True, first: bool = False, independent: bool = False
) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
    """Register a function as a check. The function name becomes its name, the docstring explains why it matters."""

    def add(function: Callable[[Case], None]) -> Callable[[Case], None]:
        why = " ".join((function.__doc__ or "").split())
        name = function.__name__.replace("_", "-")
        _CHECKS.append(Check(name, kinds, why, function, applies, first, independent))
        return function

    return add


def checks(kind: str | None = None) -> list[Check]:
    """Return all checks of a kind, or of all kinds, with first checks at the front."""
    for module in MODULES:
        importlib.import_module(f".{module}", __package__)
    found = [one for one in _CHECKS if kind is None or kind in one.kinds]
    return sorted(found, key=lambda one: not one.first)


def checks_of(case: Case, only: str = "*") -> Iterator[Check]:
    """Yield the checks that apply to a case, filtered by a shell pattern on their names."""
    for one in checks(case.kind):
        if fnmatchcase(one.name, only) and _applies(one, case):
            yield one


@dataclass(frozen=True)
class Result:
    """The result of one check on one case.

    Args:
        case: The case.
        check: Name of the check.
        outcome: "passed", "failed", "xfailed" (an expected failure), "xpassed" (expected to fail, but passed),
            "blocked" (the first check of the kind fails) or "skipped" (the check does not apply).
        message: The error, the declared reason, or why the check was not run; empty if it passed.
        seconds: Duration of the check.
    """

    case: Case
    check: str
    outcome: str
    message: str = ""
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether the object, or its list of expected failures, needs a fix."""
        return self.outcome in ("failed", "xpassed")


def run(case: Case, only: str = "*") -> Iterator[Result]:
    """Run all checks that apply to a case.

    Args:
        case: The case to check.
        only: A shell pattern; other checks are left out.
    """
    for one in checks_of(case, only):
        start = time.monotonic()
        outcome, message = _outcome(one, case)
        yield Result(case, one.name, outcome, message, time.monotonic() - start)


def first_failure(case: Case) -> CheckFailed | None:
    """Return the failure of the first check of the kind, or None. The check runs once per case."""
    if "first" not in case.memo:
        try:
            _first_of(case.kind)._run(case)
            case.memo["first"] = None
        except CheckFailed as error:
            case.memo["first"] = error
    return case.memo["first"]


def expected_failures(case: Case) -> dict[str, str]:
    """Return check → reason, as declared by the case and by the object itself (`unetzoo_expected_failures`).

    Raises:
        CheckFailed: A declared name is not a check of the kind.
    """
    declared: dict[str, str] = {}
    try:
        declared |= dict(getattr(case.load(), "unetzoo_expected_failures", {}))
    except UnetzooError:
        pass
    declared |= case.expected_failures
    known = {one.name for one in checks(case.kind)}
    for name in declared:
        if name not in known:
            raise CheckFailed(name, str(case), f"a check of {case.kind}s", f"{name!r} among the expected failures",
                              "A misspelled name expects nothing and misleads readers.")  # fmt: skip
    return declared


def require(condition: object, expected: str, found: object) -> None:
    """Raise `Violation` unless the condition holds."""
    if not condition:
        raise Violation(expected, str(found))


def require_error(
    call: Callable[[], Any], expected: str, *also: type[Exception], mentions: Sequence[object] = ()
) -> None:
    """Require an error with a message: an UnetzooError, a ValueError, or one of `also`.

    Args:
        call: The call that must raise.
        expected: What the contract requires.
        also: Other accepted error types.
        mentions: The message must contain one of these.
    """
    try:
        output = call()
    except (UnetzooError, ValueError, *also) as error:
        text = str(error)
        require(text.strip(), f"{expected}, with a message", f"{type(error).__name__} without one")
        named = not mentions or any(str(word) in text for word in mentions)
        require(named, f"{expected} whose message names {' or '.join(map(str, mentions))}", _short(describe(error)))
    except Exception as error:
        raise Violation(f"{expected}: one of unetzoo.errors, or a ValueError", _short(describe(error))) from error
    else:
        raise Violation(expected, f"no error, but {_short(output)}")


def _outcome(one: Check, case: Case) -> tuple[str, str]:
    reason = expected_failures(case).get(one.name)
    try:
        one(case)
    except CheckFailed as error:
        return ("failed", str(error)) if reason is None else ("xfailed", reason)
    except Blocked as error:
        return "blocked", str(error)
    except Skipped as error:
        return "skipped", str(error)
    return ("passed", "") if reason is None else ("xpassed", f"expected to fail ({reason}), but passed")


def _applies(one: Check, case: Case) -> bool:
    try:
        return one.applies(case)
    except Exception:  # the object or its options cannot be loaded; the check itself reports that
        return True


def _first_of(kind: str) -> Check:
    return next(one for one in checks(kind) if one.first)


@contextmanager
def _isolated() -> Iterator[None]:
    """Start every check from the same random state; restore that state and all process settings afterwards."""
    import random

    import numpy as np
    import torch

    settings = snapshot()
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        restore(settings)


def _short(value: object) -> str:
    shape = getattr(value, "shape", None)
    text = f"an output of shape {tuple(shape)}" if shape is not None else " ".join(str(value).split())
    return text if len(text) <= 300 else f"{text[:300]}…"


__all__ = [
    "KINDS", "Blocked", "Case", "Check", "CheckFailed", "Result", "Skipped", "check", "checks", "checks_of", "run",
]  # fmt: skip
