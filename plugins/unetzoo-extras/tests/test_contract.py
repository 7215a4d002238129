"""What unetzoo asks of plugins: one test for every check and every name of ours."""

from unetzoo_extras.checks import CASES

from unetzoo.testing import parametrize_with_checks


@parametrize_with_checks(CASES)
def test_contract(case, check):
    check(case)
