"""All modules of the conformance tests are imported in one child process, instead of one for each."""

import pytest
from testing_cases import BROKEN, MODULES

from unetzoo.plugins import installed
from unetzoo.testing import common


@pytest.fixture(scope="session", autouse=True)
def imported_once():
    cases = [case for _, _, case in BROKEN] + [case for module in MODULES for case in module.GOOD]
    ours = next(distribution for distribution in installed() if distribution.builtin)
    common.probe_all([*(case.entry for case in cases if case.entry is not None), *ours.entries])
