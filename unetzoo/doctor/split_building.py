"""Build the dataset of each split as training does, to learn which files belong to it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..datasets.layout import FileLayout
from ..datasets.listing import list_images
from ..errors import ConfigError, PluginError, UnetzooError
from ..registry import DATASETS, check_keywords, keywords
from ..wording import describe
from .stacks import silent

SPLITS = ("train", "val", "test")
Options = Mapping[str, Any]


def build_splits(
    dataset: str, root: Path | None, options: Options, splits: Mapping[str, Options] | None = None
) -> tuple[dict[str, Any], dict[str, UnetzooError]]:
    """Build the dataset of each split.

    Args:
        dataset: Registry name.
        root: Root of the data, or None.
        options: Arguments for all splits.
        splits: Additional arguments of each split; train, val and test by default, if the dataset takes a split.

    Returns:
        The datasets that can be built, and the errors of the others, by split.

    Raises:
        UnknownNameError: Unknown dataset or argument.
        ConfigError: Arguments that every split rejects.
    """
    target = DATASETS.get(dataset)
    known = keywords(target)
    check_keywords(target, dict(options), f"dataset {dataset!r}")
    if splits is None:
        divided = "split" in known and "split" not in options
        splits = {name: {"split": name} for name in SPLITS} if divided else {str(options.get("split", "all")): {}}
    where = {"root": root} if root is not None and "root" in known else {}
    built: dict[str, Any] = {}
    errors: dict[str, UnetzooError] = {}
    for name, own in splits.items():
        try:
            with silent(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # e.g. the labels of this split are not public
                built[name] = target(**where, **options, **own)
        except UnetzooError as error:
            errors[name] = error
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may raise anything, SystemExit included
            errors[name] = PluginError("the dataset cannot be built", subject=f"{dataset!r}, split {name!r}",
                                       found=describe(error), hint="report it to its author")  # fmt: skip
    if not built and errors and all(isinstance(error, ConfigError) for error in errors.values()):
        raise next(iter(errors.values()))
    return built, errors


def files_by_split(built: Mapping[str, Any], root: Path, layout: FileLayout, options: Options) -> dict[str, str]:
    """Relative path → split, for every file that the datasets read."""
    splits: dict[str, str] = {}
    for split, dataset in built.items():
        for path in _files(dataset, root, layout, options):
            splits.setdefault(_relative(path, root), split)
    return splits


def _files(dataset: Any, root: Path, layout: FileLayout, options: Options) -> list[Path]:
    try:
        if hasattr(dataset, "foregrounds"):  # each split uses a part of both folders
            folders = ((options.get("fg", "fg"), dataset.foregrounds), (options.get("bg", "bg"), dataset.backgrounds))
            return [list_images(root / name)[number] for name, numbers in folders for number in numbers]
        return [] if layout.stacked else list(dataset.sources())
    except (AttributeError, UnetzooError):
        return []


def _relative(path: Path, root: Path) -> str:
    """As strings, because pathlib is slow for the 390,000 part files of CelebAMask-HQ."""
    return os.fspath(path).removeprefix(os.path.join(root, "")).replace(os.sep, "/")


def raise_first(built: Mapping[str, Any], errors: Mapping[str, UnetzooError]) -> None:
    """Raise the first error if no split can be built."""
    if not built and errors:
        raise next(iter(errors.values()))
