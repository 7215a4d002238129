"""Blocks and networks against the papers' formulas, written again in a few lines each."""

import numpy as np
import pytest
import torch
from torch.nn.functional import batch_norm, conv2d, conv_transpose2d, interpolate, max_pool2d, relu
from unetzoo_attention.gates import Gate, GridGate
from unetzoo_attention.r2attention_unet import RecurrentUnit
from unetzoo_attention.resunet import ResidualUnit
from unetzoo_attention.rsu import RSU
from unetzoo_attention.unetplusplus import UNetPlusPlus

from unetzoo.models import SegmentationModel

NORM = ("running_mean", "running_var", "weight", "bias")


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def drawn(module):
    """The module in evaluation mode, all its state drawn: also batch norms, which start as the identity."""
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.5 if "var" in name else 0.3 * torch.randn_like(value))
    return module.eval()


def arrays(module):
    return {name: value.numpy() for name, value in module.state_dict().items()}


def numpy_pointwise(x, state, conv, norm=None):
    """1×1 convolution (C, H, W) and batch norm, in NumPy."""
    y = np.einsum("oi,ihw->ohw", state[f"{conv}.weight"][:, :, 0, 0], x) + state[f"{conv}.bias"][:, None, None]
    if norm is None:
        return y
    mean, var, scale, shift = (state[f"{norm}.{part}"][:, None, None] for part in NORM)
    return (y - mean) / np.sqrt(var + 1e-5) * scale + shift


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_common_gate_is_its_formula():
    gate = drawn(Gate(6))
    skip, fine = torch.randn(2, 1, 6, 5, 4)
    state = arrays(gate)
    inner = numpy_pointwise(fine[0].numpy(), state, "gating.0", "gating.1")
    inner = inner + numpy_pointwise(skip[0].numpy(), state, "skip.0", "skip.1")
    alpha = sigmoid(numpy_pointwise(np.maximum(inner, 0), state, "attention.1", "attention.2"))
    found = gate(skip, fine, torch.empty(0))[0].detach().numpy()
    np.testing.assert_allclose(found, skip[0].numpy() * alpha, rtol=1e-10)


def test_the_papers_gate_is_equation_1_on_the_coarse_grid():
    gate = drawn(GridGate(3, 5))
    skip, coarse = torch.randn(1, 3, 8, 6), torch.randn(1, 5, 4, 3)
    state, x = arrays(gate), skip[0].numpy()
    blocks = x.reshape(3, 4, 2, 3, 2)  # 2×2 blocks of the skip
    down = np.einsum("oiab,ihawb->ohw", state["skip.weight"], blocks)
    inner = np.maximum(down + numpy_pointwise(coarse[0].numpy(), state, "gating"), 0)
    alpha = sigmoid(numpy_pointwise(inner, state, "attention.1"))[0]
    found = (gate(skip, torch.empty(0), coarse)[0] / skip[0]).detach().numpy()
    np.testing.assert_allclose(found, np.broadcast_to(twice_bilinear(alpha), found.shape), rtol=1e-8)


def twice_bilinear(grid):
    """Each fine pixel: 3/4 of its own block, 1/4 of the nearer neighbor; the border repeated."""
    for axis in (0, 1):
        grid = np.moveaxis(grid, axis, 0)
        padded = np.concatenate([grid[:1], grid, grid[-1:]])
        fine = np.stack([0.75 * grid + 0.25 * padded[:-2], 0.75 * grid + 0.25 * padded[2:]], axis=1)
        grid = np.moveaxis(fine.reshape(-1, grid.shape[1]), 0, axis)
    return grid


def functional(state):
    """Convolution units by name: convolution (any dilation), batch norm if there is one, ReLU."""

    def unit(x, name, dilation=1):
        x = conv2d(x, state[f"{name}.0.weight"], state[f"{name}.0.bias"], padding=dilation, dilation=dilation)
        return relu(normed(x, f"{name}.1"))

    def normed(x, name):
        mean, var, weight, bias = (state[f"{name}.{part}"] for part in NORM)
        return batch_norm(x, mean, var, weight, bias)

    return unit, normed


