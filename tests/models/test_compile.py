"""torch.compile captures every network as one graph, in training and evaluation, for all image sizes."""

import copy

import pytest
import torch
from conftest import image, tensors
from packaging.version import Version
from torch import nn

import unetzoo

SEEN = (48,)
LATER = (67, 64, 83, 49, 50, 51, 53)  # every pattern of remainders on the way down
# Before 2.14, max pooling of an even and of an odd side are two graphs.
FIXED_POOLING = Version(torch.__version__) >= Version("2.14")


@pytest.fixture(autouse=True)
def empty_compile_cache():
    torch.compiler.reset()  # other networks count toward the recompilation limit
    yield
    torch.compiler.reset()


def images(net):
    """Yield one portrait batch per size, or as many valid sizes for a network that accepts only certain ones."""
    draw = torch.Generator().manual_seed(0)
    for place, size in enumerate(SEEN + LATER):
        if net.geometry.step > 1:
            yield image(net, net.geometry.minimum + place * net.geometry.step)
        else:
            yield torch.randn(2, net.in_channels, size + 16, size, generator=draw)


def step(net, run, x):
    """Return outputs and gradients."""
    net.zero_grad()
    outputs = tensors(run(x))
    sum(output.square().mean() for output in outputs).backward()
    return [*outputs, *(parameter.grad for parameter in net.parameters())]


def assert_close(first, second):
    """Compare to rounding error, relative to the largest number of each tensor."""
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-8 * float(b.detach().abs().max()) + 1e-12)


@pytest.mark.parametrize(
    ("backend", "training"),
    [
        ("eager", False),
        pytest.param("aot_eager", True, marks=pytest.mark.slow),
        pytest.param("inductor", False, marks=pytest.mark.slow),
        pytest.param("inductor", True, marks=pytest.mark.slow),
    ],
    ids=["traced", "traced with gradients", "evaluation", "training"],
)
def test_one_graph_serves_all_sizes(model_name, backend, training):
    torch.manual_seed(0)
    net = unetzoo.build(model_name, classes=2, encoder_channels=(4, 8, 8)).double().train(training)
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # compiled dropout draws other numbers
    twin = copy.deepcopy(net)
    compiled = torch.compile(twin, fullgraph=True, dynamic=True, backend=backend)
    for place, x in enumerate(images(net)):
        x = x.double()  # rounding error can change the sign of an activation, and with it the gradients
        seen = place < len(SEEN) or not FIXED_POOLING
        with torch.compiler.set_stance("default" if seen else "fail_on_recompile"):
            if training:
                assert_close(step(twin, compiled, x), step(net, net, x))
            else:
                with torch.no_grad():
                    assert_close(tensors(compiled(x)), tensors(net(x)))
    assert_close(twin.buffers(), net.buffers())
