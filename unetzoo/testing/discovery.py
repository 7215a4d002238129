"""The cases of an installed distribution: those it declares, plus one for every other name it adds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import PluginContractError, UnknownNameError, did_you_mean
from ..plugins import Distribution, Entry, installed, normalize
from ..registry import REGISTRIES
from .case import Case


def distribution(name: str) -> Distribution:
    """Look up an installed distribution with entry points of ours.

    Raises:
        UnknownNameError: No such distribution; the hint names similar ones.
    """
    known = {found.name: found for found in installed()}
    if normalize(name) not in known:
        raise UnknownNameError(
            f"no installed distribution {name!r} has entry points of unetzoo",
            hint=did_you_mean(normalize(name), known, "distribution"),
        )
    return known[normalize(name)]


def cases_of(name: str) -> list[Case]:
    """The cases that `unetzoo plugin check` runs.

    The distribution declares cases by an entry point in the group `unetzoo.checks`, whose value is a list of `Case`, or
    a function that returns one. Every other name of the distribution is built without arguments.

    Args:
        name: Name of an installed distribution.

    Raises:
        UnknownNameError: No such distribution.
        PluginLoadError: The cases cannot be imported.
        PluginContractError: The declared value is not a list of cases.
    """
    found = distribution(name)
    declared = _declared(found)
    covered = {(case.kind, case.target.rpartition(":")[2]) for case in declared if case.named}
    rest = [entry for entry in found.entries if (REGISTRIES[entry.kind].kind, entry.name) not in covered]
    return sorted([*declared, *map(_default, rest)], key=lambda case: _order(case.kind))


def _declared(found: Distribution) -> list[Case]:
    if found.checks is None:
        return []
    value = found.checks.load()
    given: Any = value() if callable(value) else value
    cases = list(given) if isinstance(given, Iterable) else [given]
    if not all(isinstance(case, Case) for case in cases):
        raise PluginContractError(
            "not a list of cases",
            subject=f"{found.name} ({found.checks.target})",
            expected="a list of unetzoo.testing.Case, or a function that returns one",
            found=type(value).__name__,
        )
    return cases


def _default(entry: Entry) -> Case:
    return Case(REGISTRIES[entry.kind].kind, entry.qualified, name=entry.name)


def _order(kind: str) -> int:
    return [registry.kind for registry in REGISTRIES.values()].index(kind)
