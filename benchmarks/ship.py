"""Ship the network of a run as weights: half precision, scored on test images, with a card.

    python -m benchmarks.ship RUN NAME --card CARD.md --scores image/ap50 ap50 [--set KEY=VALUE] [--kinds kinds.csv]

writes unetzoo/weights/NAME and benchmarks/results/weights-NAME-cpu.json. The text of the card is kept; the table of
scores and the SHA-256 of the weights are appended to it.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track
from torch.utils.data import Subset

import unetzoo
from unetzoo.bundle import WEIGHTS
from unetzoo.io import write_text
from unetzoo.report.image_scores import interval
from unetzoo.training import load_recipe, load_run
from unetzoo.training.run import make_dataset, make_trainer

from .harness import RESULTS, environment

SHIPPED = Path(unetzoo.__file__).parent / "weights"
END = "\n## Scores\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ship")
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--card", type=Path, required=True, help="Markdown: data, license, purpose, limits")
    parser.add_argument("--scores", nargs="+", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--set", action="append", dest="sets", default=[], metavar="KEY=VALUE")
    parser.add_argument("--kinds", type=Path, help="CSV with the columns id and kind: scores for each kind too")
    options = parser.parse_args()

    folder = SHIPPED / options.name
    load_run(options.run).model.half().save_pretrained(folder)
    kinds = {} if options.kinds is None else _kinds(options.kinds)
    rows = score(options.run, folder, [f"data.val.split={options.split}", *options.sets], options.scores, kinds)
    state = json.loads((options.run / "environment.json").read_text())
    record = {
        "what": f"weights {options.name}",
        "date": date.today().isoformat(),
        "command": f"python -m benchmarks.ship RUN {options.name} --scores {' '.join(options.scores)}",
        "environment": environment(),
        "trained": {key: state[key] for key in ("parameters", "precision", "commit") if key in state},
        "sha256": json.loads((folder / "manifest.json").read_text())["files"][WEIGHTS]["sha256"],
        "split": options.split,
        "scores": rows,
    }
    (RESULTS / f"weights-{options.name}-cpu.json").write_text(json.dumps(record, indent=1) + "\n")
    write_text(folder / "README.md", card(options.card.read_text(encoding="utf-8"), record))


def score(
    run: Path, folder: Path, sets: Sequence[str], names: Sequence[str], kinds: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Score the shipped network on all images and on each kind; means over images have a 95% bootstrap interval."""
    recipe = load_recipe(run, [*sets, "train.precision=fp32"])
    dataset: Any = make_dataset(recipe, "val", progress=False)
    trainer = make_trainer(recipe, dataset.labels, net=unetzoo.from_pretrained(folder), progress=False)
    each = [trainer.evaluate(Subset(dataset, [index])) for index in track(range(len(dataset)), "images")]
    groups: dict[str, list[int]] = {"all": list(range(len(dataset)))}
    for index in groups["all"] if kinds else ():
        groups.setdefault(kinds[Path(dataset[index]["id"]).stem], []).append(index)
    rows = {}
    for group, members in groups.items():
        pooled = trainer.evaluate(Subset(dataset, members))
        rows[group] = {"images": len(members)} | {
            name: {"value": pooled[name]} | _interval([each[index][name] for index in members], name) for name in names
        }
    return rows


def _interval(values: Sequence[float], name: str) -> dict[str, list[float]]:
    """The interval of a mean over images; pooled scores have none here."""
    defined = np.array([value for value in values if np.isfinite(value)])
    if not name.startswith("image/") or len(defined) < 5:
        return {}
    entries = np.stack([defined, np.ones_like(defined)], -1)
    low, high = interval(entries, lambda sums: sums[..., :1] / sums[..., 1:])
    return {"interval": [float(low[0]), float(high[0])]}


def card(text: str, record: Mapping[str, Any]) -> str:
    """Return the card with the table of scores and the SHA-256 of the weights."""
    rows: Mapping[str, Mapping[str, Any]] = record["scores"]
    names = [name for name in rows["all"] if name != "images"]
    title = f"images of the {record['split']} split"
    lines = [f"| {title} | number | {' | '.join(names)} |", "|---|" + "--:|" * (len(names) + 1)]
    for group, row in rows.items():
        cells = [_cell(row[name]) for name in names]
        lines.append(f"| {group} | {row['images']} | {' | '.join(cells)} |")
    return f"""{text.partition(END)[0].rstrip()}
{END}
{chr(10).join(lines)}

In brackets, if any: 95% bootstrap intervals over images. The images were used neither for training nor for model
selection. The network was evaluated with its half-precision weights, computed in float32.

SHA-256 of `{WEIGHTS}`: `{record["sha256"]}`
"""


def _cell(score: Mapping[str, Any]) -> str:
    low, high = score.get("interval", (None, None))
    return f"{score['value']:.3f}" + ("" if low is None else f" [{low:.3f}, {high:.3f}]")


def _kinds(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["id"]: row["kind"] for row in csv.DictReader(file)}


if __name__ == "__main__":
    main()
