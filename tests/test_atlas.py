"""Where libraries disagree: unetzoo's column shows the scores of this version, the page the stored results."""

import json

import pytest

from benchmarks import atlas

KEPT = json.loads((atlas.RESULTS / "atlas.json").read_text())
CASES = atlas.cases()
ASKED = [(i, name) for i, case in enumerate(CASES) for name in case.scores if name not in ("torchmetrics", "MONAI")]


@pytest.mark.parametrize(("number", "library"), ASKED)
def test_scores_are_those_on_the_page(number, library):
    case, kept = CASES[number], KEPT["cases"][number]
    assert (case.title, case.question, case.why) == (kept["title"], kept["question"], kept["why"])
    score, wanted = atlas.plain(atlas.evaluate(case.scores[library])), kept["scores"][library]
    assert score == wanted if isinstance(wanted, str) else score == pytest.approx(wanted, abs=2e-4)


def test_the_page_shows_the_stored_results():
    assert len(CASES) == len(KEPT["cases"])
    assert atlas.PAGE.read_text() == atlas.page(KEPT)
