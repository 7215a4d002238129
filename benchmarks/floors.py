"""`python -m benchmarks.floors MODEL --size H W [--batch N]`: the least that a network needs.

From the structure of the network alone: operations, bytes and kept activations of a training step, and lower bounds of
its time on a device with the given ceilings, however its kernels are written:

- *work alone*: all FLOPs at the matrix units' rate;
- *separate kernels*: each convolution reads its input and its weights and writes its output once; in training a batch
  norm reads its input once for the statistics and once with the non-linearity behind it, and writes; sums and poolings
  read and write; joining costs nothing. The backward pass does the same with the gradients.

Each kernel takes the longer of its work and its bytes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table

from .ceilings import Ceilings, measured
from .harness import Limit
from .structure import Case, Counted, Op

H200 = Ceilings(tflops=790.0, gigabytes=4300.0)
FREE = {
    "relu_", "relu", "leaky_relu_", "cat", "add_", "fill_", "zeros_like", "ones_like", "slice_backward", "mean", "div",
    "threshold_backward", "leaky_relu_backward", "clone",
}  # fmt: skip
READ_TWICE = {"native_batch_norm", "native_batch_norm_backward"}


@dataclass(frozen=True)
class Floor:
    """Lower bounds in seconds.

    Args:
        work: All FLOPs at the ceiling.
        kernels: The sum over separate kernels.
        compute_bound: Share of `kernels` spent where the work and not the bytes set the time.
    """

    work: float
    kernels: float
    compute_bound: float


def floor(ops: tuple[Op, ...], ceilings: Ceilings) -> Floor:
    """The lower bounds of operations on a device."""
    times = [(op.flops / ceilings.flops, moved(op) / ceilings.bytes) for op in ops]
    total = sum(max(pair) for pair in times)
    bound = sum(work for work, bytes in times if work >= bytes)
    return Floor(sum(op.flops for op in ops) / ceilings.flops, total, bound / total if total else 0.0)


def limit(case: Case, train: bool) -> Limit:
    """The limit of a network on this machine with separate kernels; in inference batch norms are folded and free."""
    counted, ceilings = case.count(), measured(case.dtype)
    ops = counted.forward + counted.backward if train else counted.forward
    least = floor(tuple(op for op in ops if train or op.name not in READ_TWICE), ceilings).kernels
    return Limit(least, f"direct convolutions as separate kernels in {dtype_name(case.dtype)}; {ceilings}")


def of_bytes(count: float) -> Limit:
    """The limit of work that has to move these bytes once."""
    ceilings = measured()
    return Limit(count / ceilings.bytes, f"{count / 1e6:,.0f} MB moved once; {ceilings.gigabytes:.4g} GB/s")


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def moved(op: Op) -> int:
    """Bytes that a separate kernel has to move; 0 for operations that are fused into a neighbor."""
    if op.name in FREE:
        return 0
    return op.written + op.read * (2 if op.name in READ_TWICE else 1)


def rows(counted: Counted, ceilings: Ceilings) -> Iterator[tuple[str, str]]:
    """The report as text."""
    forward, step = counted.gflop
    yield "parameters", f"{counted.parameters:,}"
    yield "GFLOP forward / step", f"{forward:,.0f} / {step:,.0f}"
    yield (
        "GB moved forward / step",
        " / ".join(
            f"{sum(map(moved, ops)) / 1e9:.2f}" for ops in (counted.forward, counted.forward + counted.backward)
        ),
    )
    yield "GB kept for the backward pass", f"{counted.kept / 1e9:.2f}"
    yield "GB at the peak, gradients included", f"{counted.peak / 1e9:.2f}"
    for name, ops in (("forward", counted.forward), ("step", counted.forward + counted.backward)):
        least = floor(ops, ceilings)
        yield f"ms {name}: work alone / separate kernels", f"{1e3 * least.work:.2f} / {1e3 * least.kernels:.2f}"
        yield f"share of the {name} bound by work", f"{least.compute_bound:.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floors", description="The least that a network takes.")
    parser.add_argument("model")
    parser.add_argument("--size", type=int, nargs="+", default=[256], help="height and width, or one number for both")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--channels", type=int, help="of the image; the network's own by default")
    parser.add_argument("--classes", type=int)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--save-memory", action="store_true", help="within unetzoo.recompute.save_memory()")
    parser.add_argument("--tflops", type=float, default=H200.tflops, help="ceiling of the device; an H200's")
    parser.add_argument("--gigabytes", type=float, default=H200.gigabytes, help="ceiling of its memory, a second")
    parser.add_argument("--measure", action="store_true", help="measure this machine's ceilings instead")
    options = parser.parse_args()
    given = {"in_channels": options.channels, "classes": options.classes}
    case = Case(
        options.model, (options.size[0], options.size[-1]), options.batch,
        {key: value for key, value in given.items() if value is not None}, getattr(torch, options.dtype),
        options.save_memory,
    )  # fmt: skip
    ceilings = measured(case.dtype) if options.measure else Ceilings(options.tflops, options.gigabytes)
    size = f"{options.batch}×{options.size[0]}×{options.size[-1]}, {options.dtype}"
    table = Table("", title=f"{options.model} {size}; {ceilings}", title_justify="left", show_header=False)
    for row in rows(case.count(), ceilings):
        table.add_row(*row)
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
