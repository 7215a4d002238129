"""Train one network with two processes, each on a GPU or CPU; the scores equal those of a single process.

python examples/two_processes.py                                  starts both, then evaluates in one process
torchrun --nproc-per-node=2 examples/two_processes.py             training only, as on a machine with GPUs
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch

import unetzoo
from unetzoo.datasets import Transform

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=60, help="optimizer steps")
steps = parser.parse_args().steps

OUT = Path("runs/examples/two-processes")
val = unetzoo.DATASETS.build("composites", split="val", size=64, channels=3, length=33)
val.transform = Transform(train=False)


def trainer_of(net: torch.nn.Module, out: Path | None = None) -> unetzoo.Trainer:
    loss = unetzoo.LOSSES.build("dice_ce", mode="binary")
    metric = unetzoo.METRICS.build("segmentation", labels=val.labels)
    return unetzoo.Trainer(net, loss, metrics=metric, steps=steps, batch_size=8, out=out)  # 2 × 8 samples per step


if "WORLD_SIZE" in os.environ:  # started by torchrun: every process runs this on its share of the samples
    train = unetzoo.DATASETS.build("composites", split="train", size=64, channels=3, length=320)
    train.transform = Transform(hflip=0.5)
    torch.manual_seed(0)
    trainer_of(unetzoo.build("bnunet", classes=1, encoder_channels=[8, 16, 32]), OUT).fit(train, val)
else:
    shutil.rmtree(OUT, ignore_errors=True)  # from an earlier run
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", __file__, f"--steps={steps}"]
    subprocess.run([sys.executable, *launch], check=True)

    counted = max(json.loads(line)["iou/foreground"] for line in (OUT / "metrics.jsonl").read_text().splitlines())
    alone = trainer_of(unetzoo.from_pretrained(OUT / "best")).evaluate(val)["iou/foreground"]
    print(f"IoU {counted:.6f} from two processes, {alone:.6f} from one")
