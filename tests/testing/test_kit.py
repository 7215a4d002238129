"""The kit as an author meets it: declared failures, pytest, the functions, what it leaves behind."""

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
from unetzoo.process_state import differences, snapshot
from unetzoo.testing import Case, CheckFailed, run

IMPORTS = {"imports-alone", "imports-quickly", "imports-quietly", "import-keeps-settings"}


def outcomes(case, only="*"):
    return {result.check: result.outcome for result in run(case, only)}


def test_a_declared_failure_is_expected_and_its_end_is_a_surprise():
    declared = {"weights-count": "known"}
    assert outcomes(Case("loss", broken_losses.FlatWeight, expected_failures=declared), "w*")["weights-count"] == (
        "expected"
    )
    results = list(run(Case("loss", broken_losses.Good, expected_failures=declared), "weights-count"))
    assert [result.outcome for result in results] == ["surprise"] and results[0].bad
    assert "it is declared to fail (known), and passes" in results[0].message


def test_an_object_declares_failures_itself():
    class Declares(broken_losses.FlatWeight):
        unetzoo_expected_failures = {"weights-count": "known"}  # noqa: RUF012

    assert outcomes(Case("loss", Declares), "weights-count") == {"weights-count": "expected"}


def test_a_misspelt_declaration_is_refused():
    case = Case("loss", broken_losses.Good, expected_failures={"weights-cuont": "?"})
    with pytest.raises(CheckFailed, match="'weights-cuont' among the expected failures"):
        list(run(case))


def test_what_cannot_be_built_fails_once_and_blocks_the_rest():
    class Fails(broken_losses.Good):
        def __init__(self, ignore_index: int | None = None):
            raise RuntimeError("no such thing")

    found = outcomes(Case("loss", Fails))
    assert found.pop("scalar") == "failed"
    assert found.pop("explicit-signature") == found.pop("json-arguments") == "passed"
    imports = {found.pop(name) for name in IMPORTS}  # which a class of this function has none of
    assert imports == {"skipped"} and set(found.values()) == {"blocked"}


@pytest.mark.parametrize("registered", [False, True])
def test_what_a_notebook_defines_is_not_asked_to_be_importable(monkeypatch, registered):
    class Net(broken_models.Good):
        pass

    monkeypatch.setattr(unetzoo.MODELS, "_local", {})
    for module, name, says in (
        ("__main__", "Net", "model {} was made in a notebook or a script, so no other process can import it; put it"),
        (__name__, "make.<locals>.Net", "model {} was made in a function, so no other process can import it; put it"),
    ):
        Net.__module__, Net.__qualname__ = module, name
        target = "mine" if registered else Net
        if registered:
            unetzoo.MODELS._local.clear()
            unetzoo.MODELS.register("mine")(Net)
        results = {result.check: result for result in run(Case("model", target), "import*")}
        assert results.keys() == IMPORTS and {result.outcome for result in results.values()} == {"skipped"}
        assert results["imports-alone"].message.startswith(says.format("mine" if registered else "Net"))
        assert not any(result.bad for result in results.values())
        declared = Case("model", target, expected_failures={"imports-alone": "known"})
        assert outcomes(declared, "imports-alone") == {"imports-alone": "skipped"}
        with pytest.raises(unittest.SkipTest, match="no other process can import it"):
            next(one for one in testing.checks("model") if one.name == "imports-alone")(Case("model", target))


def test_missing_options_are_named_with_the_way_to_give_them():
    (result,) = run(Case("loss", "dice"), "scalar")
    assert 'Fix: Case("loss", …, {"mode": …})' in result.message and result.outcome == "failed"
    (result,) = run(Case("loss", "dcie"), "scalar")
    assert "did you mean 'dice'" in result.message


def test_targets_and_options_of_any_kind_fail_as_checks_do():
    def options(folder):
        raise OSError("no space left")

    for case, says in (
        (Case("loss", broken_losses.Good, options), "OSError: no space left"),
        (Case("metric", 3), "TypeError: 3 is not a callable object"),
        (Case("dataset", "composites", {"sice": 3}), "did you mean 'size'"),
        (Case("recipe", "/nowhere/at-all.toml"), "unknown recipe"),
    ):
        results = list(run(case))
        assert says in " ".join(result.message for result in results), results
        assert "passed" not in {result.outcome for result in results if result.check in ("scalar", "scores", "loads")}


