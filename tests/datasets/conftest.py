from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
import pytest
from caching import write_pairs
from packing import tree
from PIL import Image

from unetzoo.datasets import data_root
from unetzoo.errors import DataError
from unetzoo.twins import write


@pytest.fixture
def real() -> Path:
    if "UNETZOO_DATA" not in os.environ:
        pytest.skip("UNETZOO_DATA is not set")
    return Path(os.environ["UNETZOO_DATA"])


@pytest.fixture
def make_pairs(tmp_path):
    """Write images/ and masks/ with the given stems; masks hold 0 and 255."""

    def make(stems, root=tmp_path, images="images", masks="masks"):
        for i, stem in enumerate(stems):
            for folder in (images, masks):
                (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((6, 8, 3), i, np.uint8)).save(root / images / f"{stem}.png")
            mask = np.zeros((6, 8), np.uint8)
            mask[:, 4:] = 255
            Image.fromarray(mask).save(root / masks / f"{stem}.png")
        return root

    return make


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Where archives are unpacked."""
    monkeypatch.setenv("UNETZOO_CACHE", str(tmp_path / "deep" / "cache"))
    monkeypatch.setattr(os, "sync", lambda: None)  # syncs the whole machine; its purpose is tested with the cache
    return tmp_path / "deep" / "cache"


@pytest.fixture
def canary(tmp_path, cache):
    """Things beside and above the cache that nothing may touch; `refuses` checks that nothing did."""
    for name in ("canary.txt", "evil", "a.txt", "deep/canary.txt", "deep/evil", "up/canary.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("untouched")

    def outside():
        return {name: what for name, what in tree(tmp_path).items() if not name.startswith(("deep/cache", "archives"))}

    def refuses(path, error=DataError, match=None, **limits):
        before = outside()
        with pytest.raises(error, match=match) as caught:
            data_root(path, **limits)
        assert outside() == before
        left = [p for p in (cache / "archives").iterdir() if p.suffix != ".lock"] if cache.exists() else []
        assert not left, left
        return str(caught.value)

    refuses.outside = outside
    return refuses


@pytest.fixture
def pairs(tmp_path):
    """pairs(count): images of different sizes and their masks of 0 and 255."""
    return functools.partial(write_pairs, tmp_path / "data")


@pytest.fixture(scope="session")
def twins(tmp_path_factory):
    """The twin of a layout, written once; not to be changed."""
    written = {}

    def twin(name, count=10):
        if (name, count) not in written:
            size = 64 if "isbi" in name else None
            written[name, count] = write(name, tmp_path_factory.mktemp(name), count=count, size=size)
        return written[name, count]

    return twin
