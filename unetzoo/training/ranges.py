"""The declared range of the images of a recipe."""

from __future__ import annotations

import json
import warnings
from typing import Any

from ..datasets import RepeatedDataset
from ..datasets.stats import CLIPPED, clipped, percentile_range
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
    share = clipped(dataset)
    hint = 'data.range = "percentile" computes one'
    if share > 0.99:
        raise DataError("the range clips the images", subject=dataset.root, expected="values inside the range",
                        found=f"{share:.1%} outside", hint=hint)  # fmt: skip
    if share > CLIPPED:
        warnings.warn(f"the range clips {share:.1%} of the values of the images; {hint}", stacklevel=3)
