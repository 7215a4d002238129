"""A training script written for segmentation-models-pytorch (SMP), run with SMP's Unet and with ours.

Only the constructor differs. Parameter groups per part, a replaced head, a frozen encoder, `predict` and
`save_pretrained` follow SMP's conventions. Runs in seconds on a CPU, on synthetic images.

    python examples/smp_dropin.py smp
    python examples/smp_dropin.py unetzoo
"""

import sys
import tempfile

import segmentation_models_pytorch as smp
import torch

import unetzoo


def make_model(library: str) -> smp.base.SegmentationModel:
    """The one line that differs."""
    if library == "smp":
        return smp.Unet("resnet18", encoder_weights=None, in_channels=3, classes=1)
    return unetzoo.build("bnunet", encoder_channels=[16, 32, 64, 128], in_channels=3, classes=1)


def draw(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy images with a brighter disc, and the disc's mask."""
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    center = torch.rand(count, 2, 1, 1, generator=generator) * 32 + 16
    mask = ((rows - center[:, 0]) ** 2 + (columns - center[:, 1]) ** 2 < 12**2).float()[:, None]
    return torch.rand(count, 3, 64, 64, generator=generator) * 0.6 + mask * 0.4, mask


def train(library: str) -> float:
    """Train as in SMP's examples; return the IoU on unseen images."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = make_model(library)

    head = model.segmentation_head[0]
    model.segmentation_head[0] = torch.nn.Conv2d(head.in_channels, 1, head.kernel_size, padding=head.padding)

    optimizer = torch.optim.Adam(
        [
            {"params": model.encoder.parameters(), "lr": 1e-3},
            {"params": model.decoder.parameters(), "lr": 2e-3},
            {"params": model.segmentation_head.parameters(), "lr": 2e-3},
        ]
    )
    loss_function = smp.losses.DiceLoss(mode="binary", from_logits=True)

    model.train()
    for step in range(60):
        if step == 45:
            model.freeze_encoder()
        images, masks = draw(4, generator)
        loss = loss_function(model(images), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        model = unetzoo.from_pretrained(folder)

    images, masks = draw(16, generator)
    predicted = model.predict(images) > 0
    tp, fp, fn, tn = smp.metrics.get_stats(predicted.long(), masks.long(), mode="binary")
    return smp.metrics.iou_score(tp, fp, fn, tn, reduction="micro").item()


if __name__ == "__main__":
    for name in sys.argv[1:] or ["smp", "unetzoo"]:
        print(f"{name}: IoU {train(name):.3f}")
