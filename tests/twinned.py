"""Shared by the tests of twins."""

from __future__ import annotations

import pytest

from unetzoo.registry import DATASETS
from unetzoo.twins import FAULTS, LAYOUTS


def load(name, root, split=None, **options):
    layout = LAYOUTS[name]
    which = {} if split is None else {"split": split}
    return DATASETS.build(layout.dataset, root=root, **which, **layout.options, **options)


def content(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def plants():
    """Every layout with every fault that it can have; only two layouts per fault are not slow."""
    for number, (code, fault) in enumerate(FAULTS.items()):
        names = fault.layouts
        sample = {names[number % len(names)], names[(number + len(names) // 2) % len(names)]}
        for name in names:
            marks = () if name in sample else (pytest.mark.slow,)
            yield pytest.param(name, code, id=f"{name}-{code}", marks=marks)
