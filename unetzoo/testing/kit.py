"""What a check is, what it is run on, and what comes of it."""

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
from .case import KINDS, Case

SEED = 7_354_051  # none that other people would choose: to set it again would not be seen
ROOMS = ("common", "models", "smp_models", "encoders", "losses", "metrics", "datasets", "recipes")


class CheckFailed(PluginError, AssertionError):
    """An object does not keep the contract of its kind.

    Args:
        check: The check's name.
        subject: What failed it.
        expected: What the contract says.
        found: What was there instead.
        why: Why users need it.
    """

    def __init__(self, check: str, subject: str, expected: str, found: str, why: str) -> None:
        super().__init__(f"check {check!r} failed", subject=subject, expected=expected, found=found)
        self.check, self.why = check, why
        self.args = (f"{self.args[0]}. Why users need it: {why}",)

    def __reduce__(self) -> Any:
        """Keep the parts when the error travels between processes."""
        return CheckFailed, (self.check, str(self.subject), str(self.expected), str(self.found), self.why)


class Blocked(unittest.SkipTest):
    """A check that says nothing, since the object fails its kind's first check; pytest counts it as skipped."""


class Skipped(unittest.SkipTest):
    """A check that cannot be asked of this object; the text says why. Pytest counts it as skipped."""


class Unmet(Exception):
    """What a check found wrong; it leaves the check as `CheckFailed`."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(expected, found)
        self.expected, self.found = expected, found


@dataclass(frozen=True)
class Check:
    """One question that the kit asks; call it with a case.

    Args:
        name: What it is called in tables, in `--only` and in expected failures.
        kinds: The kinds of object that it applies to.
        why: Why users need it, in one sentence.
        ask: Raises `Unmet` when the object does not keep the contract.
        applies: Whether the question makes sense for a case.
        first: Whether the kind's other checks stand on this one.
        alone: Whether it makes sense although the kind's first check fails.
    """

    name: str
    kinds: tuple[str, ...]
    why: str
    ask: Callable[[Case], None]
    applies: Callable[[Case], bool]
    first: bool = False
    alone: bool = False

    def __call__(self, case: Case) -> None:
        """Run it.

        Raises:
            CheckFailed: The object does not keep the contract.
            Blocked: Its kind's first check fails already.
            Skipped: It cannot be asked of this object.
        """
        if not self.first and not self.alone and first_failure(case) is not None:
            raise Blocked(f"{case}: check {_first_of(case.kind).name!r} fails already")
        self._ask(case)

    def _ask(self, case: Case) -> None:
        try:
            with _untouched():
                self.ask(case)
        except Unmet as unmet:
            raise CheckFailed(self.name, str(case), unmet.expected, unmet.found, self.why) from None
        except (CheckFailed, Blocked, Skipped, KeyboardInterrupt):
            raise
        except BaseException as error:  # other people's code may raise anything, SystemExit included
            raise CheckFailed(self.name, str(case), "no error", _told(error), self.why) from error


_CHECKS: list[Check] = []


def check(
    *kinds: str, applies: Callable[[Case], bool] = lambda case: True, first: bool = False, alone: bool = False
) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
    """Decorator: add a question to the kit. Its name is the function's, the docstring says why users need it."""

    def add(ask: Callable[[Case], None]) -> Callable[[Case], None]:
        why = " ".join((ask.__doc__ or "").split())
        _CHECKS.append(Check(ask.__name__.replace("_", "-"), kinds, why, ask, applies, first, alone))
        return ask

    return add


def checks(kind: str | None = None) -> list[Check]:
    """All checks of a kind, or of all kinds; the kind's first one comes first."""
    for room in ROOMS:
        importlib.import_module(f".{room}", __package__)
    found = [one for one in _CHECKS if kind is None or kind in one.kinds]
    return sorted(found, key=lambda one: not one.first)


def checks_of(case: Case, only: str = "*") -> Iterator[Check]:
    """The checks that apply to a case and whose names match a shell pattern."""
    for one in checks(case.kind):
        if fnmatchcase(one.name, only) and _applies(one, case):
            yield one


