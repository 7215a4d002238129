"""The checks as plugin authors use them: expected failures, pytest, the functions, side effects."""

import subprocess
import sys
import textwrap
import unittest

import broken_losses
import broken_models
import pytest
import torch

import unetzoo
from unetzoo import testing
from unetzoo.errors import ConfigError, PluginContractError
from unetzoo.probing import Probe
from unetzoo.process_state import differences, snapshot
from unetzoo.testing import Case, CheckFailed, common, run

IMPORTS = {"importable", "import-time", "import-silent", "import-side-effects"}


def outcomes(case, only="*"):
    return {result.check: result.outcome for result in run(case, only)}


def test_an_expected_failure_that_passes_is_an_error():
    declared = {"weight-has-effect": "known"}
    broken = Case("loss", broken_losses.FlatWeight, expected_failures=declared)
    assert outcomes(broken, "w*")["weight-has-effect"] == "xfailed"
    results = list(run(Case("loss", broken_losses.Good, expected_failures=declared), "weight-has-effect"))
    assert [result.outcome for result in results] == ["xpassed"] and results[0].failed
    assert "known" in results[0].message


def test_an_object_declares_failures_itself():
    class Declares(broken_losses.FlatWeight):
        unetzoo_expected_failures = {"weight-has-effect": "known"}  # noqa: RUF012

    assert outcomes(Case("loss", Declares), "weight-has-effect") == {"weight-has-effect": "xfailed"}


def test_an_expected_failure_of_an_unknown_check_is_an_error():
    case = Case("loss", broken_losses.Good, expected_failures={"weights-cuont": "?"})
    with pytest.raises(CheckFailed) as caught:
        list(run(case))
    assert caught.value.check == "weights-cuont" and caught.value.subject == str(case)


def test_an_object_that_cannot_be_built_fails_once_and_blocks_the_other_checks():
    class Fails(broken_losses.Good):
        def __init__(self, ignore_index: int | None = None):
            raise RuntimeError("no such thing")

    found = outcomes(Case("loss", Fails))
    assert found.pop("scalar") == "failed"
    assert found.pop("explicit-signature") == found.pop("json-arguments") == "passed"
    imports = {found.pop(name) for name in IMPORTS}  # a local class cannot be imported
    assert imports == {"skipped"} and set(found.values()) == {"blocked"}


@pytest.mark.parametrize("registered", [False, True])
def test_import_checks_are_skipped_for_objects_of_a_notebook(monkeypatch, registered):
    class Net(broken_models.Good):
        pass

    monkeypatch.setattr(unetzoo.MODELS, "_local", {})
    for module, name, where in (
        ("__main__", "Net", "a notebook or a script"),
        (__name__, "make.<locals>.Net", "a function"),
    ):
        Net.__module__, Net.__qualname__ = module, name
        target = "mine" if registered else Net
        if registered:
            unetzoo.MODELS._local.clear()
            unetzoo.MODELS.register("mine")(Net)
        results = {result.check: result for result in run(Case("model", target), "import*")}
        assert results.keys() == IMPORTS and {result.outcome for result in results.values()} == {"skipped"}
        message = results["importable"].message
        assert message.startswith("model mine" if registered else "model Net") and where in message
        assert not any(result.failed for result in results.values())
        declared = Case("model", target, expected_failures={"importable": "known"})
        assert outcomes(declared, "importable") == {"importable": "skipped"}
        with pytest.raises(unittest.SkipTest):
            next(one for one in testing.checks("model") if one.name == "importable")(Case("model", target))


@pytest.mark.parametrize(("warm_seconds", "outcome"), [(4, "failed"), (40, "passed")])
def test_imports_may_take_longer_on_a_slow_machine(monkeypatch, warm_seconds, outcome):
    monkeypatch.setattr(common, "_probe", lambda case: Probe(case.entry, seconds=20, warm_seconds=warm_seconds))
    assert outcomes(Case("loss", broken_losses.Good), "import-time") == {"import-time": outcome}


def test_an_import_beyond_the_time_limit_is_slow_and_not_broken(monkeypatch):
    monkeypatch.setattr(common, "_probe", lambda case: Probe(case.entry, slow="not imported within 60 s"))
    (result,) = run(Case("loss", broken_losses.Good), "importable")
    assert result.outcome == "skipped" and "slow" in result.message and "--timeout" in result.message


def test_missing_options_are_named_with_a_fix():
    (result,) = run(Case("loss", "dice"), "scalar")
    assert 'Case("loss", …, {"mode": …})' in result.message and result.outcome == "failed"
    (result,) = run(Case("loss", "dcie"), "scalar")
    assert "did you mean 'dice'" in result.message


