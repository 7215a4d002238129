"""Performance goals beside the stored results: `python -m benchmarks.goals`.

A goal is met when the worst of its races reaches the limit. Only the goals themselves are entered by hand, and the
reasons for those that are missed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
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


WIDE = "wide float32 convolutions take nearly all of the time (× limit), and folding does not make them faster"
CPU = (
    Goal(
        "inference, BN-UNet",
        "inference",
        "^bnunet",
        "^unetzoo.optimize$",
        "^(common.*)?eager$|^common",
        1.25,
        why=WIDE,
    ),
    Goal(
        "inference, R2U-Net",
        "inference",
        "^r2unet",
        "^unetzoo.optimize$",
        "^(common.*)?eager$|^common",
        1.25,
        why=WIDE,
    ),
    Goal("train step, BN-UNet", "training", "^bnunet, training step, ", "^unetzoo", "^common", 0.95),
    Goal("train step, R2U-Net", "training", "^r2unet, training step, ", "^unetzoo", "^common", 0.95),
    Goal(
        "peak memory of a train step with save_memory",
        "training",
        "with save_memory",
        "^save_memory",
        "^without$",
        0.6,
        "extra_mb",
        "share",
        why="includes convolution workspaces and freed blocks that glibc keeps; counting tensors alone it is 0.60×",
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
        why="that would be faster than a bare bincount of the same labels",
    ),
    Goal(
        "metric update from label maps",
        "metrics",
        "^from label maps",
        "^unetzoo$",
        "^torch.bincount$",
        1.0,
        why="checking every label has a cost on noise, where no neighbors are equal; on real label maps it is faster",
    ),
    Goal("metric update from logits", "metrics", "^from logits", "^unetzoo$", "argmax", 3.0),
    Goal("tiled inference", "tiling", "6144", "^unetzoo, exact, tile for", "^MONAI.*overlap 0.25$", 1.5),
    Goal("tiled inference", "tiling", "6144", "^unetzoo, exact, tile for", "^MONAI.*overlap 0.5$", 3.0),
    Goal("Trainer", "trainer", "fp32$", "^Trainer$", "^bare loop$", 1.03, kind="share"),
    Goal("composites", "composites", "^a sample", "^composed$", "^Pillow", 5.0),
    Goal("import unetzoo", "imports", "^import", "^import unetzoo$", "^an empty", 50.0, kind="difference"),
    Goal("listing", "imports", "^listing", "list_models", "^entry_points", 10.0, kind="difference"),
)
RECIPE, STEP, DICE = "^unetzoo.*recipe$", "training step, ", "^CE \\+ Dice of the batch"
CUDA = (
    Goal("train step", "training", STEP, RECIPE, "^common.*eager$", 2.5),
    Goal("train step, our recipe on both", "training", STEP, RECIPE, "^common.*recipe$", 1.15),
    Goal("train step", "training", STEP, RECIPE, "the limit", 1.6, kind="limit"),
    Goal(
        "peak memory of a train step with save_memory",
        "training",
        "with save_memory",
        "^save_memory",
        "^without$",
        0.5,
        "extra_mb",
        "share",
    ),
    Goal("inference", "inference", "batch 8,", "^unetzoo", "^(common.*)?eager$", 3.0),
    Goal("inference", "inference", "batch 8,", "^unetzoo", "the limit", 1.5, kind="limit"),
    Goal("inference, latency", "inference", "batch 1,", "^unetzoo", "^(common.*)?eager$", 2.0),
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
UNMEASURED = {"CPU": "", "CUDA": "no GPU was available"}
HEAD = ("goal", "peer", "limit", "measured", "met")


def rows(records: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """The table's rows, as text."""
    for device, goals in (("CPU", CPU), ("CUDA", CUDA)):
        for goal in goals:
            found = goal.measured(records, device)
            peer = goal.peer.translate({ord("^"): "", ord("$"): ""}).replace("(common.*)?", "")
            peer = peer.replace("|", " or ").replace(".*", " ").replace("  ", " ")
            if found is None:
                yield f"{device}: {goal.work}", peer, goal.limit_text(), "not measured", UNMEASURED[device]
                continue
            value, race = found
            near = replace(goal, column="near_ms").measured(records, device) if goal.column == "ms" else None
            unit = " ms more" if goal.kind == "difference" else "×"
            told = f"; {near[0]:.3g}{unit} where the cores were near" if near else ""
            met = "yes" if goal.met(value) else f"**no**{f': {goal.why}' if goal.why else ''}"
            yield f"{device}: {goal.work}", peer, goal.limit_text(), f"{value:.3g}{unit} ({race}){told}", met


def main() -> None:
    table = Table(*HEAD)
    for row in rows(load_records()):
        table.add_row(*row)
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
