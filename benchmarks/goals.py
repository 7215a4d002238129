"""Performance goals beside the stored results: `python -m benchmarks.goals`.

A goal is met when the worst of its races reaches the limit. Only the goals themselves are entered by hand, and the
reasons for those that are missed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from .harness import load_records


@dataclass(frozen=True)
class Goal:
    """A ratio or a difference in the stored results.

    Args:
        work: The work, as a short name.
        result: Name of the result.
        race: Pattern of the races' names.
        ours: Pattern of our row.
        peer: Pattern of the rows that ours is compared with; the best of each race counts.
        limit: Value that the worst race must reach.
        column: "ms" or "extra_mb".
        kind: "faster" (peer over ours, at least), "share" (ours over peer, at most), "difference" (ours − peer, at
            most) or "limit" (ours over the race's limit, at most; the peer is then only a name).
        why: The reason, if it is missed.
        against: Name of the peer on the page; by default the pattern.
    """

    work: str
    result: str
    race: str
    ours: str
    peer: str
    limit: float
    column: str = "ms"
    kind: str = "faster"
    why: str = ""
    against: str = ""

    def limit_text(self) -> str:
        """The limit as text."""
        words = {"faster": "≥ {:g}×", "share": "≤ {:g}×", "difference": "≤ {:g} ms more", "limit": "≤ {:g}×"}
        return words[self.kind].format(self.limit)

    def measured(self, records: list[dict[str, Any]], device: str) -> tuple[float, str] | None:
        """Value and name of the worst race; None if there is no result for this device."""
        values = [
            (self._value(race), race["name"])
            for record in records
            if record["what"] == self.result and (record["environment"]["gpu"] is not None) == (device == "CUDA")
            for race in record["races"]
            if re.search(self.race, race["name"])
        ]
        found = [(value, name) for value, name in values if value is not None]
        if not found:
            return None
        return min(found) if self.kind == "faster" else max(found)

    def met(self, value: float) -> bool:
        """Whether a value reaches the limit."""
        return value >= self.limit if self.kind == "faster" else value <= self.limit

    def _value(self, race: dict[str, Any]) -> float | None:
        ours, peers = (self._best(race["rows"], pattern) for pattern in (self.ours, self.peer))
        if self.kind == "limit":
            peers = race.get("limit", {}).get("ms")
        if ours is None or peers is None:
            return None
        if self.kind == "difference":
            return ours - peers
        return peers / ours if self.kind == "faster" else ours / peers

    def _best(self, rows: dict[str, dict[str, Any]], pattern: str) -> float | None:
        values = (row[self.column] for name, row in rows.items() if re.search(pattern, name) and self.column in row)
        return min(values, default=None)


PUBLISHED, SWITCHED = "^(common|MONAI|nnU).*float32$", "^(common|MONAI|nnU).*bf16"
FASTER = "^(unetzoo|OpenVINO, bf16|OpenVINO, float32|ONNX)"
CPU = (
    *(
        goal
        for name, title in (("bnunet", "BN-UNet"), ("r2unet", "R2U-Net"))
        for goal in (
            Goal(
                f"training step, {title}",
                "training",
                f"^{name}",
                "^unetzoo, bf16$",
                PUBLISHED,
                2.4,
                against="same widths, as published",
            ),
            Goal(
                f"training step, {title}",
                "training",
                f"^{name}",
                "^unetzoo, bf16$",
                SWITCHED,
                0.95,
                against="same widths, bf16, compiled",
            ),
        )
    ),
    Goal("inference within torch", "inference", "inference$", "^unetzoo", "^eager", 2.0, against="eager float32"),
    Goal("inference by the faster engine", "inference", "inference$", FASTER, "^eager", 2.2, against="eager float32"),
    Goal("inference in INT8", "inference", "inference$", "int8$", "^eager", 4.0, against="eager float32"),
    Goal(
        "peak memory of a training step with save_memory",
        "memory",
        "with save_memory",
        "^save_memory",
        "^without$",
        0.6,
        "extra_mb",
        "share",
        why="includes convolution workspaces and freed blocks that glibc keeps; 0.60× for tensors only",
    ),
    Goal("CE + Dice", "losses", "^CE \\+ Dice of the batch", "dice_ce$", "^SMP", 3.0),
    Goal("CE + Dice", "losses", "^CE \\+ Dice of each image", "per_image$", "^kornia", 1.4),
    Goal(
        "CE + Dice, memory", "losses", "^CE \\+ Dice of each image", "per_image$", "^kornia", 0.5, "extra_mb", "share"
    ),
    Goal("metric update from label maps", "metrics", "^from label maps", "^unetzoo$", "^torchmetrics$", 8.0),
    Goal(
        "metric update from label maps",
        "metrics",
        "^from label maps",
        "^unetzoo$",
        "^SMP$",
        8.0,
        why="would require beating a bare bincount of the same labels",
    ),
    Goal(
        "metric update from label maps",
        "metrics",
        "^from label maps",
        "^unetzoo$",
        "^torch.bincount$",
        1.0,
        why="unetzoo also checks every label",
    ),
    Goal("metric update from logits", "metrics", "^from logits", "^unetzoo$", "argmax", 3.0),
    Goal(
        "tiled inference",
        "tiling",
        "",
        "^unetzoo, exact, tile for 1GB$",
        "^MONAI.*overlap 0.25$",
        1.5,
        against="MONAI, overlap 0.25, both float32",
    ),
    Goal(
        "tiled inference",
        "tiling",
        "",
        "^unetzoo, exact, tile for 1GB$",
        "^MONAI.*overlap 0.5$",
        3.0,
        against="MONAI, overlap 0.5, both float32",
    ),
    Goal(
        "tiled inference",
        "tiling",
        "",
        "^unetzoo, exact",
        "^MONAI.*overlap 0.25$",
        3.0,
        against="MONAI, overlap 0.25, default precision",
    ),
    Goal(
        "tiled inference",
        "tiling",
        "",
        "^unetzoo, exact",
        "^MONAI.*overlap 0.5$",
        6.0,
        against="MONAI, overlap 0.5, default precision",
    ),
    Goal("Trainer", "trainer", "fp32$", "^Trainer$", "^bare loop$", 1.03, kind="share"),
    Goal("composites", "composites", "^a sample", "^composed$", "^Pillow", 5.0),
    Goal(
        "import unetzoo",
        "imports",
        "^import",
        "^import unetzoo$",
        "^an empty",
        50.0,
        kind="difference",
        against="an empty program",
    ),
    Goal("listing", "imports", "^listing", "list_models", "^entry_points", 10.0, kind="difference"),
)
RECIPE, STEP, DICE = "^unetzoo, bf16, compiled$", "training step, ", "^CE \\+ Dice of the batch"
CUDA = (
    Goal("training step", "training", STEP, RECIPE, "^common.*float32$", 2.5),
    Goal("training step, same settings for both", "training", STEP, RECIPE, "^common.*compiled$", 1.15),
    Goal("training step", "training", STEP, RECIPE, "the limit", 1.6, kind="limit"),
    Goal(
        "peak memory of a training step with save_memory",
        "memory",
        "with save_memory",
        "^save_memory",
        "^without$",
        0.5,
        "extra_mb",
        "share",
    ),
    Goal("inference", "inference", "batch 8,", "^unetzoo", "^(common|eager).*float32$", 3.0),
    Goal("inference", "inference", "batch 8,", "^unetzoo", "the limit", 1.5, kind="limit"),
    Goal("inference, latency", "inference", "batch 1,", "^unetzoo", "^(common|eager).*float32$", 2.0),
    Goal("CE + Dice", "losses", DICE, "dice_ce$", "^SMP.*CE$|^MONAI DiceCE$", 8.0),
    Goal("CE + Dice, peers compiled", "losses", DICE, "dice_ce$", "compiled$", 1.5),
    Goal("CE + Dice", "losses", DICE, "dice_ce$", "the limit", 1.3, kind="limit"),
    Goal("metric update from label maps", "metrics", "^from label maps", "^unetzoo$", "^torchmetrics$", 8.0),
    Goal("metric update from label maps", "metrics", "^from label maps", "^unetzoo$", "^SMP$", 8.0),
    Goal("metric update from label maps", "metrics", "^from label maps", "^unetzoo$", "^torch.bincount$", 1.0),
    Goal("metric update from logits", "metrics", "^from logits", "^unetzoo$", "argmax", 3.0),
    Goal("metric update from logits", "metrics", "^from logits", "^unetzoo$", "the limit", 1.5, kind="limit"),
    Goal("tiled inference", "tiling", "16384", "^unetzoo, exact, tile for", "^MONAI.*overlap 0.25$", 1.5),
    Goal("tiled inference", "tiling", "16384", "^unetzoo, exact, tile for", "^MONAI.*overlap 0.5$", 3.0),
    Goal("Trainer", "trainer", "bnunet", "^Trainer$", "^bare loop$", 1.03, kind="share"),
)
UNMEASURED = {"CPU": "", "CUDA": "not run on a GPU yet"}
HEAD = ("goal", "peer", "limit", "measured", "met")


def peer_of(goal: Goal) -> str:
    """The pattern of a goal's peer as text."""
    return re.sub(r"[\^$\\]", "", goal.peer).replace("|", " or ").replace(".*", " ")


def rows(records: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """The table's rows, as text."""
    for device, goals in (("CPU", CPU), ("CUDA", CUDA)):
        for goal in goals:
            found = goal.measured(records, device)
            peer = goal.against or peer_of(goal)
            if found is None:
                yield f"{device}: {goal.work}", peer, goal.limit_text(), "not measured", UNMEASURED[device]
                continue
            value, race = found
            unit = " ms more" if goal.kind == "difference" else "×"
            met = "yes" if goal.met(value) else f"**no**{f': {goal.why}' if goal.why else ''}"
            yield f"{device}: {goal.work}", peer, goal.limit_text(), f"{value:.3g}{unit} ({race})", met


def headlines(records: list[dict[str, Any]]) -> Iterator[tuple[str, str, float]]:
    """The measured goals of speed as (work, peer, how many times faster)."""
    for goal in CPU:
        if goal.kind == "faster" and (found := goal.measured(records, "CPU")):
            yield goal.work, goal.against or peer_of(goal), found[0]


def main() -> None:
    table = Table(*HEAD)
    for row in rows(load_records()):
        table.add_row(*row)
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
