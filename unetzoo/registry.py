"""Registries: names from package metadata, loaded when they are used.

Everything that can be built by name stands in an entry-point group, the built-ins too:

    [project.entry-points."unetzoo.models"]
    tinyunet = "acme_seg:TinyUNet"

Listing reads metadata and imports nothing. Standard library only.
"""

from __future__ import annotations

import fnmatch
import os
import warnings
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from .errors import (
    DuplicateNameError,
    MissingKeywordError,
    PluginBuildError,
    PluginContractError,
    PluginLoadError,
    UnetzooError,
    UnknownKeywordError,
    UnknownNameError,
    did_you_mean,
)
from .plugins import SWITCH, Entry, forget, installed, normalize, switched_on

if TYPE_CHECKING:
    import inspect

NOTEBOOK = "__main__"  # the distribution of what `register` adds
T = TypeVar("T", bound=Callable[..., Any])


def keywords(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters a target can be given by name."""
    import inspect  # takes longer than a listing does without it

    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: p for p in inspect.signature(target).parameters.values() if p.kind in by_name}


def check_keywords(target: Callable[..., Any], given: dict[str, Any], subject: str) -> None:
    """Refuse keywords that the target does not take.

    Raises:
        UnknownKeywordError: With the nearest spelling.
    """
    known = keywords(target)
    for name in given:
        if name not in known:
            raise UnknownKeywordError(
                f"unknown keyword {name!r}", subject=subject, hint=did_you_mean(name, known, "keyword")
            )


def missing_keywords(target: Callable[..., Any], given: Collection[str]) -> list[str]:
    """The keywords that have no default and are not given.

    Examples:
        >>> missing_keywords(lambda root, split="train": None, ["split"])
        ['root']
    """
    return [p.name for p in keywords(target).values() if p.default is p.empty and p.name not in given]


class Registry:
    """The names of one kind.

    Args:
        kind: What the names stand for, in the singular ("model").
        group: The entry-point group.
        callable_values: Whether values are called to build the thing (a recipe's value is a path or a text).
    """

    def __init__(self, kind: str, group: str, *, callable_values: bool = True) -> None:
        self.kind, self.group, self.callable_values = kind, group, callable_values
        self._local: dict[str, Entry] = {}

    def entries(self) -> dict[str, list[Entry]]:
        """Every name with all that claim it, read from package metadata (again when `sys.path` changes)."""
        found = self._claims(switched_on)
        for name, entry in self._local.items():
            found.setdefault(name, []).append(entry)
        return found

    def refresh(self) -> None:
        """Forget the metadata, for a package installed while this process runs."""
        forget()

    def names(self, pattern: str = "*") -> list[str]:
        """Sorted names that match a shell pattern; a name two plugins claim appears once for each, qualified.

        Examples:
            >>> from unetzoo import LOSSES
            >>> LOSSES.names("tversk*")
            ['tversky']
        """
        names: list[str] = []
        for name, claims in self.entries().items():
            ambiguous = len(claims) > 1 and not any(entry.builtin for entry in claims)
            names += [entry.qualified for entry in claims] if ambiguous else [name]
        return sorted(name for name in names if fnmatch.fnmatchcase(name, pattern))

    def entry(self, name: str) -> Entry:
        """The one entry that a name, or `"distribution:name"`, stands for.

        Raises:
            UnknownNameError: With the nearest spelling.
            DuplicateNameError: Two plugins claim the name.
        """
        if not isinstance(name, str):
            raise UnknownNameError(f"a {self.kind} is named by a text", found=type(name).__name__)
        known = self.entries()
        distribution, colon, plain = name.rpartition(":")
        claims = known.get(plain, [])
        if colon:
            claims = [entry for entry in claims if normalize(entry.distribution) == normalize(distribution)]
        if not claims:
            raise UnknownNameError(f"unknown {self.kind} {name!r}", hint=self._hint(name))
        if len(claims) == 1:
            return claims[0]
        builtin = next((entry for entry in claims if entry.builtin), None)
        others = [entry.qualified for entry in claims if entry is not builtin]
        if builtin is None:
            raise DuplicateNameError(
                f"the {self.kind} {name!r} is ambiguous",
                found=", ".join(f"{e.qualified} ({e.distribution} {e.version})" for e in claims),
                hint="name one of them in full",
            )
        warnings.warn(
            f"the built-in {self.kind} {name!r} hides {', '.join(others)}; use the full name for that one", stacklevel=3
        )
        return builtin

    def get(self, name: str) -> Any:
        """Load what a name stands for.

        Raises:
            UnknownNameError: No such name.
            DuplicateNameError: Two plugins claim the name.
            PluginLoadError: The import failed.
            PluginContractError: The value is not callable with explicit keywords (a recipe's: no path or text).
        """
        return self._load(self.entry(name))

    def build(self, name: str, /, **kwargs: Any) -> Any:
        """Load what a name stands for and call it.

        Raises:
            UnknownKeywordError: A keyword it does not take, with the nearest spelling; and all that `get` raises.
            MissingKeywordError: A keyword without a default is not given.
            PluginBuildError: An installed plugin raises an error of its own. Errors of ours pass, as does whatever
                built-ins and what is registered in this process raise.
        """
        entry = self.entry(name)
        target = self._load(entry)
        check_keywords(target, kwargs, f"{self.kind} {name!r}")
        if missing := missing_keywords(target, kwargs):
            raise MissingKeywordError(
                f"{name} needs {' and '.join(missing)}", subject=self.kind, found="no value", hint=f"{missing[0]}=…"
            )
        if entry.builtin or entry.distribution == NOTEBOOK:
            return target(**kwargs)
        try:
            return target(**kwargs)
        except UnetzooError:
            raise
        except (Exception, SystemExit) as error:  # a plugin may raise anything
            raise self._build_error(entry, kwargs, error) from error

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: a name for this process alone, for notebooks and scripts.

        Raises:
            DuplicateNameError: The name is a built-in's, or was registered for something else.
        """

        def add(value: T) -> T:
            target = f"{value.__module__}:{value.__qualname__}"
            claims = self.entries().get(name, [])
            taken = [e for e in claims if e.builtin or (e.distribution == NOTEBOOK and e.target != target)]
            if taken:
                raise DuplicateNameError(
                    f"the {self.kind} {name!r} exists already", found=taken[0].qualified, hint="choose another name"
                )
            entry = Entry(name, target, NOTEBOOK, "0", self.group, value=value)
            self.check_contract(entry, value)
            self._local[name] = entry
            return value

        return add

    def entry_of(self, value: Any) -> Entry | None:
        """The entry whose target is this very object, if any (how a saved model learns its name)."""
        package = value.__module__.partition(".")[0]
        for claims in self.entries().values():
            for entry in claims:
                same_package = entry.target.partition(":")[0].partition(".")[0] == package
                if entry.value is value or (entry.value is None and same_package and _stands_for(entry, value)):
                    return entry
        return None

    def _claims(self, wanted: Callable[[str], bool]) -> dict[str, list[Entry]]:
        claims: dict[str, list[Entry]] = {}
        for distribution in installed():
            if wanted(distribution.name):
                for entry in distribution.entries:
                    if entry.group == self.group:
                        claims.setdefault(entry.name, []).append(entry)
        return claims

    def _hint(self, name: str) -> str:
        hidden = self._claims(lambda distribution: not switched_on(distribution)).get(name.rpartition(":")[2])
        if hidden:
            return f"{hidden[0].distribution} has it, but {SWITCH}={os.environ[SWITCH]} switches that plugin off"
        return did_you_mean(name, self.names(), self.kind)

    def _load(self, entry: Entry) -> Any:
        value = entry.load()
        self.check_contract(entry, value)
        return value

    def check_contract(self, entry: Entry, value: Any) -> None:
        """Whether a value is what the names of this kind stand for.

        Raises:
            PluginContractError: It cannot be called by keywords alone (a recipe's: no path or text).
        """
        if not self.callable_values:
            if not isinstance(value, str | os.PathLike):
                self._refuse_type(entry, value, "a path or a text")
            return
        if not callable(value):
            self._refuse_type(entry, value, "a callable with explicit keyword parameters")
        import inspect

        try:
            parameters = inspect.signature(value).parameters.values()
        except (TypeError, ValueError):  # some of C's functions tell nothing
            self._refuse_type(entry, value, "a callable whose parameters Python can tell")
        loose = [p.name for p in parameters if p.kind is p.VAR_KEYWORD]
        if loose:
            raise PluginContractError(
                f"the {self.kind} {entry.name!r} swallows keywords",
                subject=entry.qualified,
                expected="explicit keyword parameters",
                found=f"**{loose[0]}",
                hint=f"tell the author of {entry.distribution!r} to name each parameter",
            )

    def _build_error(self, entry: Entry, given: dict[str, Any], error: BaseException) -> PluginBuildError:
        first = f"correct {', '.join(given)}, or " if given else ""
        return PluginBuildError(
            f"the {self.kind} {entry.name!r} cannot be built",
            subject=f"{entry.distribution} {entry.version} ({entry.target})",
            found=f"{type(error).__name__}: {error}",
            hint=f"{first}tell the author of {entry.distribution!r}",
        )

    def _refuse_type(self, entry: Entry, value: Any, expected: str) -> NoReturn:
        raise PluginContractError(
            f"the {self.kind} {entry.name!r} cannot be built",
            subject=entry.qualified,
            expected=expected,
            found=type(value).__name__,
        )


def _stands_for(entry: Entry, value: Any) -> bool:
    try:
        return entry.load() is value
    except PluginLoadError:  # another name of the same package is broken
        return False


MODELS = Registry("model", "unetzoo.models")
ENCODERS = Registry("encoder", "unetzoo.encoders")
DATASETS = Registry("dataset", "unetzoo.datasets")
LOSSES = Registry("loss", "unetzoo.losses")
METRICS = Registry("metric", "unetzoo.metrics")
RECIPES = Registry("recipe", "unetzoo.recipes", callable_values=False)
REGISTRIES = {r.group.partition(".")[2]: r for r in (MODELS, ENCODERS, DATASETS, LOSSES, METRICS, RECIPES)}


def list_models(pattern: str = "*") -> list[str]:
    """Names of all models that match a shell pattern; nothing is imported.

    Examples:
        >>> list_models("*d*unet")
        ['ddunet', 'dualunet']
    """
    return MODELS.names(pattern)


def build(name: str, /, **kwargs: Any) -> Any:
    """Build a model by name: `build("r2unet", classes=19)`.

    Raises:
        UnknownNameError: No such model or keyword, with the nearest spelling.
    """
    return MODELS.build(name, **kwargs)
