"""The benchmarks' harness refuses unequal answers and incomplete records, and the page is what was kept."""

import pytest

from benchmarks import report
from benchmarks.harness import Race, check_schema


def test_a_race_checks_before_it_times():
    race = Race("sum", {"ours": lambda: 3, "peer": lambda: 4}, check=lambda answers: _equal(answers))
    with pytest.raises(AssertionError, match="differ"):
        race.run(2)


def _equal(answers):
    assert len(set(answers.values())) == 1, "answers differ"


def test_contenders_take_turns_and_ratios_are_to_the_first():
    order = []
    contenders = {name: lambda name=name: order.append(name) for name in "ab"}
    result = Race("turns", contenders, check=lambda answers: order.clear(), memory=True).run(repeats=3, warmup=0)
    assert order[2:] == ["a", "b"] * 3  # after one call each for the memory
    assert result["rows"]["a"]["ratio_to_first"] == 1.0 and "extra_mb" in result["rows"]["b"]


def test_records_without_their_environment_are_refused():
    record = report.kept()[0]
    check_schema(record)
    for key in ("environment", "command", "races"):
        with pytest.raises(ValueError, match=key):
            check_schema({k: v for k, v in record.items() if k != key})


def test_the_page_is_made_of_what_was_kept():
    assert report.PAGE.read_text() == report.page(report.kept())
