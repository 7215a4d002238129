"""The dataset contract, and random numbers per sample.

A sample is a dict. Before transforms it contains arrays: `image` uint8 (H, W, C), or float32 in 0…1 if a range of
values is declared, `mask` integer (H, W) of class indices, optionally `instances` integer (H, W), 0 or the number of an
object, `depth` float32 (H, W), `valid` bool (H, W), `weight` float32 (H, W), and `id`, a string. After transforms it
contains tensors: `image` float32 (C, H, W), `mask` and `instances` int64 (H, W), `depth` float32 (1, H, W), `valid`
bool (H, W), `weight` float32 (H, W).
"""

from __future__ import annotations

import operator
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import ConfigError, DataError, did_you_mean
from ..labels import LabelSpec
from .listing import summary

Sample = dict[str, Any]
MOST_OBJECTS = 2**24  # numbers of objects are below, since transforms convert them to float32
SampleTransform = Callable[[Sample, np.random.Generator], Sample]


def sample_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the random generator of a sample in an epoch, independent of machine, worker and order.

    Args:
        seed: Seed of the run, ≥ 0.
        epoch: The epoch, ≥ 0.
        index: Index of the sample, ≥ 0.

    Examples:
        >>> int(sample_rng(0, 3, 7).integers(1000)) == int(sample_rng(0, 3, 7).integers(1000))
        True
    """
    return np.random.default_rng(np.random.SeedSequence([seed, epoch, index]))


class SegmentationDataset(ABC):
    """Base class of datasets: a subclass implements `__len__` and `load`.

    The rest of the library accepts any object with `__len__`, `__getitem__`, `labels` and `transform`; this class is
    only a convenience. Datasets are picklable and load samples on access.

    Args:
        labels: The labels.
        split: The split, or None for data without splits.
        transform: `transform(sample, rng) -> sample`, or None. On access the epoch is always 0; the Trainer calls the
            transform itself, with `sample_rng(seed, epoch, index)`.

    Raises:
        IndexError: On access, if the index is out of range.

    Examples:
        >>> class Ones(SegmentationDataset):
        ...     def __len__(self):
        ...         return 2
        ...     def load(self, index):
        ...         return {"image": np.ones((4, 4, 3), np.uint8), "mask": np.ones((4, 4), np.uint8), "id": str(index)}
        >>> Ones(labels=LabelSpec(("background", "thing")))[-1]["id"]
        '1'
    """

    how_to_get: ClassVar[str] = "the data are your own"
    pixels: Any = None  # `Pixels`: the channels and the range of values of image files, if it reads any

    def __init__(
        self, *, labels: LabelSpec, split: str | None = None, transform: SampleTransform | None = None
    ) -> None:
        self.labels = labels
        self.split = split
        self.transform = transform

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abstractmethod
    def load(self, index: int) -> Sample:
        """Load a sample before transforms; `index` is in 0…len − 1."""

    def sources(self) -> Iterable[Path]:
        """Return all files that samples are read from; a cache is rebuilt when one of them changes.

        Return `()` if samples depend only on the options of the dataset.

        Raises:
            ConfigError: The subclass does not implement this method.
        """
        raise ConfigError(
            "the dataset does not list its files", subject=type(self).__name__, expected="a method sources()",
            hint="return all paths that samples are read from, or () if samples depend only on options",
        )  # fmt: skip

    def __getitem__(self, index: int) -> Sample:
        count = len(self)
        position = operator.index(index)
        if not -count <= position < count:
            raise IndexError(f"sample {position} of {count}")
        position %= count
        sample = self.load(position)
        if self.transform is None:
            return sample
        return self.transform(sample, sample_rng(0, 0, position))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(split={self.split!r}, samples={len(self)}, classes={self.labels.classes})"


def check_split(split: Any, known: Sequence[str], subject: str) -> str:
    """Check that a split exists.

    Raises:
        ConfigError: Unknown split; the hint suggests the closest name.
    """
    if split not in known:
        hint = did_you_mean(str(split), known, "split")
        raise ConfigError("unknown split", subject=subject, expected=" | ".join(known), found=repr(split), hint=hint)
    return split


def seeded_split(
    names: Sequence[str],
    split: str,
    val_fraction: float,
    seed: int,
    *,
    group: str | Mapping[str, str] | None = None,
    fold: str | None = None,
    subject: object = "the data",
) -> list[str]:
    r"""Return the names in `"train"` or `"val"`, in the order of `names`; all names of a group are on the same side.

    Groups are taken from a seeded shuffle of their sorted keys. Val is about `val_fraction` of the names, or one of `n`
    folds of about the same size. Neither side is empty.

    Args:
        names: All names.
        split: "train" or "val".
        val_fraction: Share of val, unless `fold` is given.
        seed: Seed of the shuffle.
        group: The group of each name, or a regular expression to be found in it: the group is its first capturing
            group, or else the whole match. By default each name is a group.
        fold: "k/n": val is the k-th of n folds, k = 1…n.
        subject: The place of the names, for errors.

    Raises:
        ConfigError: An invalid `group` or `fold`.
        DataError: Names without a group, fewer than two groups, or more folds than groups.

    Examples:
        >>> seeded_split(["a", "b", "c", "d"], "val", 0.25, 0) + seeded_split(["a", "b", "c", "d"], "train", 0.25, 0)
        ['c', 'a', 'b', 'd']
        >>> [seeded_split(["1_a", "1_b", "2_a", "3_a"], "val", 0.2, 0, group=r"\d+", fold=f"{k}/2") for k in (1, 2)]
        [['1_a', '1_b'], ['2_a', '3_a']]
    """
    keys = groups_of(names, group, subject)
    sizes = Counter(keys.values())
    ordered = sorted(sizes)
    if len(ordered) < 2:
        found = f"{len(names)}" + (f", all of the group {ordered[0]!r}" if len(names) > 1 else "")
        raise DataError("too few images to divide", subject=subject, expected="at least 2", found=found,
                        hint="add images, or load all of them without a split")  # fmt: skip
    order = np.random.default_rng(np.random.SeedSequence([seed])).permutation(len(ordered))
    shuffled = [ordered[i] for i in order]
    if fold is None:
        missing = min(max(round(len(names) * val_fraction), 1), len(names) - 1)
        chosen = set()
        for key in shuffled[:-1]:
            if abs(missing - sizes[key]) < missing:  # val comes closer to its share
                chosen.add(key)
                missing -= sizes[key]
        chosen = chosen or {min(shuffled, key=sizes.__getitem__)}
    else:
        number, count = check_fold(fold)
        if count > len(ordered):
            raise DataError("more folds than groups" if group else "more folds than images", subject=subject,
                            expected=f"at most {len(ordered)} folds", found=fold, hint="use fewer folds")  # fmt: skip
        folds: list[list[str]] = [[] for _ in range(count)]
        filled = [0] * count
        for key in sorted(shuffled, key=sizes.__getitem__, reverse=True):
            smallest = filled.index(min(filled))
            folds[smallest].append(key)
            filled[smallest] += sizes[key]
        chosen = set(folds[number - 1])
    return [name for name in names if (keys[name] in chosen) == (split == "val")]


def divided(
    names: Iterable[str], split: str, seed: int, *, val: float, test: float, subject: object, fold: str | None = None
) -> set[str]:
    """Divide names into train, val and test by a seeded shuffle of the sorted names; no part is empty.

    Args:
        names: All names.
        split: "train", "val" or "test".
        seed: Seed of the shuffle.
        val: Share of val.
        test: Share of test.
        subject: Their place, for errors.
        fold: "k/n": val is the k-th of n folds of the names that are not in test.

    Raises:
        ConfigError: An invalid `fold`.
        DataError: Fewer than three names, or more folds than names.

    Examples:
        >>> parts = [divided("abcdefghij", part, 0, val=0.1, test=0.2, subject="") for part in ("train", "val", "test")]
        >>> [len(part) for part in parts], len(set.union(*parts))
        ([7, 1, 2], 10)
    """
    ordered = sorted(names)
    if len(ordered) < 3:
        raise DataError("too few to divide", subject=subject, expected="3 or more", found=", ".join(ordered) or "none",
                        hint='use split="all", or add data')  # fmt: skip
    order = np.random.default_rng(np.random.SeedSequence([seed])).permutation(len(ordered))
    tests = max(1, round(len(ordered) * test))
    if fold is not None and split != "test":
        return set(seeded_split([ordered[i] for i in order[tests:]], split, val, seed, fold=fold, subject=subject))
    vals = tests + max(1, round(len(ordered) * val))
    part = {"test": order[:tests], "val": order[tests:vals], "train": order[vals:]}[split]
    return {ordered[i] for i in part}


def check_fold(fold: str) -> tuple[int, int]:
    """The number of a fold and the number of folds.

    Raises:
        ConfigError: Not "k/n" with n ≥ 2 and k = 1…n.

    Examples:
        >>> check_fold("2/5")
        (2, 5)
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", fold) if isinstance(fold, str) else None
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if count < 2 or not 1 <= number <= count:
        raise ConfigError("wrong fold", expected='"k/n" with k = 1…n', found=repr(fold), hint='for example "1/5"')
    return number, count


