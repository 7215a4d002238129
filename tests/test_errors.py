import inspect
import pickle

import pytest

from unetzoo import errors

FAMILY = [e for e in vars(errors).values() if inspect.isclass(e) and issubclass(e, errors.UnetzooError)]


def test_message_says_what_failed_expected_found_and_the_fix():
    error = errors.DataError("cannot pair", subject="a.png", expected="a mask", found="none", hint="add masks/a.png")
    assert str(error) == "cannot pair: a.png: expected a mask, found none. Fix: add masks/a.png"
    assert (error.subject, error.hint) == ("a.png", "add masks/a.png")


def test_the_fix_has_a_line_of_its_own_after_a_list_of_faults():
    error = errors.DataError("faulty files", found="\n- a.png: empty\n- b.png: empty", hint="remove them")
    assert str(error).splitlines()[-2:] == ["- b.png: empty", "Fix: remove them"]


@pytest.mark.parametrize("cls", FAMILY)
def test_errors_keep_their_parts_between_processes(cls):
    error = cls("failed", subject="x", hint="do y")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.hint) == (cls, str(error), "do y")
    assert cls.exit_code in (1, 2, 3, 4, 5, 6, 75)


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (errors.ConfigError, ValueError),
        (errors.UnknownKeywordError, TypeError),
        (errors.PluginLoadError, ImportError),
        (errors.DataError, ValueError),
        (errors.InputShapeError, RuntimeError),
        (errors.CheckpointWriteError, OSError),
        (errors.CacheError, OSError),
        (errors.NonFiniteError, ArithmeticError),
    ],
)
def test_errors_are_the_builtins_a_user_expects(cls, builtin):
    assert issubclass(cls, builtin)


def test_hints():
    assert errors.did_you_mean("dise", ["dice", "ce"]) == "did you mean 'dice'?"
    assert errors.did_you_mean("zzz", ["b", "a"], "loss") == "choose a loss from: a, b"
    assert "no loss" in errors.did_you_mean("zzz", [], "loss")
