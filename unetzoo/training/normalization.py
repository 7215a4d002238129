"""Normalization of images as an encoder saw them when it was pretrained."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

from ..errors import ConfigError
from ..registry import MODELS, keywords
from .sections import Model


def fill_in_statistics(table: dict[str, Any]) -> None:
    """Replace `normalize = "encoder"` with the statistics of the images on which the encoder was pretrained."""
    transform = table.get("transform")
    parts = [transform, transform.get("train"), transform.get("val")] if isinstance(transform, dict) else []
    parts = [part for part in parts if isinstance(part, dict) and part.get("normalize") == "encoder"]
    if not parts:
        return
    statistics = statistics_of_encoder(Model.model_validate(table.get("model", {})))
    if statistics is None:
        raise ConfigError('normalize = "encoder" needs a model with a known encoder', subject="[model] encoder_name",
                          hint="give normalize = { mean = […], std = […] }")  # fmt: skip
    for part in parts:
        part["normalize"] = statistics


def statistics_of_encoder(model: Model) -> dict[str, list[float]] | None:
    """The statistics of the images on which the encoder of a model was pretrained; None without such an encoder.

    Raises:
        ConfigError: They are not known, or do not fit the number of channels.
    """
    from ..models.pretrained import encoder_statistics

    known = keywords(MODELS.get(model.name))
    if "encoder_name" not in known:
        return None
    name = model.options.get("encoder_name", known["encoder_name"].default)
    if not isinstance(name, str):
        return None
    channels = model.options.get("in_channels", known["in_channels"].default)
    statistics = encoder_statistics(name)
    if channels == 1:
        return {key: [sum(values) / len(values)] for key, values in statistics.items()}
    if channels != len(statistics["mean"]):
        raise ConfigError("the encoder's statistics are for 3 channels", subject=name, found=f"in_channels={channels}",
                          hint="give normalize = { mean = […], std = […] }; unetzoo stats computes them")  # fmt: skip
    return statistics


def check_normalization(model: Model, normalize: Any) -> None:
    """Warn if a pretrained encoder gets images that are normalized differently."""
    if model.options.get("encoder_weights") is None:
        return
    with contextlib.suppress(ConfigError):  # the statistics are not known
        wanted = statistics_of_encoder(model)
        if wanted is not None and normalize != wanted:
            warnings.warn(
                f"the encoder was pretrained on images normalized by {wanted}, and gets {normalize!r}; "
                'set normalize = "encoder" in [transform]',
                stacklevel=4,
            )
