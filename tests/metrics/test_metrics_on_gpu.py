"""No update of a metric makes the host wait for a GPU, or mixes devices (on one that is not there; see `fake_gpu`)."""

import pytest
import torch
from fake_gpu import GPU, fake_gpu

from unetzoo.metrics import counting
from unetzoo.registry import METRICS

CASES = [
    ("segmentation", {"num_classes": 3}, 3),
    ("segmentation", {"num_classes": 3, "per_image": True, "one_vs_rest": 0.5}, 3),
    ("segmentation", {"num_classes": 1}, 1),
    ("segmentation", {"num_classes": 3, "mode": "multilabel"}, 3),
    ("depth", {}, 1),
    ("ssim", {}, 1),
    ("psnr", {}, 1),
    ("sweep", {}, 1),
]


@pytest.mark.parametrize(("name", "options", "channels"), CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_no_update_waits(name, options, channels, dtype, monkeypatch):
    monkeypatch.setattr(counting, "_kernels", lambda device: None)  # they need a GPU that is there
    metric = METRICS.build(name, **options)
    with fake_gpu() as waiting:
        output = torch.empty(2, channels, 32, 32, device=GPU, dtype=dtype)
        planes = name in ("depth", "ssim", "psnr")
        shape = output.shape if planes or options.get("mode") else (2, 32, 32)
        target = torch.empty(shape, device=GPU, dtype=torch.float32 if planes else torch.int64)
        for _ in range(2):  # the second adds to a state that is there
            metric.update(output, target)
            metric.update(output, target, weight=torch.empty(2, 32, 32, device=GPU, dtype=torch.bool))
        assert {part.device for part in metric.state().values()} == {GPU} and not waiting.seen
