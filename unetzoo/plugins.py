"""What installed distributions offer us, read from their metadata alone: nothing is imported. Standard library only.

A distribution may say which versions of the plugin API it was written for:

    [project.entry-points."unetzoo.api"]
    1 = "acme_seg"

The name is the version, the value the package (packaging asks for one). A distribution that says nothing is taken to
speak version 1. `UNETZOO_PLUGINS=none`, or a comma-separated list of distributions, switches all others off.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import PluginLoadError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

API = 1
BUILTIN = "unetzoo"
SWITCH = "UNETZOO_PLUGINS"
GROUPS = tuple(f"unetzoo.{kind}" for kind in ("models", "encoders", "datasets", "losses", "metrics", "recipes"))
API_GROUP, CHECKS_GROUP = "unetzoo.api", "unetzoo.checks"


def normalize(distribution: str) -> str:
    """A distribution's name in its normal form (PEP 503): lower case, single hyphens.

    Examples:
        >>> normalize("Acme_Seg")
        'acme-seg'
    """
    return re.sub(r"[-_.]+", "-", distribution).lower()


class Entry(NamedTuple):
    """One name that one distribution offers."""

    name: str
    target: str
    distribution: str
    version: str
    group: str
    apis: tuple[str, ...] = ()
    value: Any = None  # set for what `register` adds

    @property
    def builtin(self) -> bool:
        """Whether the name is one of our own."""
        return self.distribution == BUILTIN

    @property
    def kind(self) -> str:
        """The last part of its group: "models", "losses", …"""
        return self.group.rpartition(".")[2]

    @property
    def qualified(self) -> str:
        """`distribution:name`, which is never ambiguous."""
        return f"{self.distribution}:{self.name}"

    def load(self) -> Any:
        """Import the target.

        Raises:
            PluginLoadError: Written for another version of the plugin API; or whatever the import raised, with
                distribution, version and target.
        """
        if self.value is not None:
            return self.value
        refuse_other_api(self)
        from importlib import metadata

        try:
            return metadata.EntryPoint(self.name, self.target, self.group).load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may raise anything, SystemExit included
            raise PluginLoadError(
                f"cannot load {self.name!r}",
                subject=f"{self.distribution} {self.version} ({self.target})",
                found=f"{type(error).__name__}: {error}",
                hint=f"reinstall or update {self.distribution!r}; nothing else depends on it",
            ) from error


class Distribution(NamedTuple):
    """An installed distribution with entry points of ours.

    Args:
        name: In its normal form.
        version: As its metadata say.
        entries: The names it offers.
        apis: The versions of the plugin API it was written for; none is version 1.
        checks: Where it keeps the cases that the conformance kit runs, or None.
        fault: Why its metadata cannot be read, or None.
    """

    name: str
    version: str
    entries: tuple[Entry, ...] = ()
    apis: tuple[str, ...] = ()
    checks: Entry | None = None
    fault: str | None = None

    @property
    def builtin(self) -> bool:
        """Whether it is ours."""
        return self.name == BUILTIN

    def adds(self) -> dict[str, list[str]]:
        """Its names by kind."""
        kinds: dict[str, list[str]] = {}
        for entry in self.entries:
            kinds.setdefault(entry.kind, []).append(entry.name)
        return kinds


def installed() -> tuple[Distribution, ...]:
    """All distributions with entry points of ours, read again when `sys.path` changes; the first on the path wins."""
    return _scan(tuple(sys.path))


def forget() -> None:
    """Read the metadata again at the next question, for a package installed while this process runs."""
    _scan.cache_clear()


def switched_on(distribution: str) -> bool:
    """Whether `UNETZOO_PLUGINS` lets a distribution in; the built-ins always are.

    Examples:
        >>> switched_on("unetzoo")
        True
    """
    chosen = switch()
    return distribution == BUILTIN or chosen is None or distribution in chosen


def switch() -> frozenset[str] | None:
    """The distributions that `UNETZOO_PLUGINS` names; None when it names none and lets all in."""
    text = os.environ.get(SWITCH, "").strip()
    if not text:
        return None
    return frozenset(normalize(name.strip()) for name in text.split(",") if name.strip()) - {"none"}


def refuse_other_api(plugin: Entry | Distribution) -> None:
    """Refuse a plugin that was written for a plugin API that this version does not have.

    Raises:
        PluginLoadError: With the package to update.
    """
    if not plugin.apis or str(API) in plugin.apis:
        return
    name = plugin.name if isinstance(plugin, Distribution) else plugin.distribution
    newer = all(api.isdecimal() and int(api) > API for api in plugin.apis)
    raise PluginLoadError(
        "this plugin was written for another plugin API",
        subject=f"{name} {plugin.version}",
        expected=f"version {API}",
        found=" or ".join(plugin.apis),
        hint="pip install --upgrade unetzoo" if newer else f"pip install --upgrade {name}",
    )


@functools.lru_cache(maxsize=1)
def _scan(path: tuple[str, ...]) -> tuple[Distribution, ...]:
    from importlib import metadata  # half the cost of `import unetzoo`, so it waits until a name is asked for

    found: dict[str, Distribution] = {}
    for source in metadata.distributions(path=list(path)):
        try:
            text = source.read_text("entry_points.txt")
        except (OSError, UnicodeDecodeError):  # another package's damage is none of ours
            continue
        if text and "[unetzoo." in text:
            distribution = _read(source)
            found.setdefault(distribution.name, distribution)
    return tuple(found.values())


def _read(source: Any) -> Distribution:
    name, version = "unknown", "?"
    try:
        name, version = normalize(source.metadata["Name"] or name), source.metadata["Version"] or version
        points: list[EntryPoint] = list(source.entry_points)
    except Exception as error:  # whatever a damaged file makes the parsers raise
        return Distribution(name, version, fault=f"unreadable metadata: {type(error).__name__}: {error}")
    apis = tuple(point.name for point in points if point.group == API_GROUP)

    def entries(*groups: str) -> Iterator[Entry]:
        for point in points:
            if point.group in groups:
                yield Entry(point.name, point.value, name, version, point.group, apis)

    return Distribution(name, version, tuple(entries(*GROUPS)), apis, next(entries(CHECKS_GROUP), None))
