"""`plan`: a recipe for a folder of data, in which every value has its reason."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets.files import PathLike
from ..doctor import Report, audit
from ..errors import ConfigError, DataError
from ..models.pretrained import PACKAGES, is_installed
from ..registry import DATASETS, keywords
from ..training.normalization import fill_in_statistics
from ..training.recipe import Recipe
from ..wording import inline, pluralize, printable
from .machine import Timing, measure, with_recipe
from .rules import Choice, choose
from .survey import Objects, Survey, survey

MOST_MINUTES = 7 * 24 * 60
SEEDS = 20  # of the division that are tried
WIDTH = 120  # of lines of TOML
GAIN = "A pretrained encoder helps with photographs (CamVid: mIoU 0.64 after 7 minutes, without it 0.43 after 20)"
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """A recipe with the reasons of its values.

    Args:
        choices: The values and their reasons.
        survey: Facts of the training set.
        timing: Measurement of the machine.
        minutes: Time to train.
        report: The doctor's report on the data.
        missing: Package of pretrained weights that would help and is not installed.
    """

    choices: Sequence[Choice]
    survey: Survey
    timing: Timing
    minutes: float
    report: Report
    missing: str | None = None

    @cached_property
    def table(self) -> dict[str, Any]:
        """The recipe as nested tables."""
        table: dict[str, Any] = {}
        for choice in self.choices:
            inner = table
            for key in choice.key[:-1]:
                inner = inner.setdefault(key, {})
            inner[choice.key[-1]] = choice.value
        return {**table, "plan": {"minutes": self.minutes, "timing": self.timing.to_dict()}}

    @property
    def recipe(self) -> Recipe:
        """The recipe, checked."""
        table = copy.deepcopy(self.table)
        fill_in_statistics(table)
        recipe = Recipe.model_validate(table)
        recipe.check()
        return recipe

    def to_toml(self) -> str:
        """The recipe as TOML; the reason of each value is in a comment beside it."""
        sections: dict[tuple[str, ...], list[str]] = {}
        for choice in self.choices:
            *section, name = choice.key
            sections.setdefault(tuple(section), []).append(_line(name, choice.value, choice.reason))
        lines = [f"# {_one_line(fact)}" for fact in self.facts]
        for section in sorted(sections, key=_order):
            lines += ["", f"[{'.'.join(section)}]", *sections[section]]
        lines += ["", "[plan]  # what these values are based on; --timing FILE of `unetzoo plan` uses it again"]
        return "\n".join([*lines, *(_assignment(key, value) for key, value in self.table["plan"].items())]) + "\n"

    @property
    def facts(self) -> list[str]:
        """What is known about the data, in lines of text."""
        found = self.survey
        sizes = "{}×{}".format(*found.median) + ("" if found.same_size else " (median; sizes differ)")
        kinds = ", ".join(f"{share:.0%}" for share in found.kinds)
        return [
            f"A plan for {self.report.source}: {pluralize(found.samples, 'training image')} of {sizes}, "
            f"{pluralize(found.channels, 'channel')}.",
            *(f"{name}: {_described(one, found.samples)}" for name, one in found.objects.items()),
            *([f"{len(found.kinds)} kinds of images that differ in color: {kinds}"] if len(found.kinds) > 1 else []),
            *([f"{GAIN}: pip install {self.missing}, and plan again."] if self.missing else []),
        ]  # fmt: skip


def make_plan(
    data: PathLike,
    minutes: float = 30,
    *,
    dataset: str | None = None,
    options: Mapping[str, Any] | None = None,
    timing: Timing | None = None,
    workers: int | None = None,
    tell: Tell = lambda text: None,
) -> Plan:
    """Plan a recipe and keep the reasons of its values. See `plan`.

    Args:
        data: As for `plan`.
        minutes: As for `plan`.
        dataset: As for `plan`.
        options: As for `plan`.
        timing: As for `plan`.
        workers: Number of processes that read the data; one per CPU by default.
        tell: Called with a line of text when a part begins.
    """
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not 0 < minutes <= MOST_MINUTES:
        raise ConfigError("wrong minutes", expected=f"a number in 0…{MOST_MINUTES}", found=repr(minutes),
                          hint="the time to train, e.g. 30")  # fmt: skip
    tell("checking the data")
    report = audit(data, dataset, options=options)
    _check(report)
    arguments = _arguments(report)
    if report.labels is None and not report.proposal:
        raise DataError(
            "the classes are not declared, and cannot be told from the masks", subject=report.source,
            hint="""declare them, e.g. --set 'names=["background", "cell"]' --set 'ids=[0, 255]'; """
            f"unetzoo doctor {report.source} lists the values of the masks",
        )  # fmt: skip
    train, val = _both(report.dataset, arguments)
    tell("reading the training images")
    found = survey(train, workers=workers)
    seed = _seed_with_all_classes(report.dataset, arguments, found, val)
    if seed is not None:
        arguments["split_seed"] = seed
        train, val = _both(report.dataset, arguments)
        found = survey(train, workers=workers)
    declared = [Choice(("data", "name"), report.dataset, "the layout of the folder")]
    declared += [Choice(("data", key), value, _REASONS.get(key, "declared, or found in the masks"))
                 for key, value in arguments.items()]  # fmt: skip

    weights = next(iter(PACKAGES))
    suitable = found.channels == 3 and not found.has_depth
    pretrained = suitable and is_installed(weights)
    missing = PACKAGES[weights][1].replace("_", "-") if suitable and not pretrained else None

    def made(timing: Timing) -> Plan:
        choices = choose(found, train.labels, timing, minutes, len(val), weights if pretrained else None)
        return Plan([*declared, *choices], found, timing, minutes, report, missing)

    if timing is not None:
        return made(timing)
    tell("timing training steps")
    timing = measure(found.channels, train.labels.classes)
    return made(with_recipe(timing, made(timing).recipe))


def plan(
    data: PathLike,
    minutes: float = 30,
    *,
    dataset: str | None = None,
    options: Mapping[str, Any] | None = None,
    timing: Timing | None = None,
) -> Recipe:
    """Plan how to train on a folder of data.

    The data are checked and read once, and training steps are timed. From these follow input size, network, batch
    size, augmentation, loss, learning rate and length of the run. The same data and timing give the same recipe.

    Args:
        data: A folder, an archive or a manifest.
        minutes: Time to train.
        dataset: Registry name of the dataset; by default it is recognized by the file names.
        options: Arguments of the dataset, such as names and ids of `folder`; by default as found in the masks.
        timing: Measurement of the machine, to repeat a plan; by default it is measured.

    Returns:
        The recipe, for `unetzoo.train`.

    Raises:
        DataError: The doctor finds errors, or there is nothing to learn.
        ConfigError: Invalid arguments.
        MemoryExhaustedError: Not even one sample fits into memory.

    Examples:
        >>> import tempfile
        >>> from unetzoo.twins import write
        >>> root = write("folder-binary", tempfile.mkdtemp())
        >>> from unetzoo.planning import Timing
        >>> laptop = Timing("cpu", 8 * 10**9, 2, dict.fromkeys((16, 32, 64), 50.0), {16: 500.0, 32: 1500.0, 64: 5000.0})
        >>> plan(root, minutes=5, timing=laptop).data.name
        'folder'
    """
    return make_plan(data, minutes, dataset=dataset, options=options, timing=timing).recipe


def _line(name: str, value: Any, reason: str) -> str:
    assignment, comment = _assignment(name, value), f"# {_one_line(reason)}"
    line = f"{assignment}  {comment}"
    return line if len(line) <= WIDTH else f"{comment}\n{assignment}"


def _assignment(name: str, value: Any) -> str:
    return inline({name: value})[1:-1]


def _one_line(text: str) -> str:
    return " ".join(printable(text).split())


def _described(found: Objects, samples: int) -> str:
    """What is known about a class, as text."""
    if not found.share:
        return "not in the training images that were read"
    text = (f"{found.share:.2%} of the pixels, in {found.images:.0%} of the images, objects of {found.extent} px, "
            f"{found.thickness:g} px thick")  # fmt: skip
    alone = round(found.images * samples) == 1 < samples
    return text + ("; in a single training image, so it is hardly learned" if alone else "")


def _seed_with_all_classes(name: str, arguments: Mapping[str, Any], found: Survey, val: Any) -> int | None:
    """A seed of the division by which classes that only validation images contain are trained on; None if none does.

    A class of a single image is then missing in validation, where its score is undefined: better than not learned.
    """
    missing = [number for number, one in enumerate(found.objects.values()) if not one.share]
    divided = "split_seed" in keywords(DATASETS.get(name)) and not {"split_seed", "fold"} & set(arguments)
    if not missing or not divided:
        return None
    holders: dict[int, set[str]] = {number: set() for number in missing}
    for file, sample in zip(val.files, val, strict=True):
        for number in np.intersect1d(sample["mask"], missing).tolist():
            holders[number].add(file.name)
    wanted = [names for names in holders.values() if names]
    for seed in range(1, SEEDS if wanted else 0):
        names = {file.name for file in _build(name, {**arguments, "split_seed": seed}, "train").files}
        if all(names & some for some in wanted):
            return seed
    return None


def _both(name: str, arguments: Mapping[str, Any]) -> tuple[Any, Any]:
    return _build(name, arguments, "train"), _build(name, arguments, "val")


_REASONS = {
    "root": "where the data are",
    "split_seed": "by which no class is only in validation images",
    "classes": "values found in the masks",
    "ids": "values found in the masks",
}
_ORDER = ("model", "data", "transform", "loss", "optimizer", "scheduler", "metrics", "train")


def _order(section: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    return _ORDER.index(section[0]), section


def _check(report: Report) -> None:
    """Stop at the doctor's errors."""
    if report.errors:
        first = report.errors[0]
        kinds = ", ".join(f"{finding.code} ({finding.count:,})" for finding in report.errors)
        raise DataError(
            "the data have errors", subject=report.source, found=f"{kinds}; first: {first.cases[0]}",
            hint=f"{first.fix}; `unetzoo doctor {report.source}` lists all of them",
        )  # fmt: skip


def _arguments(report: Report) -> dict[str, Any]:
    """The arguments of the dataset: those given, and the doctor's proposal for the labels."""
    given = {**report.options, **(report.proposal or {})}
    source = Path(report.source)
    manifest = source.name == given.get("manifest")
    return {"root": str(source.parent if manifest else source), **given}


def _build(name: str, arguments: Mapping[str, Any], split: str) -> Any:
    splits = {"split": split} if "split" in keywords(DATASETS.get(name)) and "split" not in arguments else {}
    return DATASETS.build(name, **arguments, **splits)
