"""Import plugins in a child process to check them, so that a broken import cannot affect this process.

The child imports one target after another and writes a line after each; where the lines end, it died or hung.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .errors import PluginError
from .plugins import IMPORT_LIMIT, Distribution, Entry, check_api_version

PATIENCE = 5  # times the limit, by the clock: for an import that sleeps again and again
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}  # children run side by side
HEAVY = ("torch", "numpy", "PIL.Image", "segmentation_models_pytorch", "rich.style")  # rich draws a random number


@dataclass(frozen=True)
class Probe:
    """The result of importing one entry.

    Args:
        entry: The entry.
        fault: Why it cannot be used, or None.
        slow: Why it is not known whether it can be used: the import exceeded the time limit. None if it did not.
        seconds: CPU time of the import; unlike elapsed time, it does not grow when the machine is busy.
        warm_seconds: CPU time of the imports before it, if `warm`: how slow the machine is.
        printed: What it printed to stdout.
        changed: The process settings that it changed.
    """

    entry: Entry
    fault: str | None = None
    slow: str | None = None
    seconds: float = 0.0
    warm_seconds: float = 0.0
    printed: str = ""
    changed: tuple[str, ...] = ()


class Health(NamedTuple):
    """The state of a distribution.

    Args:
        faults: Everything that is wrong with it.
        slow: What was not checked, because its import exceeded the time limit.
    """

    faults: list[str]
    slow: list[str]


def probe(entries: Sequence[Entry], *, timeout: float = IMPORT_LIMIT, warm: bool = False) -> list[Probe]:
    """Import every entry in a child process.

    Args:
        entries: Usually those of one distribution.
        timeout: Seconds of CPU time per import, or without any; elapsed time would depend on the load of the machine.
        warm: Import torch, NumPy, Pillow, SMP and rich first, so that their time and side effects are not counted.
    """
    found: dict[Entry, Probe] = {}
    lost: dict[str, dict[str, Any]] = {}  # module → how the child ended when it imported it
    while True:
        found |= {entry: Probe(entry, **lost[_module(entry)]) for entry in entries if _module(entry) in lost}
        waiting = [entry for entry in entries if entry not in found]
        if not waiting:
            return [found[entry] for entry in entries]
        rows, end = _run(waiting, timeout, warm)
        found |= {
            entry: Probe(entry, **{**row, "changed": tuple(row["changed"])})
            for entry, row in zip(waiting, rows, strict=False)
        }
        if len(rows) < len(waiting):
            lost[_module(waiting[len(rows)])] = end


def health_of_all(distributions: Iterable[Distribution], *, timeout: float = IMPORT_LIMIT) -> dict[str, Health]:
    """The health of distributions, by name: one child process each, as many at a time as there are CPUs."""
    chosen = list(distributions)
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        found = pool.map(lambda distribution: health(distribution, timeout=timeout), chosen)
        return {distribution.name: one for distribution, one in zip(chosen, found, strict=True)}


def health(distribution: Distribution, *, timeout: float = IMPORT_LIMIT) -> Health:
    """Import everything that a distribution adds, in a child process."""
    if distribution.fault:
        return Health([distribution.fault], [])
    try:
        check_api_version(distribution)
    except PluginError as error:
        return Health([str(error)], [])
    faults: dict[tuple[str, str], str] = {}  # a fault of a module is reported once
    slow: dict[tuple[str, str], str] = {}
    for found in probe(distribution.entries, timeout=timeout):
        printed = f"prints to stdout at import: {found.printed.strip()[:80]!r}" if found.printed else None
        for seen, what in ((faults, found.fault), (faults, printed), (slow, found.slow)):
            if what:
                seen.setdefault((_module(found.entry), what), f"{found.entry.kind} {found.entry.name}: {what}")
    return Health(list(faults.values()), list(slow.values()))


def _module(entry: Entry) -> str:
    return entry.target.partition(":")[0]


def _run(entries: Sequence[Entry], timeout: float, warm: bool) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Run a child process: the rows of the entries it completed, and how it ended, as a field of `Probe`."""
    with tempfile.TemporaryDirectory(prefix="unetzoo-probe-") as name:
        folder = Path(name)
        targets = [{"name": e.name, "target": e.target, "group": e.group, "distribution": e.distribution,
                  "version": e.version} for e in entries]  # fmt: skip
        job = {"path": sys.path, "warm": list(HEAVY) if warm else [], "entries": targets}
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        (folder / "rows.jsonl").touch()
        with (folder / "stderr.txt").open("wb") as stderr:
            child = subprocess.Popen(
                [sys.executable, "-P", "-c", "from unetzoo.probing import serve; serve()", name],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env={**ONE_THREAD, **os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            )
            if _ends(child, folder / "rows.jsonl", timeout):
                reason = f"import ends the process with exit code {child.returncode}{_last_line(folder / 'stderr.txt')}"
                end = {"fault": reason}
            else:
                end = {"slow": f"not imported within {timeout:g} s"}
        lines = (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()
        return [row for row in map(json.loads, lines) if row], end


def _ends(child: subprocess.Popen[bytes], rows: Path, timeout: float) -> bool:
    """Wait for the child: False if one of its imports exceeds the time limit, so that it was stopped."""
    size, started, moved, at_start, used = 0, time.monotonic(), time.monotonic(), 0.0, 0.0
    try:
        while child.poll() is None:
            now, cpu = time.monotonic(), _cpu_seconds(child.pid)
            if cpu is not None and cpu > used + 0.01:
                moved, used = now, cpu
            if rows.stat().st_size > size:
                size, started, moved, at_start = rows.stat().st_size, now, now, used
            idle = cpu is not None and now - moved > timeout
            if idle or used - at_start > timeout or now - started > PATIENCE * timeout:
                return False
            time.sleep(0.02)
        return True
    finally:
        child.kill()
        child.wait()


def _cpu_seconds(pid: int) -> float | None:
    """CPU time of a process; None if the system cannot measure it, or the process has just ended."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3), which Python does not have
    except OSError:
        return None


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f": {lines[-1].strip()[:120]}" if lines else ""


def serve() -> None:
    """Main function of the child process."""
    from importlib import import_module

    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    sys.path[:] = job["path"]
    with (folder / "rows.jsonl").open("a", encoding="utf-8") as rows, (folder / "stdout.txt").open("w+b") as stdout:
        os.dup2(stdout.fileno(), 1)
        for module in job["warm"]:
            import_module(module)
        warm_seconds = time.process_time()
        print("{}", file=rows, flush=True)  # the timeout of the first import starts here
        modules: dict[str, dict[str, Any]] = {}
        for entry in (Entry(**entry) for entry in job["entries"]):
            row = _try(entry, stdout)
            first = modules.setdefault(_module(entry), row)
            if first is not row:  # the first name of a module includes the cost of its import
                row = {
                    "fault": row["fault"],
                    **{key: first[key] + row[key] for key in ("seconds", "printed", "changed")},
                }
            print(json.dumps({**row, "warm_seconds": warm_seconds}), file=rows, flush=True)


def _try(entry: Entry, stdout: Any) -> dict[str, Any]:
    from .process_state import differences, snapshot
    from .registry import REGISTRIES

    before, start = snapshot(), time.process_time()
    place = stdout.seek(0, os.SEEK_END)
    try:
        value = entry.load()
        seconds = time.process_time() - start
        REGISTRIES[entry.kind].check_contract(entry, value)
        fault = None
    except PluginError as error:
        seconds = time.process_time() - start
        wrong_kind = f"{error.what}: expected {error.expected}, found {error.found}"
        fault = str(error.found) if error.expected is None else wrong_kind
    sys.stdout.flush()
    stdout.seek(place)
    printed = stdout.read().decode(errors="replace")
    return {"fault": fault, "seconds": seconds, "printed": printed, "changed": [*differences(before, snapshot())]}
