"""Choose the folder of a run, and refuse to mix two runs in it."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import CheckpointError, ConfigError
from .recipe import Recipe, saved_recipe
from .resume import check_same

FOLDS = "folds.json"  # in the folder of a cross-validation


def run_folder(source: str | Path | Recipe, out: str | Path | None, *, fast: bool, resume: bool) -> Path:
    """Return the folder of a run: `out`, the run to continue, or a new one."""
    if out is not None:
        return Path(out)
    if isinstance(source, Recipe):
        return new_run_folder(source.data.name)
    is_run = Path(source).is_dir()
    if is_run and resume:
        return Path(source)
    name = Path(source).stem + ("-fast" if fast and not is_run else "")
    return Path("runs", name) if resume else new_run_folder(name)


def new_run_folder(name: str) -> Path:
    """Return `runs/NAME`, with a number appended if that folder holds a run.

    Raises:
        ConfigError: There is a run, and several processes would each choose a folder.
    """
    folder, number = Path("runs", name), 2
    while any((folder / file).exists() for file in ("recipe.json", "plan.toml")):
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError("several processes must agree on the run folder", subject=folder, hint="give --out")
        folder, number = Path("runs", f"{name}-{number}"), number + 1
    return folder


def check_folder(folder: Path, recipe: Recipe, resume: bool) -> None:
    """Refuse to mix two runs, before anything is written."""
    there = folder / "recipe.json"
    if (folder / FOLDS).exists():
        raise ConfigError("the run folder holds a cross-validation", subject=folder,
                          hint="--folds N --resume continues it (N: folds.json); or give another --out")  # fmt: skip
    if there.exists() and not resume:
        raise ConfigError("the run folder holds a run", subject=folder, hint="--resume it, or give another --out")
    if resume and not there.exists():
        raise CheckpointError("no checkpoint to resume from", subject=folder, hint="train without --resume")
    if resume:
        check_same(saved_recipe(folder), recipe.to_dict(), folder)
