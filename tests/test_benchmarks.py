"""The benchmarks' harness refuses unequal outputs and incomplete records; the page shows the stored results."""

import copy
import importlib
from graphlib import TopologicalSorter
from types import SimpleNamespace

import grimp
import pytest
import torch

import unetzoo
from benchmarks import goals, harness, imports, memory, peers, report, tiling, training
from benchmarks.__main__ import NAMES
from benchmarks.figures import bars
from benchmarks.goals import Goal
from benchmarks.harness import Limit, Race, check_schema


def test_a_race_checks_outputs_before_timing():
    race = Race("sum", {"ours": lambda: 3, "peer": lambda: 4}, check=lambda outputs: _equal(outputs))
    with pytest.raises(AssertionError):
        race.run(2)


def _equal(outputs):
    assert len(set(outputs.values())) == 1, "outputs differ"


def test_contenders_take_turns_and_ratios_are_to_the_first():
    order = []
    contenders = {name: lambda name=name: order.append(name) for name in "ab"}
    result = Race("turns", contenders, check=lambda outputs: order.clear(), memory=True).run(repeats=3, warmup=0)
    assert order[2:] == ["a", "b"] * 3  # after one call each for the memory
    assert result["rows"]["a"]["ratio_to_first"] == 1.0 and "extra_mb" in result["rows"]["b"]


def test_a_race_reports_its_limit():
    limit = Limit(0.002, "4 MB moved once")
    race = Race("copy", {"ours": lambda: None}, check=lambda outputs: None, limit=limit).run(repeats=2, warmup=0)
    assert race["limit"] == {"ms": 2.0, "what": "4 MB moved once"}
    race["rows"]["ours"]["ms"] = 3.0
    page, notes = report.table({"races": [race]}), report.notes({"races": [race]})
    assert "| × limit |" in page and "| 1.50 |" in page and "2 ms: 4 MB moved once" in notes[0]


def test_tiles_of_one_image_are_compared_before_they_race(monkeypatch):
    monkeypatch.setattr(tiling, "monais", lambda *args: {})
    net = unetzoo.build("bnunet", encoder_channels=(4, 8, 8), classes=3).eval()
    race = tiling.race("bnunet", net, 96, 64)
    assert all("of the pixels in the same class" in note for note in race.notes.values())
    assert set(race.run(1, 0)["rows"]) == set(race.contenders)
    whole = torch.zeros(3, 96, 96)
    with pytest.raises(AssertionError):
        tiling.agreement("ours", whole + 1, whole + 0.5, exact=True)


def test_records_without_their_environment_are_refused():
    record = harness.load_records()[0]
    check_schema(record)
    for key in ("environment", "command", "races"):
        with pytest.raises(ValueError, match=key):
            check_schema({k: v for k, v in record.items() if k != key})


def test_benchmarks_import_each_other_in_one_direction():
    graph = grimp.build_graph("benchmarks")
    TopologicalSorter({name: graph.find_modules_directly_imported_by(name) for name in graph.modules}).prepare()


def test_the_page_shows_the_stored_results():
    assert report.PAGE.read_text() == report.page(harness.load_records())


@pytest.mark.parametrize("name", NAMES)
def test_each_benchmark_has_races(name):
    assert callable(importlib.import_module(f"benchmarks.{name}").races)


def test_the_figure_shows_the_stored_results():
    headlines = list(goals.headlines(harness.load_records()))
    assert report.FIGURE.read_text() == bars(headlines) and len(headlines) > 5


def test_rows_of_the_wrong_type_are_refused():
    record = copy.deepcopy(harness.load_records()[0])
    next(iter(record["races"][0]["rows"].values()))["ms"] = "fast"
    with pytest.raises(ValueError, match="ms is str"):
        check_schema(record)
    with pytest.raises(ValueError, match="races"):
        check_schema(record | {"races": {}})
    record = copy.deepcopy(harness.load_records()[0])
    record["races"][0]["limit"] = {"ms": 1.0}
    with pytest.raises(ValueError, match="limit lacks what"):
        check_schema(record)


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
    limited = Goal("work", "inference", "^net", "^ours$", "the limit", 1.5, kind="limit")
    assert limited.measured(records, "CPU") is None
    records[1]["races"][0]["limit"] = {"ms": 1.6}
    assert limited.measured(records, "CPU") == (1.25, "net 2") and limited.met(1.25) and not limited.met(1.6)


def test_every_goal_has_a_row():
    assert len(list(goals.rows([]))) == len(goals.CPU) + len(goals.CUDA)
    assert all(row[3] == "not measured" for row in goals.rows([]))


@pytest.mark.parametrize("name", peers.SAME)
def test_common_definitions_equal_ours_with_the_same_weights(name, monkeypatch):
    monkeypatch.setattr(peers, "WIDTHS", (4, 8, 8, 8, 8))
    torch.manual_seed(0)
    net = unetzoo.build(name, encoder_channels=(4, 8, 8, 8, 8), classes=2)
    peer, x = peers.same(name, net, classes=2), torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(peer(x), net(x), rtol=1e-4, atol=1e-5)


def test_a_training_race_of_small_networks(monkeypatch):
    monkeypatch.setattr(peers, "WIDTHS", (4, 8, 8, 8, 8))
    small = SimpleNamespace(build=lambda name, **more: unetzoo.build(name, encoder_channels=(4, 8, 8, 8, 8), **more))
    for module in (training, memory):
        monkeypatch.setattr(module, "unetzoo", small)
    monkeypatch.setattr(torch, "compile", lambda network: network)  # minutes
    for race in (training.race("r2unet", 32, 2), memory.memory_saving("bnunet", 32, 1)):
        rows = race.run(1, 0)["rows"]
        assert all(row["ms"] > 0 and "extra_mb" in row for row in rows.values())


def test_different_outputs_stop_a_training_race():
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
