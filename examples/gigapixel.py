"""Predict an image larger than memory from disk to disk: read in windows, predicted by exact tiles, written as it goes.

The image is drawn tile by tile into a tiled TIFF, so it is never in memory as a whole either. The default is small and
takes a minute; --side 32768 makes it a gigapixel (3 GB on disk, 1 GB for the prediction).

    python examples/gigapixel.py
    python examples/gigapixel.py --side 32768
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
import psutil
import tifffile
import torch
from PIL import Image

import unetzoo
from unetzoo.datasets import SegmentationDataset, Transform
from unetzoo.inference import predict_to

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--side", type=int, default=4096, help="height and width of the image, a multiple of 256")
parser.add_argument("--steps", type=int, default=60, help="optimizer steps")
options = parser.parse_args()

OUT, TILE = Path("runs/examples/gigapixel"), 256
shutil.rmtree(OUT, ignore_errors=True)  # from an earlier run


def draw(*place: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy tile of cells (256, 256, 3) and their mask; the same place always gives the same tile."""
    rng = np.random.default_rng(place)
    down, right = np.ogrid[:TILE, :TILE]
    mask = np.zeros((TILE, TILE), bool)
    for row, column, radius in rng.integers((30, 30, 8), (226, 226, 30), (12, 3)):
        mask |= (down - row) ** 2 + (right - column) ** 2 < radius**2
    return (rng.integers(60, 240, (TILE, TILE, 3)) - mask[..., None] * (60, 0, 40)).astype(np.uint8), mask


class Tiles(SegmentationDataset):
    def __init__(self, count: int, part: int) -> None:
        super().__init__(labels=unetzoo.LabelSpec(("background", "cell")), transform=Transform(crop=128))
        self.count, self.part = count, part

    def __len__(self) -> int:
        return self.count

    def load(self, index: int) -> dict:
        image, mask = draw(self.part, index)
        return {"image": image, "mask": mask.astype(np.uint8), "id": str(index)}


torch.manual_seed(0)
net = unetzoo.build("bnunet", classes=1, encoder_channels=[8, 16, 32])
unetzoo.Trainer(net, unetzoo.LOSSES.build("dice_ce", mode="binary"), steps=options.steps, batch_size=8).fit(
    Tiles(80, 0)
)

OUT.mkdir(parents=True)
across = options.side // TILE
tifffile.imwrite(
    OUT / "slide.tif",
    (draw(1, row, column)[0] for row, column in np.ndindex(across, across)),
    shape=(options.side, options.side, 3),
    dtype=np.uint8,
    tile=(TILE, TILE),
    photometric="rgb",
)

streamed = predict_to(
    net, OUT / "slide.tif", OUT / "classes.npy", memory="200MB", progress=True, preprocess=unetzoo.Preprocess()
)
held = psutil.Process().memory_info().rss / 1e6
print(f"{streamed.tiling}; {streamed.seconds:.0f} s; the process holds {held:.0f} MB")

# Read the prediction piece by piece: tile by tile to score it, and every 8th pixel for a preview.
classes = np.load(OUT / "classes.npy", mmap_mode="r")
metric = unetzoo.METRICS.build("segmentation", num_classes=1)
for row, column in np.ndindex(across, across):
    found = classes[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
    metric.update(*(torch.from_numpy(mask[None].astype(np.int64)) for mask in (found, draw(1, row, column)[1])))
Image.fromarray(classes[::8, ::8] * np.uint8(255)).save(OUT / "classes.png")
print(f"IoU {metric.compute()['iou/foreground']:.3f} over {classes.size / 1e6:.0f} megapixels; see {OUT}/classes.png")
