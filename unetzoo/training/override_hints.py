"""Hints for overrides that leave arguments of the former component, and for faulty files."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ..errors import DataError, UnknownKeywordError
from ..registry import DATASETS, METRICS, MODELS, keywords
from ..wording import inline
from .optim import OPTIMIZERS
from .schedule import SCHEDULERS, Schedule
from .sections import Data


def with_keywords(error: UnknownKeywordError, table: Mapping[str, Any], sets: Sequence[str]) -> UnknownKeywordError:
    """The error with an override that works, if one that changed a name left the rejected argument behind.

    Args:
        error: The error about the unknown keyword.
        table: The recipe with its overrides.
        sets: The overrides.
    """
    given = {assignment.partition("=")[0].strip() for assignment in sets}
    section = str(error.subject).lstrip("[").split()[0].rstrip("]")  # "[model] unet", "optimizer 'adam'"
    if f"{section}.name" not in given or section.partition(".")[0] not in _TAKEN:
        return error
    component: Any = table
    for key in section.split("."):
        component = component[key]
    kept, left = _divided(component, _TAKEN[section.partition(".")[0]](component["name"]))
    if not any(f"{section}.{path}" not in given for path in left):
        return error
    whole = shlex.quote(f"{section}={inline(kept)}")
    hint = f"replace its arguments too: --set {whole} instead of --set {section}.name={component['name']}"
    return error.replace(hint=hint)


def with_doctor(error: DataError, options: Mapping[str, Any], dataset: Any) -> DataError:
    """The error of a file with advice to find all faulty files at once.

    Args:
        error: The error.
        options: Arguments of the dataset.
        dataset: The dataset; its root differs from that of the arguments if that is an archive.
    """
    root = options.get("root")
    if root is None or not str(error.subject).startswith(str(getattr(dataset, "root", root))):
        return error
    hint = f"{error.hint or 'correct the file'}; unetzoo doctor {shlex.quote(str(root))} lists all problems"
    return error.replace(hint=hint)


_TAKEN: dict[str, Callable[[str], set[str]]] = {  # section → name → the keys that the component takes
    "model": lambda name: {"name", *keywords(MODELS.get(name))},
    "data": lambda name: {*Data.model_fields, *keywords(DATASETS.get(name))},
    "optimizer": lambda name: {"name", *keywords(OPTIMIZERS[name])},
    "scheduler": lambda name: {"name", *keywords(Schedule), *keywords(SCHEDULERS[name])},
    "metrics": lambda name: {"name", "every", *keywords(METRICS.get(name))},
}


def _divided(table: Mapping[str, Any], known: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """The known part of a table, and the paths of unknown keys, also in the tables of splits ([data.train])."""
    kept: dict[str, Any] = {}
    left: list[str] = []
    for key, value in table.items():
        if key not in known:
            left.append(key)
        elif key in ("train", "val") and isinstance(value, Mapping):
            inner, rest = _divided(value, known)
            kept |= {key: inner} if inner else {}
            left += [f"{key}.{path}" for path in rest]
        else:
            kept[key] = value
    return kept, left
