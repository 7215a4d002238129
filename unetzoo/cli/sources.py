"""What a path on the command line is: a recipe, a run, or data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from ..errors import ConfigError, DataError, UnknownNameError, did_you_mean
from ..registry import RECIPES


def kind_of(source: str) -> Literal["recipe", "run", "data"]:
    """Decide what a source is.

    The name of a recipe and a `.toml` file are recipes, a folder with `recipe.json` is a run, and any other folder or
    file is data; a `.json` file is a recipe if it has a model.

    Raises:
        ConfigError: The name of a recipe is also a file or folder here.
        UnknownNameError, DataError: There is no such recipe, folder or file.
    """
    place, is_name = Path(source), source in RECIPES
    if is_name and place.exists():
        raise ConfigError("a recipe and a folder of the same name", subject=source,
                          hint=f"write ./{source} for the folder, or unetzoo:{source} for the recipe")  # fmt: skip
    if place.is_dir():
        return "run" if any((place / name).exists() for name in ("recipe.json", "best", "checkpoints")) else "data"
    if is_name or place.suffix == ".toml":
        return "recipe"
    if not place.exists():
        hint = did_you_mean(source, RECIPES.names(), "recipe")
        if source.isidentifier():  # a misspelled name is likelier than a missing folder
            raise UnknownNameError(f"unknown recipe {source!r}", found="no such folder either", hint=hint)
        raise DataError("no such recipe or folder", subject=source, hint="check the path; " + hint)
    return "recipe" if place.suffix == ".json" and _has_model(place) else "data"


def _has_model(path: Path) -> bool:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(table, dict) and "model" in table
