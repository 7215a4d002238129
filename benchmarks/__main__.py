"""Run and store the races of benchmarks/NAME.py: `python -m benchmarks NAME… [--repeats N] [--only PATTERN]`.

Each such module has `races() -> Iterator[Race]` and leaves out peers that are not installed.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import re
import shlex
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from . import harness

SHARED = set(
    "__main__ atlas ceilings counts encoders figures floors gallery goals harness membranes peers plans report seeds "
    "ship structure".split()
)
NAMES = sorted(m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if m.name not in SHARED)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; all by default")
    parser.add_argument("--repeats", type=int, default=50 if torch.cuda.is_available() else 15)
    parser.add_argument("--warmup", type=int, help="untimed rounds; by default 2, on a GPU 20")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", metavar="PATTERN", help="run the races whose name matches")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(NAMES)}")
    torch.set_num_threads(options.threads)
    console = Console(highlight=False)
    for name in options.names or NAMES:
        races = []
        for race in importlib.import_module(f"benchmarks.{name}").races():
            if not re.search(options.only, race.name):
                continue
            with console.status(race.name):
                races.append(race.run(options.repeats, options.warmup))
            console.print(table(races[-1]))
            path = harness.save(name, races, "python -m benchmarks " + shlex.join(sys.argv[1:]))
            console.print(f"stored in {path}", soft_wrap=True)


def table(result: dict) -> Table:
    """A race as a table for the terminal."""
    limit = result.get("limit", {}).get("ms")
    columns = ("", "ms", "±", "× first", f"{result['unit']}/s", "× limit", "extra MB")
    out = Table(*columns, title=result["name"], title_justify="left")
    for name, row in result["rows"].items():
        out.add_row(
            name, f"{row['ms']:.2f}", f"{row['iqr_ms']:.2f}", f"{row['ratio_to_first']:.2f}",
            f"{row['per_second']:,.0f}", f"{row['ms'] / limit:.2f}" if limit else "",
            f"{row['extra_mb']:.0f}" if "extra_mb" in row else "",
        )  # fmt: skip
    return out


if __name__ == "__main__":
    main()
