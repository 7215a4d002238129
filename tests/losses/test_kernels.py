"""The Triton kernels: on any machine by the interpreter and the compiler, on a GPU directly.

Triton decides when it is imported whether it interprets, so both run in separate processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unetzoo.losses import BCELoss, CELoss, DiceCELoss, JaccardCELoss, fused

pytest.importorskip("triton")
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

INTERPRET = """

import numpy as np
import torch
from unetzoo.losses import kernels

torch.manual_seed(0)
rng = np.random.default_rng(0)
kernels.PROGRAMS, kernels.TILE = 3, 64  # several tiles a program, and several programs an image


def plain(x, t, w, ignore, softmax, slopes):
    '''Sums and gradient in float64 with one-hot maps.'''
    classes = x.shape[1] if softmax else 2
    wrong = ((t < 0) | (t >= classes)) & ((t != ignore) if ignore is not None else True)
    counted = ~wrong & ((t != ignore) if ignore is not None else True)
    w = w * counted
    if softmax:
        shifted = x - x.max(1, keepdims=True)
        total = np.exp(shifted).sum(1, keepdims=True)
        p, y = np.exp(shifted) / total, (t == np.arange(classes)[:, None]).astype(float)
        own = rest = np.log(total) - shifted
    else:
        p, y = 1 / (1 + np.exp(-x)), (t == 1).astype(float)
        own, rest = np.logaddexp(0, -x), np.logaddexp(0, x) * (1 - y)
    sums = np.stack([(w * part).sum(-1) for part in (p * y, p, y, np.ones_like(p), y * own, rest)], 1)
    i, a, _, _, h, r = (slopes[:, part, :, None] for part in range(6))
    to_p = a + i * y
    if softmax:
        gradient = p * (to_p - (p * to_p).sum(1, keepdims=True)) + (h * y).sum(1, keepdims=True) * p - h * y
        gradient += r.sum(1, keepdims=True) * p - r
    else:
        gradient = p * (1 - p) * to_p - h * y * (1 - p) + r * (1 - y) * p
    return sums, w * gradient, wrong.sum()


def compare(softmax, classes, dtype, ignore, weighted, labels_as, layout, scale=3.0):
    n, height, width = 2, 4, 40
    x = torch.randn(n, classes, height, width, dtype=torch.float64).mul(scale).to(dtype)
    if layout == "last":
        x = x.contiguous(memory_format=torch.channels_last)
    t = torch.randint(0, classes if softmax else 2, (n, 1 if softmax else classes, height, width))
    t[:, :, 0, :3] = 255
    t = (t.clamp(max=1) if labels_as == torch.bool else t).to(labels_as)
    w = torch.rand(n, 1, height, width) if weighted else None
    slopes = torch.randn(n, 6, classes, dtype=torch.float64)
    sums, faults = kernels.class_sums(x, t, w, ignore, softmax, True, True)
    gradient = kernels.gradient(slopes, x, t, w, ignore, softmax)
    assert gradient.dtype == dtype and gradient.stride() == x.stride()
    flat = lambda values: values.double().flatten(2).numpy()
    expected = plain(
        flat(x), t.long().flatten(2).numpy(), flat(w) if weighted else np.ones((n, 1, height * width)), ignore, softmax,
        slopes.numpy(),
    )
    bar = 1e-12 if dtype == torch.float64 else 1e-6
    np.testing.assert_allclose(sums.numpy(), expected[0], rtol=bar, atol=bar * np.abs(expected[0]).max())
    finest = {torch.float16: 1e-3, torch.bfloat16: 8e-3}.get(dtype, bar)
    worst = np.abs(flat(gradient) - expected[1]).max()
    assert worst <= finest * np.abs(expected[1]).max(), (worst, dtype)
    assert int(faults) == expected[2]


F64, F32, F16, BF16 = torch.float64, torch.float32, torch.float16, torch.bfloat16
for softmax in (True, False):
    for case in (
        (5, F64, 255, True, torch.int64, "first"),
        (3, F32, None, False, torch.int32, "last"),  # 255 is a wrong label here
        (2, BF16, 255, False, torch.uint8, "last"),
        (2, F16, None, True, torch.bool, "first"),
        (70, F32, 255, False, torch.uint8, "first"),
        (3, F32, 0, True, torch.int16, "first", 1000.0),  # certain, and a class that is ignored
    ):
        compare(softmax, *case)
compare(False, 1, F32, 255, True, torch.uint8, "first")

right = torch.tensor([20.0, -20.0]).view(1, 1, 1, 2)  # ln(1 + e⁻²⁰) = 2e-9, which 1 + e⁻²⁰ forgets
sums = kernels.class_sums(right, torch.tensor([1, 0]).view(1, 1, 1, 2), None, None, False, True, True)[0]
np.testing.assert_allclose(sums[0, 4:, 0], np.log1p(np.exp(-20.0)), rtol=1e-6)
nothing, none = torch.zeros(2, 3, 0, 4), torch.zeros(2, 1, 0, 4).long()
assert kernels.class_sums(nothing, none, None, None, True, True, True)[0].shape == (2, 6, 3)
assert kernels.gradient(torch.zeros(2, 6, 3), nothing, none, None, None, True).shape == nothing.shape
print("equal")
"""

COMPILE = """
import sys
import torch
from ahead import SHARED, compiled
from unetzoo.losses import kernels

