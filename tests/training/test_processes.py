"""Two processes by gloo: shares of unequal size, metrics added up as integers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import scenarios
from launch import run_scenarios
from small_runs import fingerprint
from test_trainer import Squares, make

import unetzoo

SCRIPT = """
import atexit, json, os, sys
from pathlib import Path
from test_trainer import Squares, make

@atexit.register  # before the Trainer registers what it does, so after that is done
def threads():
    Path(sys.argv[1], f"threads{os.environ['RANK']}").write_text(" ".join(os.listdir("/proc/self/task")))

trainer = make(out=sys.argv[1], epochs=2)
row = trainer.fit(Squares(9), Squares(7, seed=1))[-1]
weights = sum(float(p.detach().double().sum()) for p in trainer.net.parameters())
confusion = trainer.metrics["mask"].confusion.tolist()
rank = trainer.accelerator.process_index
found = dict(world=trainer.accelerator.num_processes, weights=weights, confusion=confusion, miou=row["miou"])
with open(f"{sys.argv[1]}/rank{rank}.json", "w") as file:
    json.dump(found, file)
"""


def test_two_processes_train_one_network_and_count_each_sample_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    here = Path(__file__).parent
    path = os.pathsep.join(map(str, (here, here.parent)))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*launch, str(script), str(tmp_path)],
        check=True,
        capture_output=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first["world"] == 2
    for rank in (0, 1):  # a thread of the group that is alive yet may abort the interpreter when that ends
        assert len((tmp_path / f"threads{rank}").read_text().split()) == 1
    one = make(net=unetzoo.from_pretrained(tmp_path / "best"))
    best = max(json.loads(line)["miou"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert one.evaluate(Squares(7, seed=1))["miou"] == pytest.approx(best, abs=0)
    assert sum(map(sum, first["confusion"])) == 7 * 32 * 32


def test_two_processes_give_the_result_of_one(tmp_path):
    names = ["counts", "averaged", "poisoned", "interrupted", "thawed"]
    first, second = run_scenarios(tmp_path, names, processes=2, most=7)
    (tmp_path / "most").write_text("7")
    alone = json.loads(json.dumps(scenarios.counts(tmp_path)))
    assert first["counts"] == second["counts"] == alone  # P14, with an empty share too
    expected = scenarios.averaged(tmp_path)
    for found in (first, second):
        assert found["averaged"]["values"] == pytest.approx(expected["values"], rel=1e-4, abs=1e-6)
        assert found["averaged"]["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert found["poisoned"]["bad"] == []
        assert found["interrupted"]["crashed"]
        assert found["thawed"]["frozen"] and found["thawed"]["thawed"]
    assert first["averaged"]["same"] == second["averaged"]["same"]
    assert first["poisoned"] == second["poisoned"]  # they stop at the same step
    assert first["thawed"]["same"] == second["thawed"]["same"]
    report = json.loads((tmp_path / "poisoned" / "nonfinite.json").read_text())
    assert [share["process"] for share in report["processes"]] == [0, 1]
    assert report["processes"][0]["samples"] != report["processes"][1]["samples"]
    assert fingerprint(tmp_path / "parts") == fingerprint(tmp_path / "whole")


def test_processes_agree_on_the_automatic_precision(tmp_path):
    first, second = (found["automatic"] for found in run_scenarios(tmp_path, ["automatic"], processes=2))
    assert first == second
    assert [first[name][0] for name in ("once", "again", "mixed")] == ["bf16", "bf16", "fp32"]
    assert first["once"] == first["again"] != first["mixed"]
    assert fingerprint(tmp_path / "once") == fingerprint(tmp_path / "again")
