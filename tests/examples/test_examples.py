import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("library", ["smp", "unetzoo"])
def test_one_training_script_runs_with_smps_unet_and_with_ours(library):
    assert load("smp_dropin").train(library) > 0.8
