"""Ten thousand broken checkpoints and ten thousand broken recipes."""

import pytest
from disasters import undetected_mutants
from recipe_trials import trials

pytestmark = pytest.mark.soak
COUNT = 10_000


def test_checkpoints(tmp_path):
    assert undetected_mutants(tmp_path, COUNT, seed=1) == []


def test_recipes(tmp_path):
    findings, outcomes = trials(tmp_path, COUNT, seed=1, models_every=4)
    print(outcomes)
    assert findings == []
