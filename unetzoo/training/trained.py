"""Load the best network of a run with its labels and preprocessing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_model

from ..bundle import FILE, WEIGHTS, ModelBundle
from ..errors import CheckpointCorruptError, CheckpointError, ConfigError
from ..io import MANIFEST, RESTORE, check_manifest
from ..labels import LabelSpec
from ..registry import MODELS
from .bundling import decisive, preprocess_of
from .recipe import Recipe, recorded
from .sections import build_component


def load_run(run: str | Path) -> ModelBundle:
    """Load what prediction needs from a run: the best network, its labels, image preprocessing and threshold.

    The preprocessing is that of validation without `mirror` and `crop`, since whole images are predicted. Runs of a
    `Trainer` used from Python can be loaded too; anything their data did not provide remains unknown.

    Args:
        run: A folder written by `unetzoo train` or a `Trainer`.

    Raises:
        ConfigError: The folder is not a run folder.
        CheckpointError: The folder has no network, or its files are damaged.
    """
    folder = Path(run)
    recipe = recorded(folder) if (folder / "recipe.json").is_file() else None
    if recipe is None and not (folder / "best").is_dir():
        found = "no such folder" if not folder.exists() else "neither recipe.json nor best in it"
        hint = "give a folder written by `unetzoo train` or a Trainer"
        raise ConfigError("not a run folder", subject=run, found=found, hint=hint)
    bundle = ModelBundle.of(best_network(folder, recipe))
    if recipe is None:
        return bundle
    if bundle.labels is None:
        options = next((metric.options for metric in recipe.metrics_of("mask")), {})
        bundle = bundle._replace(
            labels=_labels(folder),
            threshold=decisive(options.get("threshold")),
            mode=options.get("mode"),
        )
    if bundle.preprocess is None:
        bundle = bundle._replace(preprocess=preprocess_of(recipe.transform.build("val", bundle.labels)))
    bundle = bundle._replace(name=recipe.model.name)
    bundle.attach()
    return bundle


def best_network(folder: Path, recipe: Recipe | None = None) -> Any:
    """Return the best network of a run, in evaluation mode.

    Args:
        folder: The run folder.
        recipe: The recipe of the run; needed for networks without `save_pretrained`.

    Raises:
        CheckpointError: There is no network, or it cannot be read.
    """
    best = folder / "best"
    if not best.exists():
        raise CheckpointError(
            "no trained network",
            subject=folder,
            expected="the folder 'best' in it",
            hint="it is written after the first epoch; continue training with --resume",
        )
    while True:
        before = _manifest(best)
        try:
            return _loaded(best, recipe)
        except CheckpointCorruptError:
            if _manifest(best) == before:  # otherwise the run is still going, and has just replaced it
                raise


def _loaded(best: Path, recipe: Recipe | None) -> Any:
    from ..models import from_pretrained
    from ..models.states import check_finite

    if not check_manifest(best):
        raise CheckpointCorruptError("the file is missing", subject=best / MANIFEST, hint=RESTORE)
    if (best / "config.json").exists() or recipe is None:
        return from_pretrained(best)
    options = recipe.model.options
    untrained = {"encoder_weights": None} if "encoder_weights" in options else {}  # the file may be gone
    net = build_component("[model]", MODELS, recipe.model.name, **{**options, **untrained})
    try:
        load_model(net, best / WEIGHTS)  # handles shared tensors, which are stored once
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError("cannot read the weights", subject=best, found=str(error)) from error
    if (best / FILE).is_file():
        ModelBundle.load(best, net).attach()
    check_finite(net.state_dict(), best)
    return net.eval()


def _labels(folder: Path) -> LabelSpec:
    try:
        return LabelSpec.from_dict(json.loads((folder / "labels.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError("cannot read the run's label set", subject=folder, found=str(error)) from error


def _manifest(best: Path) -> bytes:
    try:
        return (best / MANIFEST).read_bytes()
    except OSError:
        return b""
