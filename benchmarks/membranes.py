"""Score a network trained on ISBI 2012 as the challenge does: V_rand and V_info after thinning of boundaries.

    python -m benchmarks.membranes RUN --root PATH

The threshold is chosen on slices 20-23 and scored on slices 24-29, with and without averaging over rotations. The
challenge's server chose the threshold on the slices it scored; that value is stored beside as `best_threshold`.
Writes benchmarks/results/isbi2012-objects-cpu.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

import unetzoo
from unetzoo.datasets import ISBI2012
from unetzoo.metrics import RandMetric

from .harness import RESULTS, environment

THRESHOLDS = [number / 20 for number in range(1, 20)]
VIEWS = {"one view": None, "seven rotations": "paper", "rotations and mirrorings": "d4"}
NAMES = ("rand_f", "rand_split", "rand_merge", "info_f", "info_split", "info_merge")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.membranes")
    parser.add_argument("run", type=Path)
    parser.add_argument("--root", type=Path, required=True)
    options = parser.parse_args()
    bundle = unetzoo.load(options.run)
    rows = {}
    for title, tta in VIEWS.items():
        predictor = unetzoo.Predictor(bundle, tta=tta)
        chosen = scores(predictor, ISBI2012(options.root, "val"), THRESHOLDS)
        test = ISBI2012(options.root, "test")
        by_rand, by_info = (scores(predictor, test, [chosen[name]]) for name in ("rand_threshold", "info_threshold"))
        best = scores(predictor, test, THRESHOLDS)
        rows[title] = {
            "rand_threshold": chosen["rand_threshold"], "info_threshold": chosen["info_threshold"],
            **{name: (by_rand if name.startswith("rand") else by_info)[name] for name in NAMES},
            "best_threshold": {name: best[name] for name in ("rand_f", "info_f", "rand_threshold", "info_threshold")},
        }  # fmt: skip
        print(title, json.dumps(rows[title]))
    state = json.loads((options.run / "environment.json").read_text())
    record = {
        "what": "isbi2012 recipe, U-Net at a quarter of its width; by objects", "date": date.today().isoformat(),
        "command": "python -m benchmarks.membranes RUN --root PATH", "environment": environment(),
        "trained": {key: state[key] for key in ("parameters", "precision", "commit") if key in state},
        "recipe": json.loads((options.run / "recipe.json").read_text()),
        "scores": {"best": json.loads((options.run / "scores.json").read_text())["best"], **rows},
    }  # fmt: skip
    record["recipe"]["data"].pop("root", None)
    (RESULTS / "isbi2012-objects-cpu.json").write_text(json.dumps(record, indent=1) + "\n")


def scores(predictor: unetzoo.Predictor, slices: Any, thresholds: Sequence[float]) -> dict[str, float]:
    """Score all slices; the best of several thresholds is taken for each score."""
    metric = RandMetric(num_classes=2, thresholds=thresholds, thin=True)
    for index in track(range(len(slices)), "slices"):
        sample = slices[index]
        probabilities = predictor.segment(sample["image"]).probabilities
        metric.update(probabilities.clamp_min(1e-7).log()[None], torch.from_numpy(sample["mask"])[None].long())
    return metric.compute()


if __name__ == "__main__":
    main()
