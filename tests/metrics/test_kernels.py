"""The CUDA kernel counts what the plain path counts: in Triton's interpreter, which needs no device."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")


def test_in_the_interpreter():
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name("interpreted.py")
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert done.stdout == "equal\n", done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_the_device_without_a_wait():
    from unetzoo.metrics import SegmentationMetric, counting

    logits = torch.randn(2, 19, 96, 70, device="cuda")
    truth = torch.randint(0, 20, (2, 96, 70), device="cuda")
    truth[truth == 19] = 255
    assert counting._kernels(logits.device) is not None
    metrics = [SegmentationMetric(classes=19, ignore_index=255, per_image=per_image) for per_image in (False, True)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for metric in metrics:
            metric.update(logits, truth)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    kernel, plain = (metric.confusion.cpu() for metric in metrics)
    assert kernel.sum() == (truth != 255).sum() and torch.equal(kernel, plain)
