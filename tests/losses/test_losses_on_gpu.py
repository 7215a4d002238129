"""No loss makes the host wait for a GPU, or mixes devices (on a GPU that is not there; see `fake_gpu`)."""

import pytest
import torch
from fake_gpu import GPU, fake_gpu, moved
from torch import nn

from unetzoo.losses import BoundaryLoss
from unetzoo.registry import LOSSES, keywords

PLANES = {"l1", "rmse", "berhu", "silog", "gradient", "depth_ssim", "ssim", "ms_ssim"}
ON_THE_HOST = {"smp-lovasz"}  # SMP's own drops ignored pixels one by one, and so reads back how many are left
OURS = [name for name in LOSSES.names() if LOSSES.entry(name).builtin and name not in {"multitask", *ON_THE_HOST}]


def cases(name):
    known = keywords(LOSSES.get(name))
    modes = ("multiclass", "multilabel", "binary") if "mode" in known else (None,)
    for mode in modes:
        options = {"mode": mode} if mode else {}
        yield options
        if mode != "binary" and "class_weights" in known:
            yield {**options, "class_weights": [1.0, 2.0, 3.0]}
        if mode in ("multiclass", "multilabel") and "classes" in known:
            yield {**options, "classes": [0, 2]}


def batch(name, mode):
    """Output and target on the fake GPU."""
    if name in PLANES:
        return torch.empty(2, 1, 192, 192, device=GPU), torch.empty(2, 1, 192, 192, device=GPU)
    channels = 1 if mode == "binary" or name == "smp-mcc" else 3
    each = mode == "multilabel" or (mode is None and name in {"bce", "smp-softbce"})
    shape = (2, channels, 16, 16) if each else (2, 16, 16)
    output = torch.empty(2, channels, 16, 16, device=GPU, dtype=torch.bfloat16)
    return output, torch.empty(shape, dtype=torch.int64, device=GPU)


@pytest.mark.parametrize("name", OURS)
def test_no_loss_waits(name):
    for options in cases(name):
        loss = LOSSES.build(name, **options)
        with fake_gpu() as waiting:
            loss = moved(loss) if isinstance(loss, nn.Module) else loss
            value = loss(*batch(name, options.get("mode")))
            assert value.device == GPU and value.shape == () and not waiting.seen, options


@pytest.mark.parametrize("empty", ["skip", "penalize"])
def test_distances_that_are_given_are_not_waited_for(empty):
    with fake_gpu() as waiting:
        output, target = batch("boundary", "multiclass")
        BoundaryLoss("multiclass", classes=[1], empty=empty)(output, target, distance=torch.empty_like(output))
        assert not waiting.seen
