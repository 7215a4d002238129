"""`python -m benchmarks.counts [--update]`: compare operation counts with those stored in `counts.json`.

FLOPs, operations, kept and peak bytes of a training step of every built-in network at its published widths, from its
structure (`benchmarks/structure.py`). The tests fail if a count gets worse; `--update` stores the current counts.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from .structure import Case

KEPT = Path(__file__).parent / "counts.json"
CASES = {
    "unet 1×1×572²": Case("unet", (572, 572), 1, {"in_channels": 1, "classes": 2}),
    "bnunet 8×3×256²": Case("bnunet", (256, 256), 8),
    "bnunet 16×3×320×480": Case("bnunet", (320, 480), 16),
    "r2unet 8×3×256²": Case("r2unet", (256, 256), 8),
    "ddunet 8×3×256²": Case("ddunet", (256, 256), 8),
    "dualunet 8×6×192²": Case("dualunet", (192, 192), 8),
}
MAY_GROW = 1.001  # what a new torch may add in small tensors


def counted() -> dict[str, dict[str, Any]]:
    """Every case, with and without `save_memory`."""
    rows = {}
    for name, case in CASES.items():
        for suffix, saves in (("", False), (", save_memory", True)):
            count = replace(case, save_memory=saves).count()
            forward, step = count.gflop
            rows[name + suffix] = {
                "gflop_forward": round(forward, 3), "gflop_step": round(step, 3),
                "operations_forward": len(count.forward), "operations_step": len(count.forward + count.backward),
                "kept_bytes": count.kept, "peak_bytes": count.peak, "kernels": count.kernels(),
            }  # fmt: skip
    return rows


def worse(now: dict[str, dict[str, Any]], before: dict[str, dict[str, Any]]) -> list[str]:
    """Counts that grew or are missing, as text."""
    found = [f"{name}: no longer counted" for name in before if name not in now]
    found += [f"{name}: not kept yet" for name in now if name not in before]
    for name in now.keys() & before.keys():
        for what, value in before[name].items():
            if what != "kernels" and now[name][what] > MAY_GROW * value:
                found.append(f"{name}: {what} {value:,} → {now[name][what]:,}")
    return sorted(found)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.counts")
    parser.add_argument("--update", action="store_true", help="keep what is counted now")
    options = parser.parse_args()
    now = counted()
    if options.update:
        KEPT.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n")
        print(f"written: {KEPT.name}")
        return
    if found := worse(now, json.loads(KEPT.read_text())):
        sys.exit("\n".join([*found, "meant so? python -m benchmarks.counts --update"]))
    print("nothing grew")


if __name__ == "__main__":
    main()
