"""Every network of ours is one graph for the compiler, in training and evaluation, whatever the size."""

import copy

import pytest
import torch
from conftest import image, tensors
from torch import nn

import unetzoo

SEEN = (48,)
LATER = (67, 64, 83, 49, 50, 51, 53)  # with every pattern of remainders on the way down


@pytest.fixture(autouse=True)
def nothing_compiled_before():
    torch.compiler.reset()  # other networks count towards the limit of recompilations
    yield
    torch.compiler.reset()


def images(net):
    """An upright batch at each size; a network that takes certain sizes alone gets as many of those."""
    draw = torch.Generator().manual_seed(0)
    for place, size in enumerate(SEEN + LATER):
        if net.geometry.step > 1:
            yield image(net, net.geometry.minimum + place * net.geometry.step)
        else:
            yield torch.randn(2, net.in_channels, size + 16, size, generator=draw)


def step(net, run, x):
    """Answers and gradients."""
    net.zero_grad()
    answers = tensors(run(x))
    sum(answer.square().mean() for answer in answers).backward()
    return [*answers, *(parameter.grad for parameter in net.parameters())]


def close(first, second):
    """To rounding, as a share of the largest number of each tensor."""
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
            module.p = 0.0  # the compiler draws other numbers
    twin = copy.deepcopy(net)
    compiled = torch.compile(twin, fullgraph=True, dynamic=True, backend=backend)
    for place, x in enumerate(images(net)):
        x = x.double()  # rounding decides which side of 0 a map is on, and gradients with it
        with torch.compiler.set_stance("default" if place < len(SEEN) else "fail_on_recompile"):
            if training:
                close(step(twin, compiled, x), step(net, net, x))
            else:
                with torch.no_grad():
                    close(tensors(compiled(x)), tensors(net(x)))
    close(twin.buffers(), net.buffers())
