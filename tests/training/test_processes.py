"""Two processes by gloo: shares of unequal size, metrics added up as integers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_trainer import Squares, make

import unetzoo

SCRIPT = """
import json, sys
from test_trainer import Squares, make
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
    one = make(net=unetzoo.from_pretrained(tmp_path / "best"))
    best = max(json.loads(line)["miou"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert one.evaluate(Squares(7, seed=1))["miou"] == pytest.approx(best, abs=0)
    assert sum(map(sum, first["confusion"])) == 7 * 32 * 32
