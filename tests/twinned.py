"""What the tests of twins share."""

from __future__ import annotations

from unetzoo.registry import DATASETS
from unetzoo.twins import LAYOUTS


def load(name, root, split=None, **options):
    layout = LAYOUTS[name]
    which = {} if split is None else {"split": split}
    return DATASETS.build(layout.dataset, root=root, **which, **layout.options, **options)


def content(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
