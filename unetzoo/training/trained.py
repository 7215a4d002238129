"""What a run has trained, for whoever uses it: the best network with all that belongs to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import Tensor

from ..bundle import ModelBundle, Preprocess
from ..datasets import Transform, sample_rng
from ..errors import CheckpointError, ConfigError
from ..labels import LabelSpec
from ..registry import MODELS
from .recipe import Recipe, load
from .sections import build_component

CUTTING = ("mirror", "crop")  # what makes a window of an image; predictions are of the whole


def load_run(run: str | Path) -> ModelBundle:
    """What predictions need of a run: the best network, its labels, its preparation of images, its threshold.

    The preparation is what validation does, but for `mirror` and `crop`: whole images are predicted.

    Raises:
        ConfigError: Not a run folder.
        CheckpointError: No network in it.
    """
    folder = Path(run)
    if not (folder / "recipe.json").is_file():
        found = "no such folder" if not folder.exists() else "no recipe.json in it"
        raise ConfigError("not a run folder", subject=run, found=found, hint="give a folder that `unetzoo train` wrote")
    recipe = load(folder)
    try:
        labels = LabelSpec.from_dict(json.loads((folder / "labels.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError("cannot read the run's label set", subject=run, found=str(error)) from error
    options = recipe.metrics["mask"].options if "mask" in recipe.metrics else {}
    return ModelBundle(
        best_network(folder, recipe),
        labels,
        preparation(recipe, labels),
        threshold_of(options),
        multilabel=options.get("mode") == "multilabel",
        name=recipe.model.name,
    )


def best_network(folder: Path, recipe: Recipe) -> Any:
    """The best network of a run, in evaluation mode.

    Raises:
        CheckpointError: There is none, or it cannot be read.
    """
    from ..models import from_pretrained

    best = folder / "best"
    if not best.exists():
        raise CheckpointError(
            "no trained network",
            subject=folder,
            expected="the folder 'best' in it",
            hint="the first epoch writes it: go on training with --resume",
        )
    if (best / "config.json").exists():
        return from_pretrained(best)
    net = build_component("[model]", MODELS, recipe.model.name, **recipe.model.options)
    try:
        load_model(net, best / "model.safetensors")  # which knows tensors that are shared, and kept once
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError("cannot read the weights", subject=best, found=str(error)) from error
    return net.eval()


def preparation(recipe: Recipe, labels: LabelSpec) -> Callable[[Any], Tensor]:
    """What validation does to an image, without what crops it; a `Preprocess`, unless albumentations is involved."""
    options = {key: value for key, value in recipe.transform.of("val").items() if key not in CUTTING}
    transform = type(recipe.transform)(val=options).build("val", labels)
    if isinstance(transform, Transform) and not transform.train:
        return Preprocess(transform.size, transform.normalize)
    return lambda image: transform({"image": image}, sample_rng(0, 0, 0))["image"]


def threshold_of(options: dict[str, Any]) -> float | Sequence[float] | None:
    """The threshold of a mask's metric; 0.5 is what it is anyway."""
    threshold = options.get("threshold")
    return None if threshold in (0.5, [0.5]) else threshold