@dataclass(frozen=True)
class Result:
    """What came of one check on one case.

    Args:
        case: The case.
        check: The check's name.
        outcome: "passed", "failed", "expected" (it fails, and is declared to), "surprise" (declared to fail, and
            passes), "blocked" (another check fails already) or "skipped" (it cannot be asked).
        message: What was expected, what was found and why it matters; the declared reason; why it was not asked; or
            nothing.
        seconds: How long it took.
    """

    case: Case
    check: str
    outcome: str
    message: str = ""
    seconds: float = 0.0

    @property
    def bad(self) -> bool:
        """Whether the object has to be mended, or what is declared about it."""
        return self.outcome in ("failed", "surprise")


def run(case: Case, only: str = "*") -> Iterator[Result]:
    """Run all checks that apply to a case, one after another.

    Args:
        case: What is checked.
        only: Shell pattern of the checks' names.
    """
    for one in checks_of(case, only):
        start = time.monotonic()
        outcome, message = _outcome(one, case)
        yield Result(case, one.name, outcome, message, time.monotonic() - start)


def first_failure(case: Case) -> CheckFailed | None:
    """How the first check of the case's kind fails, if it does; it is run once."""
    if "first" not in case.memo:
        try:
            _first_of(case.kind)._ask(case)
            case.memo["first"] = None
        except CheckFailed as error:
            case.memo["first"] = error
    return case.memo["first"]


def expected_failures(case: Case) -> dict[str, str]:
    """Check → reason, as the case and the object itself (`unetzoo_expected_failures`) declare.

    Raises:
        CheckFailed: A name that no check of the kind bears.
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
                              "A misspelt name hides nothing and tells readers something untrue.")  # fmt: skip
    return declared


def require(condition: object, expected: str, found: object) -> None:
    """Refuse what does not hold."""
    if not condition:
        raise Unmet(expected, str(found))


def refused(call: Callable[[], Any], expected: str, *also: type[Exception], mentions: Sequence[object] = ()) -> None:
    """Require an error with a text: one of unetzoo's, a ValueError, or one of `also`.

    Args:
        call: What must raise.
        expected: What the contract says about it.
        also: Further kinds of error that will do.
        mentions: The text must name one of these.
    """
    try:
        answer = call()
    except (UnetzooError, ValueError, *also) as error:
        text = str(error)
        require(text.strip(), f"{expected}, with a text", f"{type(error).__name__} without one")
        named = not mentions or any(str(word) in text for word in mentions)
        require(named, f"{expected} whose text names {' or '.join(map(str, mentions))}", _told(error))
    except Exception as error:
        raise Unmet(f"{expected}: one of unetzoo.errors, or a ValueError", _told(error)) from error
    else:
        raise Unmet(expected, f"no error, but {_short(answer)}")


def _outcome(one: Check, case: Case) -> tuple[str, str]:
    reason = expected_failures(case).get(one.name)
    try:
        one(case)
    except CheckFailed as error:
        return ("failed", str(error)) if reason is None else ("expected", reason)
    except Blocked as error:
        return "blocked", str(error)
    except Skipped as error:
        return "skipped", str(error)
    return ("passed", "") if reason is None else ("surprise", f"it is declared to fail ({reason}), and passes")


def _applies(one: Check, case: Case) -> bool:
    try:
        return one.applies(case)
    except Exception:  # it cannot be loaded, or its options cannot be made: the check itself will say so
        return True


def _first_of(kind: str) -> Check:
    return next(one for one in checks(kind) if one.first)


@contextmanager
def _untouched() -> Iterator[None]:
    """Every check begins with the same random numbers, and leaves them and all settings as the caller had them."""
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


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {_short(error)}"


def _short(value: object) -> str:
    shape = getattr(value, "shape", None)
    text = f"an answer of shape {tuple(shape)}" if shape is not None else " ".join(str(value).split())
    return text if len(text) <= 300 else f"{text[:300]}…"


__all__ = [
    "KINDS", "Blocked", "Case", "Check", "CheckFailed", "Result", "Skipped", "check", "checks", "checks_of", "run",
]  # fmt: skip
