"""The benchmarks' harness refuses unequal answers and incomplete records, and the page is what was kept."""

import copy
from types import SimpleNamespace

import pytest
import torch

import unetzoo
from benchmarks import goals, imports, peers, report, training
from benchmarks.figures import bars
from benchmarks.goals import Goal
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


@pytest.mark.parametrize("record", report.kept(), ids=lambda record: record["what"])
def test_figures_are_those_of_what_was_kept(record):
    assert report.figure(record).read_text() == bars(record)


def test_rows_of_the_wrong_type_are_refused():
    record = copy.deepcopy(report.kept()[0])
    next(iter(record["races"][0]["rows"].values()))["ms"] = "fast"
    with pytest.raises(ValueError, match="ms is str"):
        check_schema(record)
    with pytest.raises(ValueError, match="races"):
        check_schema(record | {"races": {}})


def made(name, what="inference", gpu=None, **rows):
    """A record with one race; a row is (ms, extra MB)."""
    table = {key.replace("_", " "): {"ms": ms, "extra_mb": mb} for key, (ms, mb) in rows.items()}
    return {"what": what, "environment": {"gpu": gpu}, "races": [{"name": name, "rows": table}]}


def test_goals_read_the_worst_race_of_their_device():
    goal = Goal("work", "inference", "^net", "^ours$", "^peer|^other", 2.0)
    records = [made("net 1", ours=(1, 5), peer=(4, 9), other=(3, 9)), made("net 2", ours=(2, 5), peer=(3, 9)),
               made("else", ours=(9, 1), peer=(1, 1)), made("net 3", gpu="card", ours=(9, 1), peer=(1, 1))]  # fmt: skip
    assert goal.measured(records, "CPU") == (1.5, "net 2") and not goal.met(1.5) and goal.met(2.0)
    assert goal.measured(records[2:], "CPU") is None
    memory = Goal("work", "inference", "^net", "^ours$", "^peer", 0.6, "extra_mb", "share")
    assert memory.measured(records, "CPU") == (5 / 9, "net 2") and memory.met(5 / 9)
    later = Goal("work", "inference", "^net", "^ours$", "^peer", 50, kind="difference")
    assert later.measured(records, "CPU") == (-1, "net 2")


def test_every_goal_has_a_row():
    assert len(list(goals.rows([]))) == len(goals.CPU) + len(goals.CUDA)
    assert all(row[3] == "not measured" for row in goals.rows([]))


@pytest.mark.parametrize("name", peers.SAME)
def test_common_definitions_answer_as_ours_with_the_same_weights(name, monkeypatch):
    monkeypatch.setattr(peers, "WIDTHS", (4, 8, 8, 8, 8))
    torch.manual_seed(0)
    net = unetzoo.build(name, encoder_channels=(4, 8, 8, 8, 8), classes=2)
    peer, x = peers.same(name, net, classes=2), torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(peer(x), net(x), rtol=1e-4, atol=1e-5)


def test_a_training_race_of_small_networks(monkeypatch):
    monkeypatch.setattr(peers, "WIDTHS", (4, 8, 8, 8, 8))
    small = SimpleNamespace(build=lambda name, **more: unetzoo.build(name, encoder_channels=(4, 8, 8, 8, 8), **more))
    monkeypatch.setattr(training, "unetzoo", small)
    for race in (training.race("r2unet", 32, 2), training.lean("bnunet", 32, 1)):
        rows = race.run(1, 0)["rows"]
        assert all(row["ms"] > 0 and "extra_mb" in row for row in rows.values())


def test_answers_that_differ_stop_a_training_race():
    same, other = (1.0, [torch.ones(2)]), (1.0, [torch.tensor([1.0, 1.1])])
    training.equal({"a": same, "b": same}, peer="a", exact={"b"}, rough=set())
    with pytest.raises(AssertionError):
        training.equal({"a": same, "b": other}, peer="a", exact={"b"}, rough=set())


def test_importing_takes_no_torch():
    assert imports.run("import unetzoo, sys; print('torch' in sys.modules)") == "False\n"


def test_importing_takes_no_inspect():
    slow = "{'inspect', 'dataclasses'}"
    new = f"import sys; before = set(sys.modules); import unetzoo; print({slow} & set(sys.modules) - before)"
    assert imports.run(new) == "set()\n"


def test_nnunets_network_has_the_widths_of_ours():
    pytest.importorskip("dynamic_network_architectures")
    nets, notes = peers.others(3, 2)
    peer = nets["nnU-Net PlainConvUNet"]
    convolutions = [m for m in peer.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)]
    two_a_level = [width for width in (64, 128, 256, 512) for _ in range(4)] + [1024, 1024]
    assert sorted(m.out_channels for m in convolutions) == two_a_level
    assert set(notes) == set(nets) and "nnU-Net" not in peers.missing()


def test_peers_that_are_not_installed_are_named(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda package: None)
    assert list(peers.others(3, 2)[0]) == ["SMP Unet, resnet34"]
    assert peers.missing() == "left out, as not installed: MONAI, nnU-Net"
