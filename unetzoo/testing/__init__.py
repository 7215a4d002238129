"""Conformance checks: does a model, encoder, loss, metric, dataset or recipe meet the contract of its kind?

In the tests of a plugin:

    from unetzoo.testing import Case, parametrize_with_checks

    @parametrize_with_checks([Case("model", "tinyunet", {"width": 4}), Case("loss", "tiny-loss")])
    def test_contract(case, check):
        check(case)

`unetzoo plugin check DISTRIBUTION` runs the same checks on an installed package. For a single object in a notebook, use
`check_model` and its siblings. Only `parametrize_with_checks` needs pytest.
"""

from __future__ import annotations

from .api import (
    check_dataset,
    check_encoder,
    check_loss,
    check_metric,
    check_model,
    check_recipe,
    check_weights,
    parametrize_with_checks,
)
from .case import Case
from .discovery import cases_of
from .kit import Blocked, Check, CheckFailed, Result, Skipped, checks, run

__all__ = [
    "Blocked",
    "Case",
    "Check",
    "CheckFailed",
    "Result",
    "Skipped",
    "cases_of",
    "check_dataset",
    "check_encoder",
    "check_loss",
    "check_metric",
    "check_model",
    "check_recipe",
    "check_weights",
    "checks",
    "parametrize_with_checks",
    "run",
]
