"""Checks of recipes: they load, and their components fit together."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets import sample_rng
from ..errors import UnetzooError
from .case import Case
from .kit import Blocked, check, require

KIND = "recipe"
SAMPLES = 12  # per split


@check(KIND, first=True)
def loads(case: Case) -> None:
    """`unetzoo train NAME` reads the recipe and resolves every name and keyword before it starts."""
    _recipe(case)


@check(KIND, independent=True)
def portable(case: Case) -> None:
    """Paths of the author's machine do not exist elsewhere; users set them with `--set data.root=…`."""
    path = re.compile(r"^(/|~|[A-Za-z]:[\\/]|file:)")
    found = [value for value in _texts(_table(case)) if path.match(value)]
    require(not found, "no machine-specific path", ", ".join(found))


@check(KIND)
def trains(case: Case) -> None:
    """Network, data, loss and optimizer may be correct on their own and still not fit together."""
    row, moved = _one_step(case)
    wrong = {key: value for key, value in row.items() if key.startswith("train/") and not math.isfinite(value)}
    require(not wrong, "a finite loss in the first step", wrong)
    require(moved, "a step that changes the weights", "the same weights")


@check(KIND)
def monitor(case: Case) -> None:
    """The best network of a run is chosen by the monitored score, which must be one of the scores."""
    wanted = _recipe(case).train.monitor
    try:
        row, _ = _one_step(case)
    except UnetzooError as error:
        raise Blocked(f"{case}: check 'trains' fails") from error
    require(wanted is None or wanted in row, f"train.monitor among {', '.join(row)}", wanted)


@check(KIND)
def held_out(case: Case) -> None:
    """Scores on training images do not generalize."""
    from ..training.run import make_dataset

    recipe = _recipe(case)
    train, val = (_raw(make_dataset(recipe, split, progress=False)) for split in ("train", "val"))
    shared = [name for name, image in val.items() if name in train and np.array_equal(train[name], image)]
    require(not shared, "validation images that are not in the training set", ", ".join(shared[:5]))


def _recipe(case: Case) -> Any:
    from ..training import load_recipe

    return load_recipe(_file(case), [f"{key}={json.dumps(value)}" for key, value in case.options.items()])


def _file(case: Case) -> Path:
    source = case.load()
    if isinstance(source, str) and "\n" in source:
        file = case.folder / "recipe.toml"
        file.write_text(source, encoding="utf-8")
        return file
    return Path(source)


def _table(case: Case) -> dict[str, Any]:
    import tomllib

    return tomllib.loads(_file(case).read_text(encoding="utf-8"))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _one_step(case: Case) -> tuple[dict[str, float], bool]:
    """Train one step on a few samples, once per case: the first row of scores, and whether the weights changed."""
    if "step" not in case.memo:
        import torch

        from ..training.run import make_dataset, make_trainer

        recipe = _recipe(case)
        recipe.train.monitor, recipe.train.epochs, recipe.train.steps, recipe.train.stages = None, None, 1, []
        train, val = (_Few(make_dataset(recipe, split, progress=False)) for split in ("train", "val"))
        trainer = make_trainer(recipe, train.labels, progress=False)
        before = [p.detach().clone() for p in trainer.net.parameters()]
        row = trainer.fit(train, val)[0]
        moved = any(not torch.equal(old, new) for old, new in zip(before, trainer.net.parameters(), strict=True))
        case.memo["step"] = row, moved
    return case.memo["step"]


def _raw(data: Any) -> dict[str, Any]:
    few = _Few(data, SAMPLES)
    return {sample["id"]: sample["image"] for sample in (few.data[index] for index in range(len(few)))}


class _Few:
    """The first samples of a dataset, with its transform."""

    def __init__(self, data: Any, limit: int = 2) -> None:
        self.data, self.limit, self.labels, self.transform = data, limit, data.labels, data.transform
        data.transform = None

    def __len__(self) -> int:
        return min(self.limit, len(self.data))

    def __getitem__(self, index: int) -> Any:
        sample = self.data[index]
        return sample if self.transform is None else self.transform(sample, sample_rng(0, 0, index))