architecture = int(sys.argv[1])


def both(shape, dtype, softmax, weighted=False, layout=torch.contiguous_format, labels=torch.int64, size=None):
    n, classes, height, width = shape
    wide = size or width  # rows of a cut-out are longer
    x = torch.empty(n, classes, height, wide, dtype=dtype, device="meta").to(memory_format=layout)[..., :width]
    t = torch.empty(n, 1 if softmax else classes, height, width, dtype=labels, device="meta")
    w = torch.empty(n, 1, height, width, device="meta") if weighted else None
    slopes = torch.empty(n, 6, classes, dtype=torch.float64, device="meta")

    def call():
        sums, faults = kernels.class_sums(x, t, w, 255 if weighted else None, softmax, True, weighted)
        assert sums.shape == (n, 6, classes) and faults.shape == ()
        assert kernels.gradient(slopes, x, t, w, 255 if weighted else None, softmax).shape == x.shape

    return call


B16, F32, F64, LAST = torch.bfloat16, torch.float32, torch.float64, torch.channels_last
published = compiled(
    architecture,
    both((8, 19, 1024, 2048), B16, True, weighted=True, layout=LAST, labels=torch.uint8),
    both((8, 19, 512, 1024), F32, True),
    both((1, 2, 388, 388), F32, True, weighted=True),
    both((16, 11, 256, 256), B16, True, size=300),
    both((8, 1, 512, 512), B16, False, weighted=True, labels=torch.bool),
    both((4, 3, 224, 224), F32, False, layout=LAST),
)
assert len(published) == 12, [kernel.name for kernel in published]
for kernel in published:
    assert kernel.shared <= 48 * 1024 and not kernel.spilled, kernel[:4]  # four programs and more to a processor
limits = compiled(
    architecture,
    both((2, kernels.MOST_CLASSES, 64, 64), F32, True, weighted=True),
    both((2, 19, 64, 64), F64, True, weighted=True),
    both((2, 3, 64, 64), F64, False),
)
for kernel in limits:
    assert kernel.shared <= SHARED[architecture], kernel[:4]
assert not any("atom." in kernel.ptx for kernel in published + limits)
print("compiled")
"""


def run(script: str, *args: str, **environment: str) -> str:
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *args], capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_interpreted_kernels_equal_the_plain_formula():
    assert "equal" in run(INTERPRET, TRITON_INTERPRET="1")


@pytest.mark.parametrize("architecture", ["80", pytest.param("90", marks=pytest.mark.slow)])
def test_they_compile_for_a_gpu_that_is_not_here(architecture, tmp_path):
    assert "compiled" in run(COMPILE, architecture, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))


def problem(softmax, dtype, size=(3, 130, 170)):
    generator = torch.Generator().manual_seed(0)
    channels = 19 if softmax else 3
    logits = 3 * torch.randn(size[0], channels, *size[1:], generator=generator)
    labels = torch.randint(0, channels if softmax else 2, (size if softmax else logits.shape), generator=generator)
    labels[..., :5] = 255
    return logits.to(dtype).cuda(), labels.to(torch.uint8).cuda(), torch.rand(size, generator=generator).cuda()


@on_gpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("loss", "softmax"),
    [
        (DiceCELoss("multiclass", ignore_index=255, label_smoothing=0.1), True),
        (JaccardCELoss("multilabel", ignore_index=255, per_image=True), False),
        (CELoss(ignore_index=255), True),
        (BCELoss(ignore_index=255), False),
    ],
    ids=["dice_ce", "jaccard_ce", "ce", "bce"],
)
def test_on_a_gpu_as_on_the_cpu_and_the_same_bits_every_time(loss, softmax, dtype):
    logits, labels, weight = problem(softmax, dtype)
    answers = []
    for values in (logits, logits, logits.cpu().double()):
        leaf = values.detach().requires_grad_()
        value = loss(leaf, labels.to(leaf.device), weight=weight.to(leaf.device))
        value.backward()
        answers.append((value.detach(), leaf.grad))
    (value, gradient), again, (true, slope) = answers
    assert fused._triton_for(logits) is not None
    assert torch.equal(value, again[0]) and torch.equal(gradient, again[1])
    assert value.item() == pytest.approx(true.item(), rel=1e-6)
    bar = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 1e-2}[dtype]
    assert (gradient.cpu().double() - slope).abs().max() <= bar * slope.abs().max() + 1e-7 * (dtype == torch.float16)


@on_gpu
def test_on_a_gpu_a_wrong_label_is_nan():
    logits, labels, _ = problem(True, torch.float32)
    assert DiceCELoss("multiclass")(logits, labels).isnan()


@on_gpu
def test_on_a_gpu_the_extra_memory_is_the_gradients():
    logits, labels, _ = problem(True, torch.bfloat16, (2, 512, 512))
    leaf = logits.requires_grad_()
    DiceCELoss("multiclass", ignore_index=255)(leaf, labels).backward()
    leaf.grad = None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    DiceCELoss("multiclass", ignore_index=255)(leaf, labels).backward()
    assert torch.cuda.max_memory_allocated() - before < 1.5 * leaf.nbytes
