"""`unetzoo.load`: open shipped weights, a run folder, a saved network or an exported file for prediction."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bundle import ModelBundle
from .errors import CheckpointError, did_you_mean
from .inference.artifact import SUFFIXES, Artifact, load_artifact
from .inference.predictor import Predictor
from .models.weights import from_pretrained
from .registry import WEIGHTS
from .training.folders import FOLDS
from .training.trained import load_run

if TYPE_CHECKING:
    import numpy as np

    from .inference.results import SegmentationResult

FOREIGN = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")


class LoadedModel(ModelBundle):
    """A `ModelBundle` with a `predict` method, returned by `unetzoo.load` for a run folder or a saved network."""

    __slots__ = ()

    def predict(self, image: str | os.PathLike[str] | np.ndarray, **options: Any) -> SegmentationResult:
        """Predict one image with the preprocessing, labels and threshold of the network.

        Args:
            image: A file, or a decoded image, uint8 (H, W) or (H, W, C).
            options: Options of `unetzoo.Predictor`: `tile`, `tta`, `threshold`, …

        Returns:
            Label map, probabilities and, if the network has a depth head, depth, at the image's size.

        Raises:
            DataError: The file cannot be read.
            ConfigError: The preprocessing of the network is unknown, or an option is invalid.
        """
        return Predictor(self, **options).segment(image)


def load(path: str | os.PathLike[str]) -> LoadedModel | Artifact:
    """Open shipped weights, a run folder, a saved network or an exported artifact.

    Args:
        path: A folder written by `unetzoo.train` (of folds: their ensemble), a `Trainer` or `save_pretrained`; an
            `.onnx` or `.pt2` file or `.openvino` folder written by `unetzoo.export`; or the name of weights that this
            package or a plugin ships (`unetzoo.WEIGHTS.names()`), unless a folder of that name holds a network.
            (Opening a `.pt2` file may execute code: only open files that you trust.)

    Returns:
        A `ModelBundle` with `.model` (in evaluation mode), `.labels`, `.preprocess` and `.predict(image)`; or an
        `Artifact`, which can be called on an image, and which `unetzoo.Predictor` accepts.

    Raises:
        CheckpointError: The path contains nothing written by this library, or files are damaged.

    Examples:
        >>> import tempfile, unetzoo
        >>> unetzoo.load("nuclei").labels.names
        ('background', 'nucleus', 'border')
        >>> net = unetzoo.build("bnunet", classes=3, encoder_channels=(4, 8, 16))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = net.save_pretrained(folder)
        ...     type(unetzoo.load(folder).model).__name__
        'BNUNet'
    """
    place = Path(path)
    if is_artifact(place):
        return load_artifact(place)
    if (place / FOLDS).is_file():
        from .folds import load_folds

        return LoadedModel(*load_folds(place))
    if (place / "recipe.json").is_file() or (place / "best").is_dir():
        return LoadedModel(*load_run(place))
    if (place / "config.json").is_file():
        return LoadedModel(*ModelBundle.of(from_pretrained(place)))
    if str(path) in WEIGHTS:
        bundle = ModelBundle.of(from_pretrained(WEIGHTS.get(str(path))))
        return LoadedModel(*bundle._replace(name=str(path).rpartition(":")[2]))
    raise CheckpointError(
        "nothing to load",
        subject=path,
        expected="the name of weights, a run folder, a folder that save_pretrained wrote, or an export "
        f"({', '.join(SUFFIXES.values())})",
        found=_described(place),
        hint=_hint(place),
    )


def is_artifact(path: str | os.PathLike[str]) -> bool:
    """Whether a path is named like an exported file."""
    place = Path(path)
    return place.suffix in SUFFIXES.values() and place.is_dir() <= (place.suffix == SUFFIXES["openvino"])


def _described(place: Path) -> str:
    if place.is_dir():
        names = sorted(entry.name for entry in place.iterdir())
        shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
        return f"a folder with {shown}" if names else "an empty folder"
    if place.is_file():
        return f"a file of {place.stat().st_size:,} bytes"
    return "no such file or folder"


def _hint(place: Path) -> str:
    if place.suffix.lower() in FOREIGN:
        return f'other authors\' weights: unetzoo.from_foreign("{place}")'
    if place.is_dir() and (place / "checkpoints").is_dir():
        return "the first epoch of this run has not ended: go on with `unetzoo train … --resume`"
    if not place.exists():
        shipped = did_you_mean(str(place), WEIGHTS.names(), "shipped network")
        return f"check the path, or {shipped}; for a hub repository use unetzoo.from_pretrained"
    return "give one of these"
