import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("library", [pytest.param("smp", marks=pytest.mark.slow), "unetzoo"])
def test_one_training_script_runs_with_smps_unet_and_with_ours(library):
    assert load("smp_dropin").train(library) > 0.8


def test_smps_training_example_learns_and_both_libraries_count_the_same():
    scores = load("smp_training").train("bce", epochs=2)
    assert set(scores) == {"dataset IoU", "per-image IoU"}
    for ours, theirs in scores.values():
        assert ours == pytest.approx(theirs, abs=1e-6) and ours > 0.4