def test_the_functions_pass_what_is_right_and_tell_everything_that_is_wrong(tmp_path):
    good = broken_models.Good
    assert {r.outcome for r in testing.check_model(good)} == {"passed"}
    with pytest.raises(PluginContractError) as caught:
        testing.check_loss(broken_losses.Restless)
    assert "- deterministic: check 'deterministic' failed" in str(caught.value) and "- copies:" in str(caught.value)
    assert "Why users need it" in str(caught.value)
    assert {r.outcome for r in testing.check_encoder("unetzoo-bn", size=32)} == {"passed"}
    assert {r.outcome for r in testing.check_metric("depth", task="depth")} == {"passed"}
    assert {r.outcome for r in testing.check_dataset("composites", {"size": 24, "length": 2})} == {"passed"}


def test_a_tier_can_be_asked_of_a_function():
    def make(in_channels: int = 3, classes: int = 1):
        return broken_models.GoodSMP(in_channels, classes)

    assert "smp-parts" not in outcomes(Case("model", make), "smp*")
    assert outcomes(Case("model", make, tier=2), "smp*") == {"smp-parts": "passed"}


@pytest.mark.parametrize(("arguments", "says"), [
    (("modell", 1), "did you mean 'model'"),
    (("loss", 1, None, "multi"), "unknown task"),
])  # fmt: skip
def test_wrong_cases_are_refused(arguments, says):
    kind, target, *more = arguments
    with pytest.raises(ConfigError, match=says):
        Case(kind, target, *more[:1], task=more[1] if len(more) > 1 else None)


def test_nothing_of_the_process_is_changed_whatever_the_object_does():
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
    message = found["use-keeps-settings"].message
    for word in ("VANDAL", "warnings filters", "threads", "cudnn.benchmark", "matrix products", "torch", "Python"):
        assert word in message


SUITE = """
import broken_losses
from unetzoo.testing import Case, parametrize_with_checks

@parametrize_with_checks([
    Case("loss", broken_losses.Good),
    Case("loss", broken_losses.FlatWeight, name="flat", expected_failures={"weights-count": "known"}),
    Case("loss", broken_losses.FlatWeight, name="undeclared"),
    Case("loss", broken_losses.Good, name="mended", expected_failures={"weights-count": "once"}),
    Case("loss", broken_losses.EveryPixel, name="blocked"),
])
def test_contract(case, check):
    check(case)
"""


def test_every_pair_is_a_test_of_its_own_under_pytest(tmp_path):
    (tmp_path / "test_suite.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    command += ["-c", "/dev/null", "-k", "weight or scalar", str(tmp_path / "test_suite.py")]
    env = {"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"}
    printed = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path).stdout
    lines = {
        line for line in printed.splitlines() if line.startswith(("PASSED", "FAILED", "XFAIL", "SKIPPED", "XPASS"))
    }
    text = "\n".join(lines)
    assert "PASSED test_suite.py::test_contract[loss-Good-weights-count]" in text
    assert "XFAIL test_suite.py::test_contract[loss-flat-weights-count] - known" in text
    assert "FAILED test_suite.py::test_contract[loss-undeclared-weights-count]" in text
    assert "FAILED test_suite.py::test_contract[loss-mended-weights-count]" in text  # [XPASS(strict)] once
    assert "FAILED test_suite.py::test_contract[loss-blocked-scalar]" in text
    assert "Why users need it" in printed
    assert text.count("FAILED") == 3 and "check 'scalar' fails already" in printed


def test_importing_the_kit_imports_neither_torch_nor_pytest():
    code = """
        import sys, unetzoo.testing
        assert not {"torch", "numpy", "pytest", "segmentation_models_pytorch"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_recipe_and_dataset_folders_go_with_their_case():
    import gc

    case = Case("dataset", "composites", lambda folder: {"size": 24, "length": 1})
    folder = case.folder
    assert folder.is_dir() and case.options["size"] == 24
    del case
    gc.collect()
    assert not folder.exists()
