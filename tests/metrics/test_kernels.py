"""The CUDA kernel counts like the plain path: in Triton's interpreter, and compiled, without a device."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")


def run(script, *args, **environment):
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path} | environment
    command = [sys.executable, Path(__file__).with_name(script), *args]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done.stdout or done.stderr


def test_in_the_interpreter():
    assert run("interpreted.py", TRITON_INTERPRET="1") == "equal\n"


@pytest.mark.parametrize("architecture", ["80", pytest.param("90", marks=pytest.mark.slow)])
def test_it_compiles_for_a_gpu_that_is_not_here(architecture, tmp_path):
    assert run("compiled.py", architecture, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path)) == "compiled\n"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_the_device_without_a_wait():
    from unetzoo.metrics import SegmentationMetric, counting

    logits = torch.randn(2, 19, 96, 70, device="cuda")
    truth = torch.randint(0, 20, (2, 96, 70), device="cuda")
    truth[truth == 19] = 255
    assert counting._kernels(logits.device) is not None
    metrics = [SegmentationMetric(num_classes=19, ignore_index=255, per_image=per_image) for per_image in (False, True)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for metric in metrics:
            metric.update(logits, truth)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    kernel, plain = (metric.confusion.cpu() for metric in metrics)
    assert kernel.sum() == (truth != 255).sum() and torch.equal(kernel, plain)
