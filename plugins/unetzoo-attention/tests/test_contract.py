"""The conformance checks of unetzoo: one test per check and name.

The small U²-Net is left out, since it is the other one with other defaults.
"""

import pytest
from unetzoo_attention.checks import CASES

from unetzoo.testing import parametrize_with_checks

TRACING = ("compiles", "exports")


@parametrize_with_checks([case for case in CASES if case.name != "u2net-small"])
def test_contract(case, check):
    if case.name == "u2net" and check.name in TRACING:
        pytest.skip("ten seconds for the 112 layers; `unetzoo plugin check` does it")
    check(case)
