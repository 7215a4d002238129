"""Registries: names from package metadata, imported on first use.

Everything that can be built by name is an entry point, including the built-ins:

    [project.entry-points."unetzoo.models"]
    tinyunet = "acme_seg:TinyUNet"

Listing only reads metadata. Standard library only.
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
from .plugins import ENV_VAR, FIRST_PARTY, Entry, clear_cache, installed, is_enabled, normalize
from .wording import describe

if TYPE_CHECKING:
    import inspect

LOCAL = "__main__"  # the distribution of names added by `register`
T = TypeVar("T", bound=Callable[..., Any])


def keywords(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters that can be passed by keyword."""
    import inspect  # would double the time of a listing

    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: p for p in inspect.signature(target).parameters.values() if p.kind in by_name}


def check_keywords(target: Callable[..., Any], given: dict[str, Any], subject: str) -> None:
    """Check keyword names against the signature of a target.

    Raises:
        UnknownKeywordError: Unknown keyword; the hint names similar ones.
    """
    known = keywords(target)
    for name in given:
        if name not in known:
            raise UnknownKeywordError(
                f"unknown keyword {name!r}", subject=subject, hint=did_you_mean(name, known, "keyword")
            )


def missing_keywords(target: Callable[..., Any], given: Collection[str]) -> list[str]:
    """The required keywords that are not given.

    Examples:
        >>> missing_keywords(lambda root, split="train": None, ["split"])
        ['root']
    """
    return [p.name for p in keywords(target).values() if p.default is p.empty and p.name not in given]


