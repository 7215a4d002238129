"""Training runs over several seeds: the spread of a score, beside the difference that a setting makes.

`python -m benchmarks.seeds TABLE --data PATH` trains every combination of the table's data sets, settings and seeds,
and stores `results/seeds-TABLE-<cpu|cuda>.json` after each run; started again, it continues with the missing runs.
Scores are those of the last epoch, which no score has chosen.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import unetzoo

from .harness import RESULTS, environment

RECIPES = Path(__file__).parent.parent / "examples" / "recipes"


@dataclass(frozen=True)
class Data:
    """The name of a recipe, or its file in examples/recipes, on a data set below `--data`, and the scores to keep."""

    recipe: str
    folder: str
    scores: tuple[str, ...]
    sets: tuple[str, ...] = ()


CARS = Data("cars.toml", "cars/camvid_car_crops", ("f1/car", "iou/car"), ("train.epochs=10",))
COMPOSITES = Data(
    "composites-real.toml", "fgbg_depth", ("iou/foreground", "depth/rmse"), ("train.epochs=4", "data.train.length=1000")
)
CAMVID = Data("camvid-bnunet.toml", "camvid", ("miou", "pixel_accuracy"), ("train.epochs=5",))
RARE = ("pole", "signsymbol", "pedestrian", "bicyclist")
LONGER = Data("camvid-bnunet.toml", "camvid", ("miou", *(f"iou/{name}" for name in RARE)), ("train.epochs=10",))
DRIVE = Data(
    "unet-drive", "drive", ("f1/vessel", "roc_auc", "cldice/vessel"),
    ("train.epochs=20", 'metrics.mask=["segmentation", "sweep", "cldice"]'),
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """Settings that are compared on some data sets."""

    data: dict[str, Data]
    settings: dict[str, tuple[str, ...]]


TABLES = {
    "precision": Comparison(
        {"cars": CARS, "composites": COMPOSITES, "camvid": CAMVID},
        {name: (f"train.precision={name}",) for name in ("fp32", "bf16")},
    ),
    "mixing": Comparison(
        {"camvid": LONGER},
        {
            "without": (),
            "cutmix": ("transform.train.cutmix=0.5",),
            "copy_paste": (f"transform.train.copy_paste={{{', '.join(f'{name}=0.3' for name in RARE)}}}",),
        },
    ),
    "thin": Comparison({"drive": DRIVE}, {"without": (), "cldice": ("loss.cldice=0.3",)}),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seeds")
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the data sets")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    path = RESULTS / f"seeds-{options.table}-{device}.json"
    runs: list[dict[str, Any]] = json.loads(path.read_text())["runs"] if path.exists() else []
    finished = {(run["data"], run["setting"], run["seed"]) for run in runs}
    console = Console(highlight=False)
    for key, data, sets in jobs(TABLES[options.table], options.seeds):
        if key in finished:
            continue
        runs.append(dict(zip(("data", "setting", "seed"), key, strict=True)) | train(data, sets, options.data))
        console.print(" ".join(map(str, key)), runs[-1]["scores"])
        record = {
            "what": f"training runs, {options.table}",
            "date": date.today().isoformat(),
            "command": f"python -m benchmarks.seeds {options.table} --data PATH --seeds {options.seeds}",
            "environment": environment(),
            "runs": runs,
        }
        path.write_text(json.dumps(record, indent=1) + "\n")
    console.print(summary(runs))


def jobs(table: Comparison, seeds: int) -> Iterator[tuple[tuple[str, str, int], Data, tuple[str, ...]]]:
    """Every run of a table: the first seed of everything, then the next."""
    for seed, (name, data), (setting, sets) in itertools.product(
        range(seeds), table.data.items(), table.settings.items()
    ):
        yield (name, setting, seed), data, (*data.sets, *sets, f"train.seed={seed}")


def train(data: Data, sets: tuple[str, ...], root: Path) -> dict[str, Any]:
    """Train once; the time and the scores of the last epoch."""
    folder = Path(tempfile.mkdtemp())
    begun = time.perf_counter()
    try:
        unetzoo.train(
            RECIPES / data.recipe if data.recipe.endswith(".toml") else data.recipe,
            [f"data.root={root / data.folder}", *sets],
            out=folder / "run",
            progress=False,
        )
        lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    last = json.loads(lines[-1])
    return {
        "epochs": len(lines),
        "seconds": round(time.perf_counter() - begun, 1),
        "scores": {name: last[name] for name in data.scores},
    }


def summary(runs: list[dict[str, Any]]) -> Table:
    """Mean and range of every score, by data set and setting."""
    table = Table("data", "score", "setting", "mean", "least", "greatest", "seconds")
    groups = itertools.groupby(sorted(runs, key=_group), _group)
    for (data, setting), group in ((key, list(found)) for key, found in groups):
        for score in group[0]["scores"]:
            values = [run["scores"][score] for run in group]
            seconds = statistics.mean(run["seconds"] for run in group)
            table.add_row(
                data, score, setting, f"{statistics.mean(values):.4f}", f"{min(values):.4f}", f"{max(values):.4f}",
                f"{seconds:.0f}",
            )  # fmt: skip
    return table


def _group(run: dict[str, Any]) -> tuple[str, str]:
    return run["data"], run["setting"]


if __name__ == "__main__":
    main()
