"""Installed plugins, read from package metadata: nothing is imported. Standard library only.

A distribution may declare the versions of the plugin API that it supports:

    [project.entry-points."unetzoo.api"]
    1 = "acme_seg"

The name is the version, the value the package (entry points need a value). The default is version 1.
`UNETZOO_PLUGINS=none` disables all plugins; a comma-separated list of distributions enables only these.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import PluginLoadError
from .wording import describe

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

API = 1
BUILTIN = "unetzoo"
ENV_VAR = "UNETZOO_PLUGINS"
GROUPS = tuple(
    f"unetzoo.{kind}"
    for kind in ("models", "encoders", "datasets", "losses", "metrics", "recipes", "callbacks", "weights")
)
API_GROUP, CHECKS_GROUP = "unetzoo.api", "unetzoo.checks"
FIRST_PARTY = {  # what our own plugins add, to name them where they are not installed
    "unetzoo-attention": (
        "attention-unet", "r2attention-unet", "resunet", "u2net", "u2net-small", "unetplusplus", "deep-supervision",
        "attention-composites", "unetplusplus-composites",
    ),
    "unetzoo-extras": ("drive", "isic2018", "oxford-pet", "r2unet-drive", "unet-drive"),
    "unetzoo-formats": ("coco", "cvat", "label-studio", "labelme", "rle-csv", "yolo-seg"),
}  # fmt: skip
IMPORT_LIMIT = 60.0  # seconds of CPU time, or without any; torch and SMP take a fraction of that


def normalize(distribution: str) -> str:
    """Normalize the name of a distribution (PEP 503): lower case, single hyphens.

    Examples:
        >>> normalize("Acme_Seg")
        'acme-seg'
    """
    return re.sub(r"[-_.]+", "-", distribution).lower()


class Entry(NamedTuple):
    """One name in one entry-point group of one distribution."""

    name: str
    target: str
    distribution: str
    version: str
    group: str
    apis: tuple[str, ...] = ()
    value: Any = None  # set by `register`

    @property
    def builtin(self) -> bool:
        """Whether the name is a built-in."""
        return self.distribution == BUILTIN

    @property
    def kind(self) -> str:
        """The last part of the group: "models", "losses", …"""
        return self.group.rpartition(".")[2]

    @property
    def qualified(self) -> str:
        """`distribution:name`, which is unambiguous."""
        return f"{self.distribution}:{self.name}"

    def load(self) -> Any:
        """Import the target.

        Raises:
            PluginLoadError: The import failed, or the plugin requires another version of the plugin API; with
                distribution, version and target.
        """
        if self.value is not None:
            return self.value
        check_api_version(self)
        from importlib import metadata

        try:
            return metadata.EntryPoint(self.name, self.target, self.group).load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may raise anything, SystemExit included
            raise PluginLoadError(
                f"cannot load {self.name!r}",
                subject=f"{self.distribution} {self.version} ({self.target})",
                found=describe(error),
                hint=f"reinstall or upgrade {self.distribution!r}; other names are not affected",
            ) from error


class Distribution(NamedTuple):
    """An installed distribution with entry points for unetzoo.

    Args:
        name: Normalized name.
        version: Version in its metadata.
        entries: The names it adds.
        apis: The versions of the plugin API it supports; empty means version 1.
        checks: The entry point of its conformance cases, or None.
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
        """Whether this is unetzoo itself."""
        return self.name == BUILTIN

    def names_by_kind(self) -> dict[str, list[str]]:
        """The names it adds, by kind."""
        kinds: dict[str, list[str]] = {}
        for entry in self.entries:
            kinds.setdefault(entry.kind, []).append(entry.name)
        return kinds


def installed() -> tuple[Distribution, ...]:
    """All distributions with entry points for unetzoo. Cached until `sys.path` changes; the first on the path wins."""
    return _scan(tuple(sys.path))


def clear_cache() -> None:
    """Read the metadata again next time, e.g. after installing a package in this process."""
    _scan.cache_clear()


def is_enabled(distribution: str) -> bool:
    """Whether `UNETZOO_PLUGINS` enables a distribution; the built-ins always are.

    Examples:
        >>> is_enabled("unetzoo")
        True
    """
    chosen = selected_plugins()
    return distribution == BUILTIN or chosen is None or distribution in chosen


