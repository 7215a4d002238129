"""How everything here is measured: equal answers first, then interleaved repetitions, kept as JSON.

A `Race` is one piece of work done by several contenders. Each is run once and checked; only then are all timed in turn,
a repetition of each before the next repetition of any, so that what else the machine does meets all of them alike. On a
GPU each repetition finds the L2 cache emptied. On a processor it is noted before each call whether the cores are
near one another: a virtual machine's may be moved to where they share no cache, which slows some contenders and not
others.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "unetzoo", "torch", "segmentation-models-pytorch", "kornia", "monai", "torchmetrics", "numpy", "albumentations",
    "pytorch-msssim", "onnxruntime", "dynamic-network-architectures", "triton",
)  # fmt: skip

NUMBERS = ("ms", "iqr_ms", "ratio_to_first", "per_second")


@dataclass(frozen=True)
class Limit:
    """The least time of a piece of work on the device at hand.

    Args:
        seconds: That time.
        what: What it counts, and the device's ceilings.
    """

    seconds: float
    what: str


class Timed(NamedTuple):
    """One call, and whether the processor's cores were apart before it."""

    seconds: float
    apart: bool


@dataclass
class Race:
    """One piece of work and who does it.

    Args:
        name: What is done, with its size: "dice_ce forward and backward, 2×19×512×1024".
        contenders: Name → a call that does the work once and returns its answer. The first is ours.
        check: Takes the answers by name and raises AssertionError where they differ more than they may.
        notes: Name → why its answer may differ, or how it was configured.
        work: How many samples, pixels or calls one run does, for rates; with its unit, e.g. (1000, "samples").
        between: Runs before each repetition, untimed.
        memory: Whether to measure the peak memory that each adds to what was there.
        limit: What the device cannot go below for this work.
    """

    name: str
    contenders: Mapping[str, Callable[[], Any]]
    check: Callable[[dict[str, Any]], None]
    notes: Mapping[str, str] = field(default_factory=dict)
    work: tuple[float, str] = (1, "runs")
    between: Callable[[], None] = lambda: None
    memory: bool = False
    limit: Limit | None = None

    def run(self, repeats: int = 15, warmup: int | None = None) -> dict[str, Any]:
        """Check, then time; a JSON-able result.

        Args:
            repeats: Timed repetitions of each; on a GPU 50 or more.
            warmup: Untimed ones before; 20 on a GPU, else 2, by default.

        Raises:
            AssertionError: The answers differ.
        """
        if warmup is None:
            warmup = 20 if torch.cuda.is_available() else 2
        self.check({name: call() for name, call in self.contenders.items()})
        times: dict[str, list[Timed]] = {name: [] for name in self.contenders}
        for repeat in range(-warmup, repeats):
            for name, call in self.contenders.items():
                self.between()
                apart = cores_apart()
                empty_cache()
                took = seconds_of(call)
                if repeat >= 0:
                    times[name].append(Timed(took, apart))
        # after the timing: it hands memory back, which the next call would have to fetch anew
        rows: dict[str, dict[str, Any]]
        rows = {name: {"extra_mb": extra_memory(call)} if self.memory else {} for name, call in self.contenders.items()}
        ours = statistics.median(time.seconds for time in next(iter(times.values())))
        for name, row in rows.items():
            low, median, high = _quartiles([time.seconds for time in times[name]])
            row |= {
                "ms": round(1e3 * median, 4), "iqr_ms": round(1e3 * (high - low), 4),
                "ratio_to_first": round(median / ours, 3), "per_second": round(self.work[0] / median, 2),
            }  # fmt: skip
            near, apart = ([time.seconds for time in times[name] if time.apart is far] for far in (False, True))
            parts = {"near_ms": near, "apart_ms": apart} if apart else {}
            row |= {key: round(1e3 * statistics.median(part), 4) for key, part in parts.items() if part}
            if name in self.notes:
                row["note"] = self.notes[name]
        result = {"name": self.name, "unit": self.work[1], "repeats": repeats, "rows": rows}
        if self.limit:
            result["limit"] = {"ms": round(1e3 * self.limit.seconds, 4), "what": self.limit.what}
        return result