def test_invalid_targets_and_options_are_failed_checks():
    def options(folder):
        raise OSError("no space left")

    for case, says in (
        (Case("loss", broken_losses.Good, options), "OSError: no space left"),
        (Case("metric", 3), "TypeError: 3 is not a callable object"),
        (Case("dataset", "composites", {"sice": 3}), "did you mean 'size'"),
        (Case("recipe", "/nowhere/at-all.toml"), "/nowhere/at-all.toml"),
    ):
        results = list(run(case))
        assert says in " ".join(result.message for result in results), results
        assert "passed" not in {result.outcome for result in results if result.check in ("scalar", "scores", "loads")}


def test_the_functions_report_every_failure():
    good = broken_models.Good
    assert {r.outcome for r in testing.check_model(good)} == {"passed"}
    with pytest.raises(PluginContractError) as caught:
        testing.check_loss(broken_losses.Restless)
    assert "- deterministic: check 'deterministic' failed" in str(caught.value) and "- copyable:" in str(caught.value)
    assert "Why it matters" in str(caught.value)
    assert {r.outcome for r in testing.check_encoder("unetzoo-bn", size=32)} == {"passed"}
    assert {r.outcome for r in testing.check_metric("depth", task="depth")} == {"passed"}
    assert {r.outcome for r in testing.check_dataset("composites", {"size": 24, "length": 2})} == {"passed"}


def test_tier_can_be_set_for_a_function():
    def make(in_channels: int = 3, classes: int = 1):
        return broken_models.GoodSMP(in_channels, classes)

    assert "smp-parts" not in outcomes(Case("model", make), "smp*")
    assert outcomes(Case("model", make, tier=2), "smp*") == {"smp-parts": "passed"}


@pytest.mark.parametrize(("kind", "task", "near"), [("modell", None, "'model'"), ("loss", "multi", "'multilabel'")])
def test_invalid_cases_are_errors(kind, task, near):
    with pytest.raises(ConfigError) as caught:
        Case(kind, 1, task=task)
    assert near in caught.value.hint


def test_process_settings_are_restored_after_every_check():
    class Vandal(broken_losses.Good):
        def of(self, output, target, weight):
            import os
            import random
            import warnings

            warnings.simplefilter("ignore")
            os.environ["VANDAL"] = "1"
            random.seed(3)
            torch.manual_seed(3)
            torch.set_num_threads(2)
            torch.set_float32_matmul_precision("medium")
            torch.backends.cudnn.benchmark = True
            torch.set_grad_enabled(True)
            return super().of(output, target, weight)

    before = snapshot()
    found = {result.check: result for result in run(Case("loss", Vandal), "[!c]*")}
    assert differences(before, snapshot()) == ()
    message = found["side-effects"].message
    for word in ("VANDAL", "warnings filters", "threads", "cudnn.benchmark", "matrix products", "torch", "Python"):
        assert word in message


SUITE = """
import broken_losses
from unetzoo.testing import Case, parametrize_with_checks

@parametrize_with_checks([
    Case("loss", broken_losses.Good),
    Case("loss", broken_losses.FlatWeight, name="flat", expected_failures={"weight-has-effect": "known"}),
    Case("loss", broken_losses.FlatWeight, name="undeclared"),
    Case("loss", broken_losses.Good, name="mended", expected_failures={"weight-has-effect": "once"}),
    Case("loss", broken_losses.EveryPixel, name="blocked"),
])
def test_contract(case, check):
    check(case)
"""


def test_every_case_and_check_is_one_pytest_test(tmp_path):
    (tmp_path / "test_suite.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    command += ["-c", "/dev/null", "-k", "weight or scalar", str(tmp_path / "test_suite.py")]
    env = {"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"}
    printed = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path).stdout
    lines = {
        line for line in printed.splitlines() if line.startswith(("PASSED", "FAILED", "XFAIL", "SKIPPED", "XPASS"))
    }
    text = "\n".join(lines)
    assert "PASSED test_suite.py::test_contract[loss-Good-weight-has-effect]" in text
    assert "XFAIL test_suite.py::test_contract[loss-flat-weight-has-effect] - known" in text
    assert "FAILED test_suite.py::test_contract[loss-undeclared-weight-has-effect]" in text
    assert "FAILED test_suite.py::test_contract[loss-mended-weight-has-effect]" in text  # [XPASS(strict)] once
    assert "FAILED test_suite.py::test_contract[loss-blocked-scalar]" in text
    assert "Why it matters" in printed
    assert text.count("FAILED") == 3 and "check 'scalar' fails" in printed


def test_import_loads_neither_torch_nor_pytest():
    code = """
        import sys, unetzoo.testing
        assert not {"torch", "numpy", "pytest", "segmentation_models_pytorch"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_the_folder_of_a_case_is_removed_with_it():
    import gc

    case = Case("dataset", "composites", lambda folder: {"size": 24, "length": 1})
    folder = case.folder
    assert folder.is_dir() and case.options["size"] == 24
    del case
    gc.collect()
    assert not folder.exists()
