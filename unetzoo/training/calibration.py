"""The validation data of a run, by which `export` quantizes its network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from ..inference.quantization import Calibration
from .recipe import load
from .run import make_dataset, make_trainer
from .trained import best_network


def calibration_of(run: str | Path) -> Calibration:
    """Return the validation images of a run, and the score that decides which epoch is best, for `export(int8=…)`.

    Networks are scored in float32, on whole images, as `unetzoo evaluate` does.

    Args:
        run: A run folder.

    Raises:
        ConfigError: The folder is not a run folder.
        CheckpointError: The folder has no network.
        DataError: The validation data is missing or faulty.
    """
    recipe = load(run, ["train.precision=fp32"])
    data = make_dataset(recipe, "val", progress=False)
    trainer = make_trainer(recipe, data.labels, net=best_network(Path(run), recipe), progress=False)
    known: dict[str, float] = {}

    def images() -> Iterator[Tensor]:
        for number in range(len(data)):
            yield torch.as_tensor(data[number]["image"])[None]

    def score(net: nn.Module) -> float:
        known.update(trainer.evaluator.scores(net, data))
        return known[trainer.settings.monitor_among([*known])]

    return Calibration(images(), score, recipe.train.monitor or "score")
