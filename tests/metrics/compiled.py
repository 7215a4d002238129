"""The CUDA kernel, compiled for an absent GPU; run by test_kernels.py in a separate process."""

import itertools
import sys

import torch
import triton
from ahead import compiled
from packaging.version import Version

from unetzoo.metrics import kernels
from unetzoo.metrics.counting import LEAST, PixelBins


def counting(classes, dtype, labels, ignored=255, layout=torch.contiguous_format):
    logits = torch.empty(2, classes, 1024, 2048, dtype=dtype, device="meta").to(memory_format=layout)
    truth = torch.empty(2, 1024, 2048, dtype=labels, device="meta")
    values = len(PixelBins(classes).values)
    return lambda: kernels.count(logits, truth, ignored, least=LEAST, values=values)


def main(architecture):
    kinds = itertools.product((torch.bfloat16, torch.float32), (torch.uint8, torch.int64))
    made = compiled(
        architecture,
        *(counting(19, *kind) for kind in kinds),
        counting(19, torch.float16, torch.int64, layout=torch.channels_last),
        counting(2, torch.float32, torch.int64, ignored=None),
        counting(3, torch.float64, torch.int32, ignored=1),
        counting(kernels.MOST_CLASSES, torch.float32, torch.int64),
    )
    assert len(made) == 8
    for kernel in made:
        assert kernel.shared <= 16 * 1024, kernel[:4]
        if Version(triton.__version__) >= Version("3.8"):  # earlier ones spill registers
            assert kernel.registers <= 128 and not kernel.spilled, kernel[:4]  # eight programs per multiprocessor
    print("compiled")


if __name__ == "__main__":
    main(int(sys.argv[1]))
