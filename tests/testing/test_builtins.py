"""All built-ins meet the contracts; deviations of SMP's parts are declared."""

import pytest

from unetzoo.plugins import installed
from unetzoo.registry import REGISTRIES
from unetzoo.testing import cases_of, run

CASES = cases_of("unetzoo")
SLOW = [
    case
    for case in CASES
    if case.kind == "model" and case.name.startswith(("smp-", "encoder-unet")) and case.name != "smp-unet"
]


@pytest.mark.parametrize("case", [pytest.param(c, id=str(c), marks=[pytest.mark.slow] * (c in SLOW)) for c in CASES])
def test_a_built_in_passes_its_checks(case):
    results = list(run(case))
    assert [result.message for result in results if result.failed] == []
    assert "passed" in {result.outcome for result in results}


def test_every_built_in_has_a_case():
    ours = next(distribution for distribution in installed() if distribution.builtin)
    named = {(case.kind, case.target.rpartition(":")[2]) for case in CASES}
    assert named >= {(REGISTRIES[entry.kind].kind, entry.name) for entry in ours.entries}
