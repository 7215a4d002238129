"""Compiles Triton's kernels for an absent GPU, through the calls that would launch them.

Imported in a process of its own: what Triton takes for its driver is replaced, and nothing is ever launched. Tensors
of the meta device will do: of them a compiler wants types, strides and alignment.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

SHARED = {80: 163 * 1024, 90: 227 * 1024}  # bytes that a block of threads may have, by architecture


class Made(NamedTuple):
    """A compiled kernel: what each of its threads keeps in registers, and what did not fit there, in bytes."""

    name: str
    shared: int
    registers: int
    spilled: int
    ptx: str


class Absent:
    """The driver of a GPU that is not here."""

    def __init__(self, architecture: int) -> None:
        self.target = GPUTarget("cuda", architecture, 32)

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


def compiled(architecture, *calls):
    """The kernels that some calls would launch on a GPU of this architecture, each kind once."""
    made = {}
    driver.set_active(Absent(architecture))
    run = JITFunction.run
    torch.cuda.device_of = lambda tensor: contextlib.nullcontext()

    def compiling(self, *args, grid, warmup, **options):
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        made[kernel.hash] = kernel

    JITFunction.run = compiling
    try:
        for call in calls:
            call()
    finally:
        JITFunction.run = run
    return [read(kernel) for kernel in made.values()]


def read(kernel):
    """Facts about a kernel from the tools shipped with Triton."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        told = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    registers, stack, local = (int(re.search(rf"{word}:(\d+)", told)[1]) for word in ("REG", "STACK", "LOCAL"))
    return Made(kernel.metadata.name, kernel.metadata.shared, registers, stack + local, kernel.asm["ptx"])
