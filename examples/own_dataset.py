"""Your own data, twice: as a dataset class of ten lines, and as a folder of files, which needs no class.

python examples/own_dataset.py
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import unetzoo
from unetzoo.datasets import SegmentationDataset, Transform

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=80, help="optimizer steps")
steps = parser.parse_args().steps

OUT = Path("runs/examples/own-dataset")
shutil.rmtree(OUT, ignore_errors=True)  # from an earlier run


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image (48, 48, 3) with a bright disc, and the disc's mask. Yours would read two files."""
    rng = np.random.default_rng(seed)
    row, column = rng.integers(12, 36, 2)
    down, right = np.ogrid[:48, :48]
    mask = (down - row) ** 2 + (right - column) ** 2 < 10**2
    return (rng.integers(0, 180, (48, 48, 3)) + 60 * mask[..., None]).astype(np.uint8), mask.astype(np.uint8)


class Discs(SegmentationDataset):
    def __init__(self, count: int, first: int, transform=None):
        super().__init__(labels=unetzoo.LabelSpec(("background", "disc")), transform=transform)
        self.count, self.first = count, first

    def __len__(self):
        return self.count

    def load(self, index):
        image, mask = draw(self.first + index)
        return {"image": image, "mask": mask, "id": f"disc-{index}"}


def score(train, val, out: Path) -> float:
    """Train on one split and return the best IoU on the other. This works with any dataset."""
    torch.manual_seed(0)
    train.transform, val.transform = Transform(hflip=0.5, vflip=0.5), Transform(train=False)
    trainer = unetzoo.Trainer(
        unetzoo.build("bnunet", classes=1, encoder_channels=[8, 16, 32]),
        unetzoo.LOSSES.build("dice_ce", mode="binary"),
        metrics=unetzoo.METRICS.build("segmentation", labels=train.labels),
        steps=steps,
        out=out,
    )
    return max(row["iou/disc"] for row in trainer.fit(train, val))


print(f"dataset class: IoU {score(Discs(160, first=0), Discs(40, first=160), OUT / 'class'):.3f}")

# The same images as files. `ids` states the mask value of each class; it is never guessed.
for split, count, first in (("train", 160, 0), ("val", 40, 160)):
    for part in ("images", "masks"):
        (OUT / "discs" / part / split).mkdir(parents=True)
    for number in range(count):
        image, mask = draw(first + number)
        Image.fromarray(image).save(OUT / "discs/images" / split / f"{number:03d}.png")
        Image.fromarray(mask * 255).save(OUT / "discs/masks" / split / f"{number:03d}.png")

train, val = (
    unetzoo.DATASETS.build("folder", root=OUT / "discs", split=split, names=["background", "disc"], ids=[0, 255])
    for split in ("train", "val")
)
print(f"dataset `folder`: IoU {score(train, val, OUT / 'folder'):.3f}")
print(f"try also: unetzoo doctor {OUT}/discs")
