"""No check is vacuous: for each there is an object that fails exactly that one."""

import broken_alone
import broken_datasets
import broken_losses
import broken_loud
import broken_metrics
import broken_models
import broken_others
import broken_setting
import broken_slow
import pytest

from unetzoo.testing import Blocked, Case, CheckFailed, checks, common, run
from unetzoo.testing.kit import checks_of

ROOMS = (broken_models, broken_losses, broken_metrics, broken_datasets, broken_others)
IMPORTS = [
    ("loss", "imports-alone", Case("loss", broken_alone.Alone)),
    ("loss", "imports-quickly", Case("loss", broken_slow.Slow)),
    ("loss", "imports-quietly", Case("loss", broken_loud.Loud)),
    ("loss", "import-keeps-settings", Case("loss", broken_setting.Setting)),
]
BROKEN = [*(case for room in ROOMS for case in room.CASES), *IMPORTS]
# What answers differently every time cannot answer the same compiled, in a batch or as a copy either.
COMPANIONS = {
    ("model", "deterministic"): {"batch-independent", "channels-last", "compiles", "copies", "exports", "state-dict",
                                 "train-and-eval", "saves-and-loads"},
    ("loss", "deterministic"): {"copies"},
    ("metric", "deterministic"): {"copies", "reset-forgets"},
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def imported_once():
    """All modules in one child process, instead of one for each."""
    cases = [case for _, _, case in BROKEN] + [case for room in ROOMS for case in room.GOOD]
    common.look(case.entry for case in cases if case.entry is not None)


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    monkeypatch.setattr(common, "SECONDS", 2.0)


@pytest.mark.parametrize("case", [case for room in ROOMS for case in room.GOOD], ids=str)
def test_what_is_right_passes_every_check(case):
    results = list(run(case))
    assert {result.outcome for result in results} == {"passed"}, [r for r in results if r.outcome != "passed"]
    assert len(results) >= 3


def faults(case, without=()):
    """What each check says, where it does not pass."""
    found = {}
    for one in checks_of(case):
        if one.name not in without:
            try:
                one(case)
            except (CheckFailed, Blocked) as error:
                found[one.name] = error
    return found


def fails_alone(kind, check, case, without=()):
    found = faults(case, without)
    failed = {name for name, error in found.items() if isinstance(error, CheckFailed)}
    assert check in failed, found
    assert failed - COMPANIONS.get((kind, check), set()) == {check}, found
    message = str(found[check])
    assert "expected" in message and "found" in message and "Why users need it: " in message
    if any(one.first for one in checks(kind) if one.name == check):
        assert any(isinstance(error, Blocked) for error in found.values())


@pytest.mark.parametrize(("kind", "check", "case"), BROKEN, ids=str)
def test_what_is_broken_in_one_point_fails_that_check_alone(kind, check, case):
    fails_alone(kind, check, case, {"compiles", "exports"} - {check})


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "check", "case"), BROKEN, ids=str)
def test_and_it_still_compiles_and_exports(kind, check, case):
    fails_alone(kind, check, case)


def test_every_check_has_something_that_fails_it():
    shown = {(kind, check) for kind, check, _ in BROKEN}
    for one in checks():
        assert any((kind, one.name) in shown for kind in one.kinds), one.name
    assert len(checks()) >= 40


def test_every_check_says_why():
    for one in checks():
        assert len(one.why) > 30 and one.why.endswith("."), one.name
    for kind in ("model", "encoder", "loss", "metric", "dataset", "recipe"):
        assert sum(one.first for one in checks(kind)) == 1
        names = [one.name for one in checks(kind)]
        assert len(names) == len(set(names))


def test_a_failure_travels_between_processes():
    import copy

    error = CheckFailed("copies", "loss x", "one", "two", "Because.")
    assert str(copy.copy(error)) == str(error) and copy.copy(error).why == "Because."
