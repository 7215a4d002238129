"""No network reads a number or a shape from the device, so its steps can be captured as a CUDA graph.

Tensors of the meta device hold no numbers. A network that runs there computes shapes from shapes alone, and
whatever it brings from the host is a tensor of another device.
"""

from contextlib import nullcontext

import pytest
import torch
from conftest import OURS, tensors
from fake_gpu import GPU, autocast, fake_gpu, moved
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import unetzoo
from unetzoo.recompute import save_memory
from unetzoo.registry import MODELS

SMP = [name for name in unetzoo.list_models("smp-*") if MODELS.entry(name).builtin]


class OnDevice(TorchDispatchMode):
    """Refuses operations with a tensor that is elsewhere."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, result)):
            if isinstance(tensor, torch.Tensor) and tensor.device.type != "meta":
                raise AssertionError(f"{func} takes or gives a tensor of the host, {tuple(tensor.shape)}")
        return result


def run(net, size=128):
    """Forward in evaluation, forward and backward in training."""
    net = net.to("meta")
    geometry = getattr(net, "geometry", None)
    size = geometry.fit(size) if geometry else size
    x = torch.empty(2, getattr(net, "in_channels", 3), size, size, device="meta")
    with OnDevice():
        with torch.no_grad():
            net.eval()(x)
        sum(answer.square().mean() for answer in tensors(net.train()(x))).backward()


@pytest.mark.parametrize("options", [{}, {"aux_params": {"classes": 2, "dropout": 0.1}}], ids=["plain", "aux"])
@pytest.mark.parametrize("name", OURS)
def test_our_networks_need_nothing_from_the_device(name, options):
    run(unetzoo.build(name, classes=2, encoder_channels=(4, 8, 8), **options))


@pytest.mark.parametrize("name", sorted(set(SMP) - {"smp-dpt"}))
def test_smps_networks_need_nothing_from_the_device(name):
    run(unetzoo.build(name, encoder_name="resnet18", classes=2))


class Asking(nn.Module):
    """A network that is not fit for capture."""

    def __init__(self, how):
        super().__init__()
        self.conv, self.how = nn.Conv2d(3, 2, 1), how

    def forward(self, x):
        x = self.conv(x)
        if self.how == "item":
            return x / x.max().item()
        if self.how == "nonzero":
            return x[x > 0]
        return x * torch.tensor([0.5]).to(x.device)


@pytest.mark.parametrize("how", ["item", "nonzero", "host"])
def test_a_network_that_asks_is_seen(how):
    with pytest.raises((RuntimeError, NotImplementedError, AssertionError), match=r"(?i)meta|host|data"):
        run(Asking(how))


@pytest.mark.parametrize("precision", [None, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("saving", [nullcontext, save_memory], ids=["plain", "saving memory"])
@pytest.mark.parametrize("name", OURS)
def test_our_networks_need_nothing_from_the_device_under_autocast(name, saving, precision):
    with fake_gpu() as waiting:
        net = moved(unetzoo.build(name, classes=2, encoder_channels=(4, 8, 8))).train()
        size = net.geometry.fit(64)
        x = torch.empty(2, net.in_channels, size, size, device=GPU).to(memory_format=torch.channels_last)
        with autocast(precision), saving():
            answers = tensors(net(x))
        assert {answer.dtype for answer in answers} <= {precision or torch.float32, torch.float32}
        assert answers[0].dtype == (precision or torch.float32)
        assert {answer.device for answer in answers} == {GPU} and not waiting.seen


@pytest.mark.parametrize("name", OURS)
def test_a_region_needs_nothing_from_the_device(name):
    with fake_gpu() as waiting, torch.inference_mode():
        net = moved(unetzoo.build(name, classes=2, encoder_channels=(4, 8, 8))).eval()
        if not net.decodes_regions:
            pytest.skip("answers its whole image")
        size = net.geometry.fit(128)
        images = torch.empty(1, net.in_channels, size, size, device=GPU)
        answers = tensors(net.decode_region(images, (range(5, 30), range(8, 40))))
        assert {tuple(answer.shape[-2:]) for answer in answers} == {(25, 32)} and not waiting.seen
