"""The case of a check: an object and the settings to check it under."""

from __future__ import annotations

import inspect
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, did_you_mean
from ..plugins import Entry
from ..registry import REGISTRIES, check_keywords, keywords, missing_keywords

KINDS = {registry.kind: registry for registry in REGISTRIES.values()}
TASKS = ("binary", "multiclass", "multilabel", "depth")
NOT_INSTALLED = "not installed"  # version of a target that is not part of a distribution
Options = Mapping[str, Any] | Callable[[Path], Mapping[str, Any]]


class Case:
    """One object of a plugin, with the settings to check it under.

    Args:
        kind: "model", "encoder", "loss", "metric", "dataset", "recipe", "callback" or "weights".
        target: The class or function (for a recipe: its path or text, for weights: their folder), or its registry name.
        options: Keywords to build it with; keep networks small so that checks are fast. For a recipe, settings such as
            `{"train.batch_size": 2}`. Can also be a function that is called with an empty folder, writes the files it
            needs there, and returns the keywords.
        task: The task of a loss or metric: "binary", "multiclass", "multilabel" or "depth". Defaults to `mode` in the
            options, else "multiclass".
        size: Height and width (one number) of the inputs.
        batch: For a metric with other inputs: `batch(count, generator)` returns the arguments of `update` for `count`
            samples.
        tier: 2 checks a model against the full contract of SMP. Default: 2 for subclasses of
            `unetzoo.models.SegmentationModel`, else 1.
        expected_failures: Check → reason, for known and intended failures. A check that passes anyway is an error. A
            class can also declare them in an attribute `unetzoo_expected_failures`.
        name: Name of the case; defaults to the name of the target.

    Raises:
        ConfigError: Unknown kind or task.

    Examples:
        >>> str(Case("loss", "dice", {"mode": "binary"}))
        'loss dice(mode=binary)'
    """

    def __init__(
        self,
        kind: str,
        target: Any,
        options: Options | None = None,
        *,
        task: str | None = None,
        size: int | None = None,
        batch: Callable[..., Sequence[Any]] | None = None,
        tier: int | None = None,
        expected_failures: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        if kind not in KINDS:
            raise ConfigError(f"unknown kind {kind!r}", hint=did_you_mean(str(kind), KINDS, "kind"))
        if task is not None and task not in TASKS:
            raise ConfigError(f"unknown task {task!r}", hint=did_you_mean(str(task), TASKS, "task"))
        self.kind, self.target, self.given, self.size, self.batch = kind, target, options or {}, size, batch
        self._task, self._tier, self._name = task, tier, name
        self.expected_failures = dict(expected_failures or {})
        self.memo: dict[str, Any] = {}

    def __str__(self) -> str:
        options = "" if callable(self.given) else ", ".join(f"{key}={value}" for key, value in self.given.items())
        return f"{self.kind} {self.name}" + (
            f"({options})" if options and self._name is None and self.kind != "recipe" else ""
        )

    __repr__ = __str__

    @property
    def registry(self) -> Any:
        """The registry of the kind."""
        return KINDS[self.kind]

    @property
    def name(self) -> str:
        """Name of the case."""
        if self._name is not None:
            return self._name
        if isinstance(self.target, str) and "\n" not in self.target:
            return self.target
        return getattr(self.target, "__name__", None) or getattr(self.target, "name", self.kind)

    @property
    def named(self) -> bool:
        """Whether the target is a registry name."""
        return isinstance(self.target, str) and "\n" not in self.target

    @property
    def entry(self) -> Entry | None:
        """The registry entry, or a temporary one for a class or function; None for other objects."""
        if self.named:
            return self.registry.entry(self.target)
        module, name = getattr(self.target, "__module__", None), getattr(self.target, "__qualname__", None)
        if module is None or name is None:
            return None
        return Entry(name, f"{module}:{name}", module.partition(".")[0], NOT_INSTALLED, self.registry.group)

    @property
    def home(self) -> str | None:
        """Where a target was defined if other processes cannot import it; None if they can."""
        module, _, name = self.entry.target.partition(":") if self.entry else ("", "", "")
        if module == "__main__":
            return "a notebook or a script"
        return "a function" if "<" in name else None

    @property
    def tier(self) -> int:
        """1 or 2; see `Case`."""
        if self._tier is not None:
            return self._tier
        from ..models import SegmentationModel

        target = self.load()
        return 2 if inspect.isclass(target) and issubclass(target, SegmentationModel) else 1

    @property
    def task(self) -> str:
        """The task of a loss or metric; see `Case`."""
        return self._task or self.options.get("mode") or "multiclass"

    @property
    def folder(self) -> Path:
        """A temporary folder for this case, removed with it."""
        if "folder" not in self.memo:
            self.memo["folder"] = Path(tempfile.mkdtemp(prefix="unetzoo-check-"))
            weakref.finalize(self, shutil.rmtree, self.memo["folder"], ignore_errors=True)
        return self.memo["folder"]

    @property
    def options(self) -> dict[str, Any]:
        """The keywords to build the object with."""
        if "options" not in self.memo:
            self.memo["options"] = dict(self.given(self.folder) if callable(self.given) else self.given)
        return self.memo["options"]

    def load(self) -> Any:
        """Return the target, imported if given by name."""
        return self.registry.get(self.target) if self.named else self.target

    def takes(self, keyword: str) -> bool:
        """Whether the target accepts a keyword."""
        return keyword in keywords(self.load())

    def default(self, keyword: str, otherwise: Any) -> Any:
        """Return the value of a keyword: the option, else the default of the target, else `otherwise`."""
        if keyword in self.options:
            return self.options[keyword]
        parameter = keywords(self.load()).get(keyword)
        known = parameter is not None and parameter.default not in (inspect.Parameter.empty, None)
        return parameter.default if parameter is not None and known else otherwise

    def build(self, **changes: Any) -> Any:
        """Build a new object, with some options changed.

        Raises:
            ConfigError: A required argument is missing from the options.
        """
        target, given = self.load(), {**self.options, **changes}
        check_keywords(target, given, str(self))
        if missing := missing_keywords(target, given):
            raise ConfigError(
                "missing options",
                subject=str(self),
                expected=", ".join(missing),
                found="no value",
                hint=f'Case("{self.kind}", …, {{"{missing[0]}": …}}); see "Cases" in docs/plugins.md',
            )
        return target(**given)