def test_the_recurrent_unit_applies_each_layer_t_plus_1_times():
    net = drawn(RecurrentUnit(3, 4, t=2))
    state = net.state_dict()
    unit, _ = functional(state)
    x = torch.randn(1, 3, 6, 5)
    projected = conv2d(x, state["project.weight"], state["project.bias"])
    inner = projected
    for layer in ("layers.0.unit", "layers.1.unit"):
        first = unit(inner, layer)
        second = unit(inner + first, layer)
        inner = unit(inner + second, layer)
    torch.testing.assert_close(net(x), projected + inner)


def test_the_residual_unit_is_pre_activated():
    net = drawn(ResidualUnit(3, 4, stride=2))
    state = net.state_dict()
    _, normed = functional(state)
    x = torch.randn(1, 3, 7, 6)
    inner = conv2d(relu(normed(x, "layers.0")), state["layers.2.weight"], stride=2, padding=1)
    inner = conv2d(relu(normed(inner, "layers.3")), state["layers.5.weight"], padding=1)
    torch.testing.assert_close(net(x), inner + conv2d(x[..., ::2, ::2], state["project.weight"]))


def test_the_first_residual_unit_begins_with_its_convolution():
    first = drawn(ResidualUnit(3, 4, plain_start=True))
    assert type(first.layers[0]) is torch.nn.Conv2d
    assert sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in first.layers) == 1


@pytest.mark.parametrize(("height", "dilated"), [(5, False), (4, True)])
def test_the_residual_u_block_is_its_recursion(height, dilated):
    net = drawn(RSU(height, 3, 2, 4, dilated=dilated))
    unit, _ = functional(net.state_dict())
    last = height - 2  # of the levels above the bottom

    def around(x, level):
        """A level of the U: encoder, the levels below, decoder."""
        dilation = 2**level if dilated else 1
        down = unit(x, f"down.{level}", dilation)
        if level == last:
            below = unit(down, "bottom", 2 * dilation)
        elif dilated:
            below = around(down, level + 1)
        else:
            below = around(max_pool2d(down, 2, ceil_mode=True), level + 1)
            below = interpolate(below, size=down.shape[2:], mode="bilinear", align_corners=False)
        return unit(torch.cat([below, down], 1), f"up.{last - level}", dilation)

    x = torch.randn(1, 3, 19, 14)
    entry = unit(x, "entry")
    torch.testing.assert_close(net(x), entry + around(entry, 0))


def nested_node(state, unit, x, i, j):
    """X(i, j) of UNet++ by equation 1, each node computed from the image anew."""
    if j == 0:
        x = x if i == 0 else max_pool2d(nested_node(state, unit, x, i - 1, 0), 2)
        return unit(unit(x, f"encoder.blocks.{i}.0"), f"encoder.blocks.{i}.1")
    up = f"decoder.ups.{i}_{j}"
    below = nested_node(state, unit, x, i + 1, j - 1)
    below = conv_transpose2d(below, state[f"{up}.weight"], state[f"{up}.bias"], stride=2)
    row = [nested_node(state, unit, x, i, k) for k in range(j)]
    x = torch.cat([*row, below], 1)
    return unit(unit(x, f"decoder.nodes.{i}_{j}.0"), f"decoder.nodes.{i}_{j}.1")


def test_the_nested_network_is_equation_1_and_its_mask_the_branches_mean():
    net: SegmentationModel = drawn(UNetPlusPlus(classes=2, encoder_channels=(2, 3, 4, 5), deep_supervision=True))
    state = net.state_dict()
    unit, _ = functional(state)
    x = torch.randn(1, 3, 16, 8)
    weight, bias = state["segmentation_head.0.weight"], state["segmentation_head.0.bias"]
    branches = [conv2d(nested_node(state, unit, x, 0, j), weight[:, 2 * (j - 1) : 2 * j], bias) for j in range(1, 4)]
    torch.testing.assert_close(net(x), sum(branches) / 3)
    for level, branch in enumerate(branches, start=1):
        torch.testing.assert_close(net.pruned(level)(x), branch)