def selected_plugins() -> frozenset[str] | None:
    """The distributions listed in `UNETZOO_PLUGINS`; None if it is not set and all are enabled."""
    text = os.environ.get(ENV_VAR, "").strip()
    if not text:
        return None
    return frozenset(normalize(name.strip()) for name in text.split(",") if name.strip()) - {"none"}


def check_api_version(plugin: Entry | Distribution) -> None:
    """Check that a plugin supports our version of the plugin API.

    Raises:
        PluginLoadError: It does not; the hint names the package to upgrade.
    """
    if not plugin.apis or str(API) in plugin.apis:
        return
    name = plugin.name if isinstance(plugin, Distribution) else plugin.distribution
    newer = all(api.isdecimal() and int(api) > API for api in plugin.apis)
    raise PluginLoadError(
        "unsupported plugin API version",
        subject=f"{name} {plugin.version}",
        expected=f"version {API}",
        found=" or ".join(plugin.apis),
        hint="pip install --upgrade unetzoo" if newer else f"pip install --upgrade {name}",
    )


@functools.lru_cache(maxsize=1)
def _scan(path: tuple[str, ...]) -> tuple[Distribution, ...]:
    from importlib import metadata  # half the cost of `import unetzoo`, so imported on first use

    found: dict[str, Distribution] = {}
    named_as_we_are: list[tuple[Any, Distribution]] = []
    for source in metadata.distributions(path=list(path)):
        try:
            text = source.read_text("entry_points.txt")
        except (OSError, UnicodeDecodeError):  # damage of an unrelated package
            continue
        if text and "[unetzoo." in text:
            distribution = _read(source)
            if distribution.builtin:
                named_as_we_are.append((source, distribution))
            else:
                found.setdefault(distribution.name, distribution)
    return (*_resolve_name_clash(named_as_we_are), *found.values())


def _resolve_name_clash(candidates: list[tuple[Any, Distribution]]) -> Iterator[Distribution]:
    """Our own distribution. Others of its name lose their entries, so that they cannot hide the built-ins.

    The targets of our names are in this package. Where several distributions fit (after an incomplete upgrade), ours
    contains the package, or is an editable installation of the folder around it.
    """
    fitting = [pair for pair in candidates if all(e.target.startswith(f"{BUILTIN}.") for e in pair[1].entries)]
    if len(fitting) > 1:
        fitting.sort(key=lambda pair: not _contains_this_package(pair[0]))
    for source, found in candidates:
        if fitting and found is fitting[0][1]:
            yield found
        else:
            name = f"{BUILTIN} in {source.locate_file('')}"
            yield Distribution(name, found.version, fault=f"it is called {BUILTIN!r}, but is not this package")


def own_metadata() -> Any:
    """The `importlib.metadata.Distribution` of this package; None if it was never installed."""
    from importlib import metadata

    found = sorted(metadata.distributions(name=BUILTIN), key=lambda source: not _contains_this_package(source))
    return found[0] if found else None


def _contains_this_package(source: Any) -> bool:
    import json
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    package = Path(__file__).resolve().parent
    try:
        if Path(source.locate_file(BUILTIN)).resolve() == package:
            return True
        url = json.loads(source.read_text("direct_url.json") or "{}").get("url", "")
        return url.startswith("file:") and Path(url2pathname(urlsplit(url).path)).resolve() in package.parents
    except (OSError, ValueError, AttributeError):  # damaged metadata
        return False


def _read(source: Any) -> Distribution:
    name, version = "unknown", "?"
    try:
        name, version = normalize(source.metadata["Name"] or name), source.metadata["Version"] or version
        points: list[EntryPoint] = list(source.entry_points)
    except Exception as error:  # parsers raise anything on damaged files
        return Distribution(name, version, fault=f"unreadable metadata: {describe(error)}")
    apis = tuple(point.name for point in points if point.group == API_GROUP)

    def entries(*groups: str) -> Iterator[Entry]:
        for point in points:
            if point.group in groups:
                yield Entry(point.name, point.value, name, version, point.group, apis)

    return Distribution(name, version, tuple(entries(*GROUPS)), apis, next(entries(CHECKS_GROUP), None))
