"""The declared range of the images of a recipe."""

from __future__ import annotations

import json
import warnings
from typing import Any

from ..datasets import RepeatedDataset
from ..datasets.cache import CachedDataset
from ..datasets.stats import clipping, percentile_range
from ..errors import DataError
from ..registry import DATASETS
from .recipe import Recipe, load


def with_range(recipe: Recipe) -> Recipe:
    """The recipe with the percentiles of the training images in place of `range = "percentile"`."""
    if (recipe.data.model_extra or {}).get("range") != "percentile":
        return recipe
    dataset = DATASETS.build(recipe.data.name, **recipe.data.of("train"))
    if getattr(getattr(dataset, "pixels", None), "range", None) != "percentile":
        return recipe
    return load(recipe, [f"data.range={json.dumps(percentile_range(dataset))}"])


def check_range(dataset: Any) -> None:
    """Warn if the declared range of the images clips many values.

    Raises:
        DataError: It clips all of them.
    """
    dataset = dataset.dataset if isinstance(dataset, RepeatedDataset) else dataset
    dataset = dataset.source if isinstance(dataset, CachedDataset) else dataset
    found = clipping(dataset)
    if found is None:
        return
    if found.share > 0.99:
        raise DataError("the range clips the images", subject=dataset.root, expected="values inside the range",
                        found=str(found), hint=f'set data.{found.line}, or data.range = "percentile"')  # fmt: skip
    warnings.warn(f'{found} in [data], or range = "percentile"', stacklevel=3)
