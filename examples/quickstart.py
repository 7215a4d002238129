"""Build, train, save, load and predict, on synthetic images that are generated on the fly.

python examples/quickstart.py
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import unetzoo
from unetzoo.datasets import Transform
from unetzoo.training import Schedule, make_optimizer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=200, help="optimizer steps")
steps = parser.parse_args().steps

OUT = Path("runs/examples/quickstart")
shutil.rmtree(OUT, ignore_errors=True)  # from an earlier run
torch.manual_seed(0)

# Cut-outs composed over scenes, with the mask of the cut-out. The splits use different cut-outs and scenes.
train = unetzoo.DATASETS.build("composites", split="train", size=64, channels=3, length=640)
val = unetzoo.DATASETS.build("composites", split="val", size=64, channels=3, length=64)
train.transform, val.transform = Transform(hflip=0.5), Transform(train=False)

net = unetzoo.build("bnunet", classes=1, encoder_channels=[8, 16, 32, 64])
trainer = unetzoo.Trainer(
    net,
    unetzoo.LOSSES.build("dice_ce", mode="binary"),
    metrics=unetzoo.METRICS.build("segmentation", labels=train.labels),
    optimizer=make_optimizer(net, "adamw", lr=3e-3),
    scheduler=Schedule("cosine"),
    steps=steps,
    batch_size=16,
    out=OUT,
)
history = trainer.fit(train, val)  # one row per epoch, as in metrics.jsonl

# The network of the best epoch is in the run folder, in the format of `net.save_pretrained(folder)`.
net = unetzoo.from_pretrained(OUT / "best")

# Image, ground truth and prediction of four samples, as uint8 (H, W, 3).
rows = []
for sample in (val.load(index) for index in range(0, 64, 16)):
    logits = unetzoo.predict(net, sample["image"])
    masks = sample["mask"], (logits[0] > 0).numpy()
    rows.append(np.hstack([sample["image"], *(np.dstack([mask] * 3).astype(np.uint8) * 255 for mask in masks)]))
Image.fromarray(np.vstack(rows)).save(OUT / "image-truth-prediction.png")
best = max(row["iou/foreground"] for row in history)
print(f"best IoU {best:.3f}; see {OUT}/image-truth-prediction.png")
