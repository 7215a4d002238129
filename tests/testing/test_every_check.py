"""Every check can fail: for each there is an object that fails only this check."""

import pytest
from testing_cases import BROKEN, MODULES

from unetzoo.testing import Blocked, CheckFailed, checks, common, run
from unetzoo.testing.kit import checks_of

# A nondeterministic object also fails every check that compares two outputs.
COMPANIONS = {
    ("model", "deterministic"): {"batch-independent", "channels-last", "compiles", "copyable", "exports", "state-dict",
                                 "train-and-eval", "saves-and-loads"},
    ("loss", "deterministic"): {"copyable"},
    ("metric", "deterministic"): {"copyable", "reset"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def short_import_time(monkeypatch):
    monkeypatch.setattr(common, "SECONDS", 2.0)


@pytest.mark.parametrize("case", [case for module in MODULES for case in module.GOOD], ids=str)
def test_correct_objects_pass_every_check(case):
    results = list(run(case))
    assert {result.outcome for result in results} == {"passed"}, [r for r in results if r.outcome != "passed"]
    assert len(results) >= 3


def faults(case, without=()):
    """Check → error, for every check that does not pass."""
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
    assert all((found[check].expected, found[check].found, found[check].why))
    if any(one.first for one in checks(kind) if one.name == check):
        assert any(isinstance(error, Blocked) for error in found.values())


@pytest.mark.parametrize(("kind", "check", "case"), BROKEN, ids=str)
def test_an_object_with_one_defect_fails_one_check(kind, check, case):
    fails_alone(kind, check, case, {"compiles", "exports"} - {check})


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "check", "case"), BROKEN, ids=str)
def test_an_object_with_one_defect_compiles_and_exports(kind, check, case):
    fails_alone(kind, check, case)


def test_every_check_has_an_object_that_fails_it():
    shown = {(kind, check) for kind, check, _ in BROKEN}
    for one in checks():
        assert any((kind, one.name) in shown for kind in one.kinds), one.name
    assert len(checks()) >= 40


def test_every_check_has_a_reason():
    for one in checks():
        assert len(one.why) > 30 and one.why.endswith("."), one.name
    for kind in ("model", "encoder", "loss", "metric", "dataset", "recipe", "callback"):
        assert sum(one.first for one in checks(kind)) == 1
        names = [one.name for one in checks(kind)]
        assert len(names) == len(set(names))


def test_check_failed_can_be_copied():
    import copy

    error = CheckFailed("copyable", "loss x", "one", "two", "Because.")
    assert str(copy.copy(error)) == str(error) and copy.copy(error).why == "Because."