def cores_apart(products: int = 50) -> bool:
    """Whether two threads of the processor now take longer for small products of matrices than one."""
    threads = torch.get_num_threads()
    if torch.cuda.is_available() or threads < 2:
        return False
    left, right, out = torch.ones(36, 36), torch.ones(36, 4096), torch.empty(36, 4096)
    took = {}
    for count in (1, 2):
        torch.set_num_threads(count)
        torch.mm(left, right, out=out)
        took[count] = seconds_of(lambda: [torch.mm(left, right, out=out) for _ in range(products)])
    torch.set_num_threads(threads)
    return took[2] > 1.3 * took[1]


def empty_cache(size: int = 2**28) -> None:
    """Fill a GPU's L2 cache with something else."""
    if torch.cuda.is_available():
        torch.empty(size, dtype=torch.uint8, device="cuda").zero_()


def extra_memory(call: Callable[[], Any]) -> float:
    """Megabytes that a call needs at its peak above what was held before it (Linux; else NaN)."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        before = _status("VmRSS")
        call()
        return round((_status("VmHWM") - before) / 1024, 1)
    except OSError:
        return float("nan")


def environment() -> dict[str, Any]:
    """Machine, versions and threads of a measurement."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "gpu": gpu,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": versions,
        "tf32": torch.backends.cuda.matmul.allow_tf32 if gpu else None,
    }


def save(name: str, races: list[dict[str, Any]], command: str) -> Path:
    """Write `results/<name>-<cpu|cuda>.json`, checked against the schema."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    record = {
        "what": name,
        "date": date.today().isoformat(),
        "command": command,
        "environment": environment(),
        "races": races,
    }
    check_schema(record)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{device}.json"
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return path


def check_schema(record: Mapping[str, Any]) -> None:
    """Whether a record holds all that a reader needs to trust it, in the right types.

    Raises:
        ValueError: What is missing or of another type.
    """
    wrong = _misfits(record, {"what": str, "date": str, "command": str, "environment": dict, "races": list}, "record")
    if not wrong:
        fields = {"machine": str, "threads": int, "python": str, "versions": dict}
        wrong += _misfits(record["environment"], fields, "environment")
        for race in record["races"]:
            wrong += _misfits(race, {"name": str, "unit": str, "repeats": int, "rows": dict}, "race")
            wrong += _misfits(race.get("limit", {"ms": 0.0, "what": ""}), {"ms": float, "what": str}, "limit")
            for name, row in race.get("rows", {}).items():
                wrong += _misfits(row, dict.fromkeys(NUMBERS, (int, float)), name)
                wrong += [f"{name}: {key} is negative" for key in NUMBERS if isinstance(row.get(key), (int, float))
                          and row[key] < 0]  # fmt: skip
    if wrong:
        raise ValueError(f"not a record of races: {', '.join(sorted(wrong))}")


def _misfits(part: Mapping[str, Any], fields: Mapping[str, Any], where: str) -> list[str]:
    return [f"{where} lacks {key}" if key not in part else f"{where}: {key} is {type(part[key]).__name__}"
            for key, kind in fields.items() if not isinstance(part.get(key), kind)]  # fmt: skip


def _status(key: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key + ":"))
    return int(line.split()[1])


def seconds_of(call: Callable[[], Any]) -> float:
    """How long a call takes: between two events on the GPU where there is one, else by the clock."""
    if not torch.cuda.is_available():
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    torch.cuda.synchronize()
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()  # pyright: ignore[reportCallIssue] -- torch's stub asks for a stream
    call()
    last.record()  # pyright: ignore[reportCallIssue]
    last.synchronize()
    return first.elapsed_time(last) / 1e3


def _quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4)
    return low, median, high
