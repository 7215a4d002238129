"""The conformance checks of unetzoo: one test per case and check."""

from unetzoo_template.checks import CASES

from unetzoo.testing import parametrize_with_checks


@parametrize_with_checks(CASES)
def test_contract(case, check):
    check(case)
