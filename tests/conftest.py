import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import pytest
import torch

import unetzoo
from unetzoo.registry import MODELS

torch.set_num_threads(1)  # the networks here are tiny; threads would only wait for each other

OURS = [name for name in unetzoo.list_models() if MODELS.entry(name).builtin and not name.startswith("smp-")]


def tiny(name, **config):
    """A model of ours at a few channels a level and its own number of levels."""
    levels = 4 if name == "ddunet" else 5
    return unetzoo.build(name, **{"encoder_channels": (4, *[8] * (levels - 1)), **config})


def picture(net, size=48, batch=2):
    """A batch that a network takes, at the smallest legal size from `size` on."""
    size = net.geometry.fit(size)
    return torch.randn(batch, net.in_channels, size, size, generator=torch.Generator().manual_seed(0))


def tensors(output):
    """All tensors of an output, in order."""
    return [output] if isinstance(output, torch.Tensor) else [t for part in output for t in tensors(part)]


@pytest.fixture(params=OURS)
def model_name(request):
    return request.param