class Registry:
    """The registry of one kind of object.

    Args:
        kind: Kind of the objects, in the singular ("model").
        group: The entry-point group.
        callable_values: Whether values are called to build the object. The value of a recipe is a path or TOML text,
            and that of weights the folder of a saved network.
    """

    def __init__(self, kind: str, group: str, *, callable_values: bool = True) -> None:
        self.kind, self.group, self.callable_values = kind, group, callable_values
        self._local: dict[str, Entry] = {}

    def entries(self) -> dict[str, list[Entry]]:
        """Every name with all its entries, read from package metadata."""
        found = self._claims(is_enabled)
        for name, entry in self._local.items():
            found.setdefault(name, []).append(entry)
        return found

    def refresh(self) -> None:
        """Read the metadata again, e.g. after installing a package in this process."""
        clear_cache()

    def names(self, pattern: str = "*") -> list[str]:
        """Sorted names that match a shell pattern. A name added by two plugins appears twice, as `distribution:name`.

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

    def __contains__(self, name: object) -> bool:
        """Whether this is a name, or `"distribution:name"`.

        Examples:
            >>> from unetzoo import MODELS
            >>> "unet" in MODELS, "unetzoo:unet" in MODELS, "acme:unet" in MODELS
            (True, True, False)
        """
        return isinstance(name, str) and bool(self._matching(name))

    def _matching(self, name: str) -> list[Entry]:
        distribution, colon, plain = name.rpartition(":")
        claims = self.entries().get(plain, [])
        if colon:
            claims = [entry for entry in claims if normalize(entry.distribution) == normalize(distribution)]
        return claims

    def entry(self, name: str) -> Entry:
        """The entry of a name or `"distribution:name"`.

        Raises:
            UnknownNameError: Unknown name; the hint names similar ones.
            DuplicateNameError: Two plugins add the name.
        """
        if not isinstance(name, str):
            raise UnknownNameError(f"invalid {self.kind} name", expected="a str", found=type(name).__name__)
        claims = self._matching(name)
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
                hint=f"use the full name, e.g. {claims[0].qualified}",
            )
        warnings.warn(
            f"the built-in {self.kind} {name!r} hides {', '.join(others)}; use the full name to get the other one",
            stacklevel=3,
        )
        return builtin

    def get(self, name: str) -> Any:
        """Import the target of a name.

        Raises:
            UnknownNameError: Unknown name.
            DuplicateNameError: Two plugins add the name.
            PluginLoadError: The import failed.
            PluginContractError: The target is not callable with explicit keywords (of a recipe or weights: no path or
                text).
        """
        return self._load(self.entry(name))

    def build(self, name: str, /, **kwargs: Any) -> Any:
        """Import the target of a name and call it.

        Raises:
            UnknownKeywordError: Unknown keyword; the hint names similar ones. Also everything that `get` raises.
            MissingKeywordError: A required keyword is missing.
            PluginBuildError: An installed plugin raised an error that is not one of ours. Errors of built-ins and of
                names registered in this process are not wrapped.
        """
        entry = self.entry(name)
        target = self._load(entry)
        check_keywords(target, kwargs, f"{self.kind} {name!r}")
        if missing := missing_keywords(target, kwargs):
            raise MissingKeywordError(
                f"{name} needs {' and '.join(missing)}", subject=self.kind, found="no value", hint=f"{missing[0]}=…"
            )
        if entry.builtin or entry.distribution == LOCAL:
            return target(**kwargs)
        try:
            return target(**kwargs)
        except (UnetzooError, KeyboardInterrupt):
            raise
        except BaseException as error:  # a plugin may raise anything, SystemExit included
            raise self._build_error(entry, kwargs, error) from error

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: add a name in this process only, for notebooks and scripts.

        Raises:
            DuplicateNameError: The name is a built-in, or was registered for another object.
        """

        def add(value: T) -> T:
            target = f"{value.__module__}:{value.__qualname__}"
            claims = self.entries().get(name, [])
            taken = [e for e in claims if e.builtin or (e.distribution == LOCAL and e.target != target)]
            if taken:
                raise DuplicateNameError(
                    f"the {self.kind} {name!r} already exists", found=taken[0].qualified, hint="choose another name"
                )
            entry = Entry(name, target, LOCAL, "0", self.group, value=value)
            self.check_contract(entry, value)
            self._local[name] = entry
            return value

        return add

    def entry_of(self, value: Any) -> Entry | None:
        """The entry whose target is this object, if any. Saved models get their name from it."""
        package = value.__module__.partition(".")[0]
        for claims in self.entries().values():
            for entry in claims:
                same_package = entry.target.partition(":")[0].partition(".")[0] == package
                if entry.value is value or (entry.value is None and same_package and _is_target(entry, value)):
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
        hidden = self._claims(lambda distribution: not is_enabled(distribution)).get(name.rpartition(":")[2])
        if hidden:
            return f"{hidden[0].distribution} has it, but {ENV_VAR}={os.environ[ENV_VAR]} disables that plugin"
        if owners := [plugin for plugin, names in FIRST_PARTY.items() if name in names]:
            return f"pip install {owners[0]}"
        return did_you_mean(name, self.names(), self.kind)

    def _load(self, entry: Entry) -> Any:
        value = entry.load()
        self.check_contract(entry, value)
        return value

    def check_contract(self, entry: Entry, value: Any) -> None:
        """Check the target of a name.

        Raises:
            PluginContractError: It cannot be called with keywords only (of a recipe or weights: no path or text).
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
        except Exception:  # some C functions have no signature, and a plugin may raise anything
            self._refuse_type(entry, value, "a callable with a signature")
        loose = [p.name for p in parameters if p.kind is p.VAR_KEYWORD]
        if loose:
            raise PluginContractError(
                f"the {self.kind} {entry.name!r} accepts arbitrary keywords",
                subject=entry.qualified,
                expected="explicit keyword parameters",
                found=f"**{loose[0]}",
                hint=f"ask the author of {entry.distribution!r} to name each parameter",
            )

    def _build_error(self, entry: Entry, given: dict[str, Any], error: BaseException) -> PluginBuildError:
        first = f"check {', '.join(given)}, or " if given else ""
        return PluginBuildError(
            f"the {self.kind} {entry.name!r} cannot be built",
            subject=f"{entry.distribution} {entry.version} ({entry.target})",
            found=describe(error),
            hint=f"{first}report it to the author of {entry.distribution!r}",
        )

    def _refuse_type(self, entry: Entry, value: Any, expected: str) -> NoReturn:
        raise PluginContractError(
            f"the {self.kind} {entry.name!r} cannot be built",
            subject=entry.qualified,
            expected=expected,
            found=type(value).__name__,
        )


def _is_target(entry: Entry, value: Any) -> bool:
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
CALLBACKS = Registry("callback", "unetzoo.callbacks")
WEIGHTS = Registry("weights", "unetzoo.weights", callable_values=False)
REGISTRIES = {
    registry.group.partition(".")[2]: registry
    for registry in (MODELS, ENCODERS, DATASETS, LOSSES, METRICS, RECIPES, CALLBACKS, WEIGHTS)
}


def list_models(pattern: str = "*") -> list[str]:
    """Names of all models that match a shell pattern. Imports nothing.

    Examples:
        >>> list_models("d*unet")
        ['ddunet', 'dualunet']
    """
    return MODELS.names(pattern)


def build(name: str, /, **kwargs: Any) -> Any:
    """Build a model by name: `build("r2unet", classes=19)`.

    Raises:
        UnknownNameError: Unknown model or keyword; the hint names similar ones.
    """
    return MODELS.build(name, **kwargs)
