"""Checks of datasets: samples by index, labels, a transform."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ..labels import LabelSpec
from .case import Case
from .comparison import same
from .kit import check, require, require_error

KIND = "dataset"
SIDES = (("left", "right"), ("l", "r"))


@check(KIND, first=True)
def samples(case: Case) -> None:
    """Transforms and loaders expect `image`, `mask` and `id` in the same form from every dataset."""
    data = case.build()
    require(isinstance(len(data), int) and len(data) > 0, "at least one sample", len(data))
    require(isinstance(getattr(data, "labels", None), LabelSpec), "labels, a unetzoo.LabelSpec",
            type(getattr(data, "labels", None)).__name__)  # fmt: skip
    for index in (0, len(data) - 1):
        _check_raw(data[index], f"sample {index}")


@check(KIND)
def index_error(case: Case) -> None:
    """`for sample in data` stops at an IndexError; without one, the loop never ends."""
    data = case.build()
    for index in (len(data), -len(data) - 1):
        try:
            data[index]
        except IndexError:
            continue
        require(False, f"an IndexError for index {index} of {len(data)}", "a sample")


@check(KIND)
def label_values(case: Case) -> None:
    """A value outside the label set is a class that the network does not have."""
    data = case.build()
    labels = data.labels
    known = {*range(labels.classes), *([] if labels.ignore_index is None else [labels.ignore_index])}
    for index in _some(data):
        mask = data[index].get("mask")
        if mask is None:
            continue
        allowed = {0, 1} if mask.ndim == 3 else known
        wrong = sorted({int(v) for v in np.unique(mask)} - allowed)
        require(not wrong, f"values {min(allowed)}…{max(allowed)} of the label set in every mask",
                f"{wrong[:5]} in sample {index}")  # fmt: skip


@check(KIND)
def swap_pairs(case: Case) -> None:
    """A horizontal flip turns left eyes into right eyes; undeclared pairs teach the network the wrong side."""
    labels = case.build().labels
    index = {name.lower(): position for position, name in enumerate(labels.names)}
    declared = {frozenset(pair) for pair in labels.swap_pairs}
    for name, position in index.items():
        for left, right in SIDES:
            twin = "".join(right if part == left else part for part in re.split(r"([^a-z]+)", name))
            if twin != name and twin in index:
                require(frozenset((position, index[twin])) in declared, f"a swap pair ({name}, {twin})",
                        list(labels.swap_pairs))  # fmt: skip


@check(KIND)
def transforms(case: Case) -> None:
    """Training sets the transform of every dataset and passes it a random generator."""
    import torch

    from ..datasets import Transform

    require(case.takes("transform"), "a keyword transform", "none")
    seen: list[Any] = []

    def spy(sample: dict[str, Any], rng: Any) -> dict[str, Any]:
        seen.append(rng)
        return {**sample, "seen": True}

    require(case.build(transform=spy)[0].get("seen"), "a transformed sample", "a sample that was not transformed")
    require(isinstance(seen[0], np.random.Generator), "transform(sample, numpy Generator)", type(seen[0]).__name__)
    data = case.build()
    data.transform = Transform(size=32, labels=data.labels)
    sample = data[0]
    image, mask = sample["image"], sample.get("mask")
    require(image.dtype == torch.float32 and image.ndim == 3, "an image float32 (C, H, W) after Transform",
            f"{image.dtype} {tuple(image.shape)}")  # fmt: skip
    if mask is not None:
        right = mask.dtype == torch.int64 and mask.shape[-2:] == image.shape[-2:]
        found = f"{mask.dtype} {tuple(mask.shape)}"
        require(right, f"a mask int64 {tuple(image.shape[-2:])} after Transform", found)


@check(KIND)
def reproducible(case: Case) -> None:
    """An epoch is reproduced from its seed, in any order and worker: a sample may only depend on its index."""
    import torch

    data, other = case.build(), case.build()
    np.random.seed(1)
    torch.manual_seed(1)
    other[len(other) - 1]
    for index in (0, len(data) - 1):
        require(same(data[index], other[index]), f"the same sample {index} at every read", "a different one")


@check(KIND)
def unique_ids(case: Case) -> None:
    """Predictions are saved under the id of the sample; equal ids overwrite each other."""
    data = case.build()
    found = [data[index]["id"] for index in _some(data)]
    repeated = sorted({name for name in found if found.count(name) > 1})
    require(not repeated, "unique ids", ", ".join(repeated[:3]))


@check(KIND)
def samples_independent(case: Case) -> None:
    """Transforms may modify samples in place; that must not affect the next epoch."""
    data = case.build()
    expected = {key: np.array(value) for key, value in data[0].items() if isinstance(value, np.ndarray)}
    for value in data[0].values():
        if isinstance(value, np.ndarray) and value.flags.writeable:
            value[...] = 0 if value.any() else 1
    again = data[0]
    changed = [key for key, value in expected.items() if not np.array_equal(again[key], value)]
    require(not changed, "the original sample after it was modified in place", f"a different {', '.join(changed)}")


@check(KIND, applies=lambda case: case.takes("root"))
def missing_root(case: Case) -> None:
    """A wrong path is the most common mistake: the error must name it, and the dataset must not be empty."""
    nowhere = case.folder / "nowhere-at-all"
    require_error(lambda: f"a dataset of {len(case.build(root=nowhere))}", "an error for a missing folder",
            OSError, mentions=("nowhere-at-all",))  # fmt: skip


@check(KIND, applies=lambda case: case.takes("split"))
def unknown_split(case: Case) -> None:
    """A misspelled split must not silently select another one."""
    require_error(lambda: f"a dataset of {len(case.build(split='trian'))}", "an error for the split 'trian'",
            mentions=("trian",))  # fmt: skip


def _check_raw(sample: Any, where: str) -> None:
    require(isinstance(sample, dict), f"a dict as {where}", type(sample).__name__)
    require(isinstance(sample.get("id"), str) and sample["id"], f"an id (str) in {where}", repr(sample.get("id")))
    forms = {"image": ((3,), "u"), "mask": ((2, 3), "iu"), "instances": ((2,), "iu"), "depth": ((2,), "f"),
             "valid": ((2,), "b"), "weight": ((2,), "f")}  # fmt: skip
    size = None
    for key, (dimensions, kinds) in forms.items():
        if key not in sample:
            require(key != "image", f"an image in {where}", ", ".join(sample))
            continue
        value = sample[key]
        require(isinstance(value, np.ndarray), f"a NumPy array as {key} of {where}", type(value).__name__)
        right = value.ndim in dimensions and value.dtype.kind in kinds
        if key == "image":
            right = right and value.dtype == np.uint8
        shapes = {"image": "uint8 (H, W, C)", "mask": "integers (H, W), or (K, H, W) for multilabel",
                  "instances": "integers (H, W)"}  # fmt: skip
        expected = shapes.get(key, "(H, W)" + (" bool" if key == "valid" else " float32"))
        require(right, f"{key} of {where}: {expected}", f"{value.dtype} {value.shape}")
        own = value.shape[:2] if key == "image" else value.shape[-2:]
        size = size or own
        require(own == size, f"{key} of {where} as large as the image, {size}", own)


def _some(data: Any, limit: int = 12) -> list[int]:
    """Return a few evenly spaced indices."""
    count = len(data)
    return sorted({round(i * (count - 1) / max(1, min(limit, count) - 1)) for i in range(min(limit, count))})
