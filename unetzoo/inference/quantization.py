"""Post-training quantization of a network to INT8, accepted only if its score is unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import CheckpointMismatchError, ConfigError
from ..heads import heads_of, split_heads
from .engines import Engine
from .padding import pad_mirrored
from .pipeline import TRIAL, Pipeline

TOLERANCE = 0.005
IMAGES = 100  # used for calibration, at most
COMPARED = 4  # images on which the layers are compared
SHOWN = 5  # layers in an error


class Calibration(NamedTuple):
    """Data by which a network is quantized.

    Args:
        images: Preprocessed images (N, C, H, W), such as those of the validation split.
        score: Returns the score of a network on the validation split.
        name: Name of the score.
    """

    images: Iterable[Tensor]
    score: Callable[[nn.Module], float]
    name: str = "score"


class Quantized(NamedTuple):
    """Scores before and after quantization.

    Args:
        name: Name of the score.
        before: Score of the original network in float32.
        after: Score of the quantized network.
        kept: Layers kept in float32.
    """

    name: str
    before: float
    after: float
    kept: tuple[str, ...]


def quantize(
    pipeline: Pipeline, size: tuple[int, int] | None, calibration: Calibration
) -> tuple[Quantized, Any, nn.Module]:
    """Quantize the network of a pipeline to INT8.

    Args:
        pipeline: The pipeline.
        size: (height, width) of all images; None if it is free.
        calibration: Images and score.

    Returns:
        The scores, the OpenVINO model, and the same as a network.

    Raises:
        ConfigError: There are no images.
        CheckpointMismatchError: The score differs by more than 0.005, also with the first and last layer in float32.
            The error lists the layers that change the most labels.
    """
    from .openvino import compiled, input_of, layers_of, network_model, quantized

    batches = _batches(pipeline, calibration)
    model = network_model(pipeline.net, input_of(pipeline, size or TRIAL), fixed=size is not None)
    with torch.no_grad():
        _, rebuild = split_heads(pipeline.net(torch.from_numpy(batches[0])))
    before, layers = calibration.score(pipeline.net), layers_of(model)
    ends = [*layers][:1] + [*layers][-1:]
    scores = []
    for ignored in ([], ends):
        reduced = quantized(model, batches, ignored)
        engine = Engine(pipeline.net, compiled(reduced, "int8"), rebuild)
        scores.append(calibration.score(engine))
        if abs(scores[-1] - before) <= TOLERANCE:
            kept = tuple(layers[name] for name in ignored)
            return Quantized(calibration.name, before, scores[-1], kept), reduced, engine
    changes = _changes_by_layer(pipeline.net, model, batches)
    worst = sorted(changes.items(), key=lambda entry: -entry[1])[:SHOWN]
    raise CheckpointMismatchError(
        "quantization changes the score",
        subject=calibration.name,
        expected=f"{before:.4f} ± {TOLERANCE:g}",
        found=f"{scores[0]:.4f}, and {scores[1]:.4f} with the first and last layer in float32; labels changed by "
        + ", ".join(f"{layer} alone: {share:.2%}" for layer, share in worst),
        hint="no file was left; export without INT8, or train the network longer",
    )


def _batches(pipeline: Pipeline, calibration: Calibration) -> list[np.ndarray]:
    singles = (image[None].float().cpu() for batch in calibration.images for image in batch)
    padded = [pad_mirrored(image, pipeline.geometry).contiguous().numpy() for image in islice(singles, IMAGES)]
    if not padded:
        raise ConfigError("no images to calibrate with", subject="int8", hint="give images of the validation split")
    return padded


def _changes_by_layer(net: nn.Module, model: Any, batches: Sequence[np.ndarray]) -> dict[str, float]:
    """Return the share of labels that change if only one layer is quantized, for each layer."""
    from .openvino import compiled, layers_of, quantized

    some, layers = batches[:COMPARED], layers_of(model)
    with torch.no_grad():
        expected = [_classes(next(iter(heads_of(net(torch.from_numpy(batch))).values())).numpy()) for batch in some]
    changes = {}
    for name, layer in layers.items():
        run = compiled(quantized(model, some, [other for other in layers if other != name]), "int8")
        found = [_classes(run(batch)[0]) for batch in some]
        differing = sum(int((one != other).sum()) for one, other in zip(found, expected, strict=True))
        changes[layer] = changes.get(layer, 0.0) + differing / sum(one.size for one in expected)
    return changes


def _classes(logits: np.ndarray) -> np.ndarray:
    return logits.argmax(1) if logits.shape[1] > 1 else logits > 0
