"""The conformance checks of unetzoo: one test per check and name."""

from unetzoo_formats.checks import CASES

from unetzoo.testing import parametrize_with_checks


@parametrize_with_checks(CASES)
def test_contract(case, check):
    check(case)
