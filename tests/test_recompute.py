"""Saving memory: the ordinary pass's outputs, gradients and statistics, bit for bit, with fewer maps kept."""

import copy
import threading

import pytest
import segmentation_models_pytorch as smp
import torch
from conftest import OURS, SOME, image, tensors, tiny
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import unetzoo
from benchmarks.structure import Case
from unetzoo.errors import UnknownKeywordError
from unetzoo.recompute import save_memory

VARIANTS = [
    *[(name, {}) for name in OURS],
    ("unet", {"padding": "same", "dropout": 0.2}),
    ("bnunet", {"up": "bilinear", "hidden_act": "silu"}),
    ("bnunet", {"up": "upsample_conv", "order": "conv-act-bn", "align": "pad", "hidden_act": {"type": "prelu"}}),
    ("r2unet", {"variant": "stepwise"}),
    ("r2unet", {"variant": "paper"}),
    ("r2unet", {"variant": "cityscapes", "hidden_act": "gelu"}),
    ("dualunet", {"encoder_channels": None, "encoder_name": "resnet18", "encoder_depth": 3}),
]


class Saving(nn.Module):
    """A network that always saves memory."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        with save_memory():
            return self.net(x)


def pair(name, **config):
    """A network and its twin that saves memory."""
    torch.manual_seed(0)
    net = tiny(name, **config) if config.get("encoder_name") is None else unetzoo.build(name, **config)
    return net, Saving(copy.deepcopy(net))


def step(net, x, run=None):
    """Loss of one training step; gradients stay with the network."""
    torch.manual_seed(1)  # dropout
    loss = sum(t.float().square().mean() for t in tensors((net if run is None else run)(x)))
    loss.backward()
    return loss.detach()


def assert_same(net, lean):
    for (name, p), q in zip(net.named_parameters(), lean.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None) and (p.grad is None or torch.equal(p.grad, q.grad)), name
    for (name, b), c in zip(net.named_buffers(), lean.buffers(), strict=True):
        assert torch.equal(b, c), name


@pytest.mark.parametrize(("name", "config"), VARIANTS)
@pytest.mark.parametrize("size", [53])
def test_the_ordinary_networks_step(name, config, size):
    net, lean = pair(name, **config)
    x = image(net, size)
    for _ in range(2):
        assert torch.equal(step(net, x), step(lean, x))
    assert_same(net, lean)


def test_evaluation_mode_frozen_parts_and_gradients_of_the_image():
    net, lean = pair("r2unet")
    x = image(net)
    for each in (net, lean):
        getattr(each, "net", each).freeze_encoder()
        step(each.train(), x)
    assert_same(net, lean)
    slopes = []
    for each in (net, lean):
        getattr(each, "net", each).unfreeze_encoder()
        leaf = x.clone().requires_grad_()
        step(each.eval(), leaf)
        slopes.append(leaf.grad)
    assert torch.equal(*slopes)
    assert_same(net, lean)
    with torch.no_grad():
        assert torch.equal(net(x), lean(x))


def test_autocast():
    net, lean = pair("bnunet")
    x = image(net)
    for each in (net, lean):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            step(each, x)
    assert_same(net, lean)


def test_backward_twice_and_under_autocast():
    net, lean = pair("bnunet")
    x = image(net)
    for each in (net, lean):
        loss = each(x).square().mean()
        loss.backward(retain_graph=True)
        loss.backward()
    assert_same(net, lean)
    net, lean = pair("bnunet")
    loss = lean(x).square().mean()
    with torch.autocast("cpu", dtype=torch.bfloat16):  # against the advice, yet it must not break
        loss.backward()
    step(net, x)
    for p, q in zip(net.parameters(), lean.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=0.05, atol=0.05 * float(p.grad.abs().max()) + 1e-9)


class Unit(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(6, 2, 3, padding=1)
        self.norm, self.act = nn.BatchNorm2d(3), act

    def forward(self, x):
        y = self.act(self.norm(self.first(x)))
        return self.second(torch.cat([y, nn.functional.interpolate(nn.functional.max_pool2d(y, 2), scale_factor=2)], 1))


def test_first_and_second_derivatives():
    torch.manual_seed(0)
    unit = Unit(nn.Tanh()).double()

    def run(x, *parameters):
        with save_memory():
            return torch.func.functional_call(unit, dict(zip(names, parameters, strict=True)), x)

    names, parameters = zip(*unit.named_parameters(), strict=True)
    inputs = [torch.randn(2, 2, 4, 4, dtype=torch.double, requires_grad=True), *parameters]
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_deep_residual_chains_of_other_networks():
    torch.manual_seed(0)
    net = smp.Unet("resnet18", encoder_weights=None)
    other = copy.deepcopy(net)
    x = torch.randn(2, 3, 64, 64)

    def run(x):
        with save_memory():
            return other(x)

    assert torch.equal(step(net, x), step(other, x, run))
    assert_same(net, other)


def test_maps_that_are_overwritten_later_are_not_lost():
    torch.manual_seed(0)
    net, x = nn.Conv2d(2, 2, 3, padding=1), torch.randn(1, 2, 6, 6)

    def run(x):
        first = net(x)
        added = first + 1.0  # made of a map that the next line destroys
        first.mul_(2.0)
        half = added[:, :1]
        return net(net(added.relu_()) + first) * half

    step(net, x, run)
    wanted = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    with save_memory():
        torch.manual_seed(1)
        loss = run(x).square().mean()
    loss.backward()
    assert all(torch.equal(p.grad, w) for p, w in zip(net.parameters(), wanted, strict=True))


def test_weights_changed_before_the_backward_pass_are_an_error():
    net = tiny("bnunet")
    loss = Saving(net)(image(net)).mean()
    with torch.no_grad():
        net.encoder.blocks[0][1][0].weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_no_tensors_are_kept_after_the_step(model_name):
    net = tiny(model_name)
    lean = Saving(net)
    kept = []
    for layer in lean.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _m, _i, out: kept.append(torch.UntypedStorage._weak_ref(
                out.untyped_storage())))  # fmt: skip
    step(lean, image(net))
    alive = [ref for ref in kept if not torch.UntypedStorage._expired(ref)]
    for ref in kept:
        torch.UntypedStorage._free_weak_ref(ref)
    assert not alive


# Shares of the ordinary network's: bytes after the forward pass, and the most during both passes. U-Net has no norm
# and DDU-Net's non-linearities come before its norms, so there is less to recompute.
SHARES = {"unet": (0.76, 0.84), "bnunet": (0.47, 0.60), "r2unet": (0.36, 0.44), "ddunet": (0.52, 0.69),
          "dualunet": (0.48, 0.58)}  # fmt: skip


@pytest.mark.parametrize("name", OURS)
def test_memory(name):
    size = unetzoo.build(name, encoder_channels=(1,) * (4 if name == "ddunet" else 5)).geometry.fit(256)
    usual, lean = (Case(name, (size, size), 8, save_memory=saves).count() for saves in (False, True))
    kept, peak = SHARES[name]
    assert lean.kept <= kept * usual.kept and lean.peak <= peak * usual.peak
    assert sum(op.flops for op in lean.backward) == sum(op.flops for op in usual.backward)  # no convolution twice
    assert len(lean.forward) == len(usual.forward)


def test_networks_have_no_argument_for_it(model_name):
    with pytest.raises(UnknownKeywordError):
        tiny(model_name, lean=True)
    assert "lean" not in tiny(model_name).config


@pytest.mark.parametrize("model_name", SOME)
def test_compiled_networks_choose_by_themselves(model_name):
    torch.compiler.reset()
    net = tiny(model_name).train()
    step(net, image(net), torch.compile(Saving(net), fullgraph=True, backend="aot_eager"))
    assert all(p.grad is not None for p in net.parameters())


def test_exports():
    net = tiny("bnunet").eval()
    program = torch.export.export(Saving(net), (image(net),), strict=True)
    torch.testing.assert_close(program.module()(image(net)), net(image(net)))


def test_function_transforms_give_the_same_gradients():
    net, x = tiny("bnunet").double().eval(), image(tiny("bnunet")).double()
    parameters = dict(net.named_parameters())

    def loss(parameters, model):
        return torch.func.functional_call(model, parameters, x).square().mean()

    wanted = torch.autograd.grad(loss(parameters, copy.deepcopy(net)), list(parameters.values()))
    found = torch.func.grad(loss)({f"net.{name}": p for name, p in parameters.items()}, Saving(copy.deepcopy(net)))
    for gradient, name in zip(wanted, parameters, strict=True):
        torch.testing.assert_close(found[f"net.{name}"], gradient)


def test_an_error_inside_leaves_no_files():
    net = tiny("bnunet")
    with pytest.raises(ZeroDivisionError), save_memory():
        net(image(net))
        raise ZeroDivisionError
    other = copy.deepcopy(net)
    assert torch.equal(step(net, image(net)), step(other, image(net)))
    assert_same(net, other)


def test_other_threads_are_not_touched():
    net, entered, done = tiny("bnunet"), threading.Event(), threading.Event()
    kept = []

    def plain():
        entered.wait(10)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            net(image(net)).mean().backward()
        done.set()

    thread = threading.Thread(target=plain)
    thread.start()
    with save_memory():
        entered.set()
        assert done.wait(60)
    thread.join()
    assert kept


def test_the_trainer_has_a_setting_for_it():
    losses = []
    for saves in (False, True):
        torch.manual_seed(0)
        net = tiny("bnunet", in_channels=3)
        data = [{"image": torch.rand(3, 32, 32), "mask": torch.ones(32, 32, dtype=torch.int64)} for _ in range(2)]
        trainer = unetzoo.Trainer(
            net, unetzoo.LOSSES.build("bce"), steps=2, batch_size=2, progress=False, save_memory=saves
        )
        trainer.fit(data, None)
        losses.append(tensors(list(net.parameters())))
    assert all(torch.equal(a, b) for a, b in zip(*losses, strict=True))


def test_distributed(tmp_path):
    net, lean = pair("bnunet")
    x = image(net)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        step(lean, x, DistributedDataParallel(lean))
    finally:
        torch.distributed.destroy_process_group()
    step(net, x)
    assert_same(net, lean)
