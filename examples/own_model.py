"""Your own network under a registry name: checked, drawn, trained by a recipe, saved and loaded.

The decorator is for a notebook or a script. For a package that others can install, `unetzoo plugin new acme-seg` writes
a working one with tests; there the same class is registered by an entry point, and nothing else changes.

    python examples/own_model.py
"""

import argparse
import shutil
from pathlib import Path

from torch import Tensor, cat, nn
from torch.nn.functional import avg_pool2d, interpolate

import unetzoo
from unetzoo.models import SegmentationModel
from unetzoo.testing import check_model
from unetzoo.training import train

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=120, help="optimizer steps")
steps = parser.parse_args().steps

OUT = Path("runs/examples/own-model")
shutil.rmtree(OUT, ignore_errors=True)  # from an earlier run


def layer(inputs: int, outputs: int, dilation: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class Encoder(nn.Module):
    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.out_channels, self.output_stride = [width, 2 * width], 4
        self.fine = layer(in_channels, width)
        self.coarse = nn.Sequential(layer(width, 2 * width), layer(2 * width, 2 * width, dilation=4))

    def forward(self, image: Tensor) -> list[Tensor]:
        fine = self.fine(image)
        return [fine, self.coarse(avg_pool2d(fine, 4, ceil_mode=True))]


class Decoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.joint = layer(3 * width, width)

    def forward(self, maps: list[Tensor]) -> Tensor:
        fine, coarse = maps
        return self.joint(cat([fine, interpolate(coarse, fine.shape[-2:])], 1))


@unetzoo.MODELS.register("halfnet")
class HalfNet(SegmentationModel):
    """One pooling, one skip. Any `nn.Module` can be trained; these parts let it be saved, loaded and frozen too."""

    def __init__(self, in_channels: int = 3, classes: int = 1, width: int = 16) -> None:
        super().__init__()
        if classes < 1:
            raise ValueError(f"classes must be 1 or more, not {classes}")
        self.encoder, self.decoder = Encoder(in_channels, width), Decoder(width)
        self.segmentation_head = nn.Sequential(nn.Conv2d(width, classes, 1))
        self.classification_head = None
        self.in_channels, self.name = in_channels, "halfnet"
        self.initialize()


# Checks of the import are skipped: other processes cannot import what a script defines.
results = check_model("halfnet", {"width": 8})
print(f"{sum(result.outcome == 'passed' for result in results)} checks passed")

OUT.mkdir(parents=True)
(OUT / "halfnet.svg").write_text(unetzoo.draw(unetzoo.build("halfnet"), 64, title="halfnet"), encoding="utf-8")

# A recipe uses it like any other network.
(OUT / "halfnet.toml").write_text(f"""
model = {{ name = "halfnet", in_channels = 6, width = 24 }}
data = {{ name = "composites", size = 64, jitter = true, train = {{ length = 480 }}, val = {{ length = 48 }} }}
transform = {{ train = {{ hflip = 0.5 }} }}
loss = {{ dice_ce = 1.0 }}
optimizer = {{ name = "adamw", lr = 3e-3 }}
metrics = {{ mask = {{ name = "segmentation" }} }}
train = {{ steps = {steps}, batch_size = 16, monitor = "iou/foreground" }}
""")
result = train(OUT / "halfnet.toml", out=OUT / "run", say=print)
score, baseline = (scores["iou/foreground"] for scores in (result.scores, result.baseline))
print(f"IoU {score:.3f}; the dataset's own baseline, without a network, has {baseline:.3f}")
print(f"{unetzoo.from_pretrained(result.out / 'best').name} loaded from {result.out}/best")
print(f"see {OUT}/halfnet.svg and {OUT}/run/report.html")
