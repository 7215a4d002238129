"""The training example of segmentation-models-pytorch (SMP), with a loss and the metrics of unetzoo.

As in SMP's example on Oxford-IIIT Pet, trimaps become binary masks, the network is SMP's U-Net with the normalization
of its encoder, Adam starts at 2e-4 with a cosine schedule, and IoU is reported over the whole set and as the mean over
images. The pets are synthetic, so that it runs in a minute on a CPU. Both libraries compute the scores, side by side.

    python examples/smp_training.py              our Dice loss
    python examples/smp_training.py dice_ce      another loss of ours
    python examples/smp_training.py smp-focal    one of SMP's, by name
"""

import inspect
import sys
from collections.abc import Iterator
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

import unetzoo

PET, BACKGROUND, RIM = 1, 2, 3  # values of the trimaps in Oxford-IIIT Pet
SIDE, BATCH = 64, 16


class PetModel(nn.Module):
    """SMP's U-Net with the normalization of its encoder."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.net = smp.Unet("resnet18", encoder_weights=None, in_channels=3, classes=1)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))  # ImageNet's
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Images in [0, 1] (N, 3, H, W) → logits (N, 1, H, W)."""
        return self.net((images - self.mean) / self.std)


def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images of pets with two pointed ears, and their trimaps."""
    down, right = torch.meshgrid(torch.arange(float(SIDE)), torch.arange(float(SIDE)), indexing="ij")
    row, column = (torch.rand(2, count, 1, 1, generator=generator) * 20 + 24).unbind()
    away = ((down - row) ** 2 + (right - column) ** 2).sqrt() - 12
    for side in (-1, 1):
        ear = torch.maximum((right - column - 8 * side).abs() - (down - row + 20) / 2, down - row + 6)
        away = torch.minimum(away, ear)
    trimaps = torch.where(away < -1, PET, torch.where(away > 1, BACKGROUND, RIM))[:, None]
    fur = torch.rand(count, 3, 1, 1, generator=generator) * 0.3 + 0.4
    noise = torch.rand(count, 3, SIDE, SIDE, generator=generator) * 0.4
    return (noise + fur * (trimaps != BACKGROUND)).clamp(0, 1), trimaps


def batches(images: Tensor, masks: Tensor, order: Tensor) -> Iterator[tuple[Tensor, Any]]:
    """The images in this order, in batches."""
    for chosen in order.split(BATCH):
        yield images[chosen], masks[chosen]


@torch.no_grad()
def evaluate(model: PetModel, images: Tensor, masks: Tensor) -> dict[str, tuple[float, float]]:
    """IoU over all pixels of the set, and as the mean over images: ours, then SMP's."""
    metric = unetzoo.METRICS.build("segmentation", num_classes=1, per_image=True)
    counted = []
    for some, truth in batches(images, masks, torch.arange(len(images))):
        logits = model.eval()(some)
        metric.update(logits, truth)
        predicted: Any = (logits.sigmoid() > 0.5).long()
        counted.append(smp.metrics.get_stats(predicted, truth, mode="binary"))
    stats: Any = [torch.cat(parts) for parts in zip(*counted, strict=True)]
    scores = metric.compute()
    theirs = {name: smp.metrics.iou_score(*stats, reduction=name).item() for name in ("micro", "micro-imagewise")}
    return {
        "dataset IoU": (scores["iou/foreground"], theirs["micro"]),
        "per-image IoU": (scores["image/iou/foreground"], theirs["micro-imagewise"]),
    }


def train(loss: str = "dice", epochs: int = 6) -> dict[str, tuple[float, float]]:
    """Train on synthetic pets; return the scores on others."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    images, trimaps = draw(128, generator)
    held_out, held_out_trimaps = draw(32, generator)
    masks, held_out_masks = (trimaps != BACKGROUND).long(), (held_out_trimaps != BACKGROUND).long()

    model = PetModel()
    takes = inspect.signature(unetzoo.LOSSES.get(loss)).parameters
    loss_function = unetzoo.LOSSES.build(loss, **({"mode": "binary"} if "mode" in takes else {}))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4)
    steps = epochs * len(images) // BATCH
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps, eta_min=1e-5)

    scores = {}
    for epoch in range(1, epochs + 1):
        model.train()
        for some, truth in batches(images, masks, torch.randperm(len(images), generator=generator)):
            value = loss_function(model(some), truth)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            scheduler.step()
        scores = evaluate(model, held_out, held_out_masks)
        text = ", ".join(f"{name} {ours:.4f} (SMP {theirs:.4f})" for name, (ours, theirs) in scores.items())
        print(f"epoch {epoch}: {text}")
    return scores


if __name__ == "__main__":
    train(sys.argv[1] if len(sys.argv) > 1 else "dice")
