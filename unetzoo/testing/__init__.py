"""The conformance kit: whether a model, loss, metric, dataset, encoder or recipe keeps the contract of its kind.

In the tests of a plugin:

    from unetzoo.testing import Case, parametrize_with_checks

    @parametrize_with_checks([Case("model", "tinyunet", {"width": 4}), Case("loss", "tiny-loss")])
    def test_contract(case, check):
        check(case)

`unetzoo plugin check DISTRIBUTION` runs the same on what is installed. For one object in a notebook: `check_model` and
its siblings. This package needs pytest for `parametrize_with_checks` alone.
"""

from __future__ import annotations

from .case import Case
from .face import (
    check_dataset,
    check_encoder,
    check_loss,
    check_metric,
    check_model,
    check_recipe,
    parametrize_with_checks,
)
from .finding import cases_of
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
    "checks",
    "parametrize_with_checks",
    "run",
]
