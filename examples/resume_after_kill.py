"""Kill a run in the middle of an epoch and resume it: the result is bit-identical to an uninterrupted run.

python examples/resume_after_kill.py
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from safetensors.torch import load_file

from unetzoo.training import train

OUT = Path("runs/examples/resume-after-kill")
CHANGES = ["data.size=32", "data.train.length=160", "train.checkpoint_steps=3", "train.keep=3"]  # 10 steps per epoch
shutil.rmtree(OUT, ignore_errors=True)  # from an earlier run


def history(run: Path) -> list[dict]:
    """The log of each epoch, without its duration."""
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


command = [sys.executable, "-m", "unetzoo.cli", "train", "demo", "--fast", "--quiet", "--out", str(OUT / "killed")]
process = subprocess.Popen([*command, *(f"--set={change}" for change in CHANGES)])
while not (OUT / "killed/checkpoints/step-000012").exists():  # in the second of two epochs
    assert process.poll() is None, "the run ended before it was killed"
    time.sleep(0.02)
process.kill()  # kill -9: no chance to tidy up
process.wait()
print(f"killed after {len(history(OUT / 'killed'))} epoch and part of the next")

train("demo", CHANGES, fast=True, out=OUT / "killed", resume=True)  # unetzoo train RUN --resume
train("demo", CHANGES, fast=True, out=OUT / "whole")

weights = [load_file(OUT / run / "best/model.safetensors") for run in ("killed", "whole")]
same = all(weights[0][name].equal(weights[1][name]) for name in weights[1])
print(f"equal logs: {history(OUT / 'killed') == history(OUT / 'whole')}; bit-identical weights: {same}")
