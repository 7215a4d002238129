"""The cases of an installed distribution: those it declares, and one for every other name it adds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import PluginContractError, UnknownNameError, did_you_mean
from ..plugins import Distribution, Entry, installed, normalize
from ..registry import REGISTRIES
from .case import Case


def distribution(name: str) -> Distribution:
    """An installed distribution that adds something.

    Raises:
        UnknownNameError: With the nearest spelling.
    """
    known = {found.name: found for found in installed()}
    if normalize(name) not in known:
        raise UnknownNameError(
            f"no installed distribution {name!r} has entry points of unetzoo",
            hint=did_you_mean(normalize(name), known, "distribution"),
        )
    return known[normalize(name)]


def cases_of(name: str) -> list[Case]:
    """What `unetzoo plugin check` runs on.

    The distribution declares cases by an entry point in the group `unetzoo.checks`, whose value is a list of `Case`, or
    a function that returns one. A name without a case is checked as it is built without arguments.

    Args:
        name: An installed distribution.

    Raises:
        UnknownNameError: No such distribution.
        PluginLoadError: The cases cannot be imported.
        PluginContractError: What is declared is no list of cases.
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
            "these are no cases",
            subject=f"{found.name} ({found.checks.target})",
            expected="a list of unetzoo.testing.Case, or a function that returns one",
            found=type(value).__name__,
        )
    return cases


def _default(entry: Entry) -> Case:
    return Case(REGISTRIES[entry.kind].kind, entry.qualified, name=entry.name)


def _order(kind: str) -> int:
    return [registry.kind for registry in REGISTRIES.values()].index(kind)