def refuse_division(options: Mapping[str, Any], subject: object, why: str) -> None:
    """Refuse `group` and `fold` for data with splits of their own.

    Raises:
        ConfigError: One of them is set.
    """
    if given := [name for name in ("group", "fold") if options.get(name)]:
        hint = f"leave it out (for one split: --set data.val.{given[0]}=), or put all images into one folder or split"
        raise ConfigError(f"{' and '.join(given)} cannot be used", subject=subject, expected="data without splits",
                          found=why, hint=hint)  # fmt: skip


def groups_of(names: Sequence[str], group: str | Mapping[str, str] | None, subject: object) -> Mapping[str, str]:
    """The group of each name; see `seeded_split`.

    Raises:
        ConfigError: An invalid `group`.
        DataError: Names without a group.
    """
    if group is None:
        return {name: name for name in names}
    if isinstance(group, Mapping):
        return group
    try:
        pattern = re.compile(group)
    except (re.error, TypeError) as error:
        raise ConfigError("wrong group", expected="a regular expression", found=f"{group!r}: {error}",
                          hint=r'for example "^(\d+)_"') from error  # fmt: skip
    found = {name: match for name in names if (match := pattern.search(name))}
    if missing := [name for name in names if name not in found]:
        raise DataError("names without a group", subject=subject, expected=f"names that contain {group}",
                        found=summary(missing), hint="correct the pattern, or rename the files")  # fmt: skip
    return {name: next((text for text in match.groups() if text), match[0]) for name, match in found.items()}
