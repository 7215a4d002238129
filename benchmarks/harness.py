"""The measuring harness: outputs are compared first, then contenders are timed in turn, and results stored as JSON.

A `Race` is one piece of work done by several contenders. Each runs once and is checked; then they are timed in turn,
one repetition of each before the next repetition of any, so that other load on the machine affects all alike. On a GPU
the L2 cache is flushed before each repetition.
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
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "unetzoo", "torch", "segmentation-models-pytorch", "kornia", "monai", "torchmetrics", "numpy", "albumentations",
    "pytorch-msssim", "onnxruntime", "openvino", "nncf", "dynamic-network-architectures", "triton",
)  # fmt: skip

NUMBERS = ("ms", "iqr_ms", "ratio_to_first", "per_second")


@dataclass(frozen=True)
class Limit:
    """The least time that a piece of work can take on this device.

    Args:
        seconds: That time.
        what: What it includes, and the device's ceilings.
    """

    seconds: float
    what: str


@dataclass
class Race:
    """One piece of work and its contenders.

    Args:
        name: The work and its size: "dice_ce forward and backward, 2×19×512×1024".
        contenders: Name → a call that does the work once and returns its output. The first is ours.
        check: Takes the outputs by name and raises AssertionError if they differ by more than the tolerance.
        notes: Name → why its output may differ, or how it was configured.
        work: Amount of work per run and its unit, for rates, e.g. (1000, "samples").
        between: Called before each repetition, untimed.
        memory: Whether to measure the peak memory that each contender adds.
        limit: The least time of this work on the device.
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
        """Check, then time; return a JSON-able result.

        Args:
            repeats: Timed repetitions per contender; on a GPU 50 or more.
            warmup: Untimed repetitions before; by default 20 on a GPU, else 2.

        Raises:
            AssertionError: The outputs differ.
        """
        if warmup is None:
            warmup = 20 if torch.cuda.is_available() else 2
        self.check({name: call() for name, call in self.contenders.items()})
        times: dict[str, list[float]] = {name: [] for name in self.contenders}
        for repeat in range(-warmup, repeats):
            for name, call in self.contenders.items():
                self.between()
                empty_cache()
                took = seconds_of(call)
                if repeat >= 0:
                    times[name].append(took)
        # after the timing, as it returns memory that the next call would have to allocate again
        rows: dict[str, dict[str, Any]]
        rows = {name: {"extra_mb": extra_memory(call)} if self.memory else {} for name, call in self.contenders.items()}
        ours = statistics.median(next(iter(times.values())))
        for name, row in rows.items():
            low, median, high = _quartiles(times[name])
            row |= {
                "ms": round(1e3 * median, 4), "iqr_ms": round(1e3 * (high - low), 4),
                "ratio_to_first": round(median / ours, 3), "per_second": round(self.work[0] / median, 2),
            }  # fmt: skip
            if name in self.notes:
                row["note"] = self.notes[name]
        result = {"name": self.name, "unit": self.work[1], "repeats": repeats, "rows": rows}
        if self.limit:
            result["limit"] = {"ms": round(1e3 * self.limit.seconds, 4), "what": self.limit.what}
        return result


def empty_cache(size: int = 2**28) -> None:
    """Flush a GPU's L2 cache."""
    if torch.cuda.is_available():
        torch.empty(size, dtype=torch.uint8, device="cuda").zero_()


def extra_memory(call: Callable[[], Any]) -> float:
    """Peak memory of a call in MB above what was in use before it (Linux; else NaN)."""
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
    """Machine, versions and number of threads."""
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


def load_records() -> list[dict[str, Any]]:
    """All stored results that follow the schema of races, by name.

    Raises:
        ValueError: As `check_schema`.
    """
    records = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    races = [record for record in records if "races" in record]
    for record in races:
        check_schema(record)
    return races


def check_schema(record: Mapping[str, Any]) -> None:
    """Check that a record is complete and its values have the right types.

    Raises:
        ValueError: Something is missing or of the wrong type.
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
    """The time of a call: between two events on a GPU, else by the clock."""
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
