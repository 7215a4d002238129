"""Cases with small settings, for the tests and for `unetzoo plugin check`."""

from pathlib import Path

from unetzoo.testing import Case
from unetzoo.twins import write


def _drawn(folder: Path) -> str:
    return str(write("unetzoo-template-data", folder / "data", size=32))


CASES = [
    Case("model", "unetzoo-template-net", {"width": 4, "levels": 3}),
    Case("loss", "unetzoo-template-loss", task="multiclass"),
    Case("metric", "unetzoo-template-metric", task="multiclass"),
    Case("dataset", "unetzoo-template-data", lambda folder: {"root": _drawn(folder)}, name="unetzoo-template-data"),
    Case(
        "recipe",
        "unetzoo-template-demo",
        lambda folder: {"data.root": _drawn(folder), "train.batch_size": 2},
        name="unetzoo-template-demo",
    ),
]
