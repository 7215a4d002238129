"""Checks of encoders: SMP's feature pyramid, which our networks and SMP's decoders require."""

from __future__ import annotations

import segmentation_models_pytorch as smp
import torch

from .case import Case
from .inputs import stream
from .kit import check, require

KIND = "encoder"


@check(KIND, first=True)
def pyramid(case: Case) -> None:
    """Decoders size their layers by `out_channels` and expect one feature map per level, each half as large."""
    for depth in (3, 5):
        encoder = case.build(depth=depth)
        side = case.size or 64
        x = torch.randn(2, case.default("in_channels", 3), side, side, generator=stream())
        with torch.no_grad():
            features = encoder.eval()(x)
        channels = [feature.shape[1] for feature in features]
        require(channels == list(encoder.out_channels), f"channels {list(encoder.out_channels)} at depth {depth}",
                channels)  # fmt: skip
        sizes = [feature.shape[-1] for feature in features]
        require(sizes == [side // 2**level for level in range(depth + 1)],
                f"{depth + 1} maps, each half as large as the one before", sizes)  # fmt: skip


@check(KIND)
def smp_decoder(case: Case) -> None:
    """An encoder must work with every SMP decoder and any number of input channels."""
    name = "unetzoo-check-encoder"
    smp.encoders.encoders[name] = {"encoder": case.build, "params": {}, "pretrained_settings": {}}
    try:
        net = smp.Unet(name, encoder_weights=None, encoder_depth=3, decoder_channels=(16, 8, 4), in_channels=2)
    finally:
        del smp.encoders.encoders[name]
    output = net(torch.randn(2, 2, 32, 32, generator=stream()))
    require(tuple(output.shape) == (2, 1, 32, 32), "a mask of shape (2, 1, 32, 32) in smp.Unet", tuple(output.shape))


@check(KIND)
def gradients(case: Case) -> None:
    """A parameter without a gradient is never trained."""
    encoder = case.build(depth=5).train()
    side = case.size or 64
    features = encoder(torch.randn(2, case.default("in_channels", 3), side, side, generator=stream()))
    terms = [(f * torch.randn(f.shape, generator=stream(1))).sum() for f in features if f.requires_grad]
    torch.stack(terms).sum().backward()
    missing = [name for name, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    require(not missing, "a gradient for every parameter", f"none for {', '.join(missing[:4])}")
