"""The cache is never stale: it is rebuilt if anything changes that samples depend on."""

from __future__ import annotations

import functools
import importlib
import os
import pickle
import random
import sys

import layouts
import numpy as np
import pytest
from caching import All, caches, debris, quiet, same
from PIL import Image
from refusals import refused

from unetzoo.datasets import (
    ISBI2012,
    CamVid,
    Carvana,
    CelebAMask,
    Cityscapes,
    Composites,
    Folder,
    Helen,
    cachefile,
    fingerprint,
)
from unetzoo.datasets.base import SegmentationDataset
from unetzoo.errors import CacheError, ConfigError, DataError
from unetzoo.labels import LabelSpec


@pytest.mark.parametrize(
    ("make", "build"),
    [
        (layouts.helen, Helen), (layouts.cityscapes, Cityscapes), (layouts.carvana, Carvana), (layouts.camvid, CamVid),
        (layouts.celebamask, CelebAMask), (layouts.celebamask, functools.partial(CelebAMask, task="eyes-lips")),
    ],
)  # fmt: skip
def test_every_dataset_names_the_files_it_reads(tmp_path, make, build, monkeypatch):
    data = build(make(tmp_path / "data"), "train")
    named = {str(path) for path in data.sources()}
    opened = set()
    monkeypatch.setattr("builtins.open", lambda file, *a, **k: opened.add(str(file)) or io_open(file, *a, **k))
    for i in range(len(data)):
        data[i]
    monkeypatch.undo()
    assert opened and opened <= named
    kept = quiet(data, folder=tmp_path / "c")
    for i in range(len(data)):
        same(data[i], kept[i])


io_open = open


def test_stacks_and_composites_name_their_files(tmp_path):
    import tifffile

    stack = np.arange(10 * 8 * 8, dtype=np.uint8).reshape(10, 8, 8)
    tifffile.imwrite(tmp_path / "train-volume.tif", stack, photometric="minisblack")
    tifffile.imwrite(tmp_path / "train-labels.tif", (stack > 99).astype(np.uint8) * 255, photometric="minisblack")
    data = ISBI2012(tmp_path)
    assert {path.name for path in data.sources()} == {"train-volume.tif", "train-labels.tif"}
    kept = quiet(data, folder=tmp_path / "c")
    same(data[2], kept[2])
    assert np.array_equal(kept.baseline(kept[2]), data.baseline(data[2]))
    for i in range(2):
        layouts.save(tmp_path / "fg" / f"{i}.png", np.full((8, 8, 4), 200, np.uint8))
        layouts.save(tmp_path / "bg" / f"{i}.png", np.full((20, 20, 3), 50 * i, np.uint8))
    files = Composites("all", 16, 3, root=tmp_path)
    assert len(list(files.sources())) == 4 and not list(Composites().sources())
    same(files[1], quiet(files, folder=tmp_path / "c")[1])
    drawn = quiet(Composites(length=3, size=32), folder=tmp_path / "c")
    assert drawn.baseline(drawn[0]).shape == (32, 32)


def one_pixel_changed(path):
    """The same size and times, other content."""
    before, stat = path.read_bytes(), path.stat()
    array = np.array(Image.open(path))
    for value in range(1, 256):
        array[0, 0] = value
        Image.fromarray(array).save(path)
        if path.stat().st_size == len(before) and path.read_bytes() != before:
            break
    else:
        pytest.fail("no image of the same size")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_mtime_ns == stat.st_mtime_ns


@pytest.mark.parametrize("age", [0, 100])
def test_changed_content_is_detected_despite_equal_size_and_times(tmp_path, pairs, age, monkeypatch):
    data = pairs()
    if age:  # old enough for the receipt to be trusted where nothing differs
        monkeypatch.setattr(fingerprint, "SETTLED", -(10**9))
    old = quiet(data, folder=tmp_path / "c")
    first = old[1]
    one_pixel_changed(tmp_path / "data" / "images" / "1.png")
    new = quiet(data, folder=tmp_path / "c")
    assert not np.array_equal(new[1]["image"], first["image"])
    same(data[1], new[1])
    same(old[1], first)  # who has the old file open keeps it
    with pytest.raises(CacheError, match="other data"):
        pickle.loads(pickle.dumps(old))[1]
    assert len(caches(tmp_path)) == 1


def test_files_are_read_again_only_where_they_may_have_changed(tmp_path, pairs, monkeypatch):
    data = pairs()
    read = []
    monkeypatch.setattr(fingerprint, "SETTLED", -(10**9))
    monkeypatch.setattr(fingerprint, "_hash", lambda name, real=fingerprint._hash: read.append(name) or real(name))
    quiet(data, folder=tmp_path)
    assert len(read) == 12
    quiet(data, folder=tmp_path)
    assert len(read) == 12
    (tmp_path / "data" / "images" / "1.png").touch()
    before = caches(tmp_path)[0].stat().st_mtime_ns
    quiet(data, folder=tmp_path)
    assert len(read) == 13
    assert caches(tmp_path)[0].stat().st_mtime_ns == before  # the content is the same, the cache stays
    monkeypatch.setattr(fingerprint, "SETTLED", 2 * 10**9)  # just written: its clock may not have ticked
    quiet(data, 8, folder=tmp_path)
    quiet(data, 8, folder=tmp_path)
    assert len(read) == 13 + 36  # before and after the build, and by the next


def test_a_broken_receipt_is_ignored(tmp_path, pairs, monkeypatch):
    monkeypatch.setattr(fingerprint, "SETTLED", -(10**9))
    quiet(pairs(), folder=tmp_path)
    receipt = next(tmp_path.glob("*.sources"))
    whole = receipt.read_bytes()
    truth = fingerprint.Sources(pairs().sources(), tmp_path / "none").digest()
    rng = random.Random(0)
    for _ in range(40):
        raw = bytearray(whole)
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        receipt.write_bytes(raw if rng.random() < 0.9 else raw[: rng.randrange(len(raw))])
        assert fingerprint.Sources(pairs().sources(), receipt).digest() == truth


def test_any_change_of_samples_makes_another_cache(tmp_path, pairs, monkeypatch):
    data = pairs()
    quiet(data, folder=tmp_path / "c")
    quiet(data, 8, folder=tmp_path / "c")
    quiet(data, (8, 9), folder=tmp_path / "c")
    assert len(caches(tmp_path)) == 3
    kept = quiet(Folder(tmp_path / "data", classes=2, ids=(255, 0)), folder=tmp_path / "c")  # an option
    assert len(caches(tmp_path)) == 4 and np.array_equal(kept[0]["mask"], 1 - data[0]["mask"])
    assert len(quiet(pairs(7), folder=tmp_path / "c")) == 7  # a file more
    assert len(caches(tmp_path)) == 5
    monkeypatch.setattr(cachefile, "FORMAT", 99)
    quiet(data, folder=tmp_path / "c")
    assert len(caches(tmp_path)) == 6
    monkeypatch.setattr(fingerprint.importlib.metadata, "version", lambda name: "99")
    quiet(data, folder=tmp_path / "c")
    assert len(caches(tmp_path)) == 7


CODE = """
import numpy as np
from unetzoo.datasets import SegmentationDataset
from unetzoo.labels import LabelSpec

class Own(SegmentationDataset):
    def __init__(self):
        super().__init__(labels=LabelSpec.indexed(2))
    def __len__(self):
        return 2
    def sources(self):
        return ()
    def load(self, index):
        return {"image": np.full((4, 4, 3), VALUE, np.uint8), "mask": np.zeros((4, 4), np.uint8), "id": str(index)}
"""


def test_changed_code_makes_another_cache(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    for value in (1, 2):
        (tmp_path / "own_dataset.py").write_text(CODE.replace("VALUE", str(value)))
        sys.modules.pop("own_dataset", None)
        sys.dont_write_bytecode = True
        importlib.invalidate_caches()
        own = importlib.import_module("own_dataset").Own()
        assert quiet(own, folder=tmp_path / "c")[0]["image"].max() == value
    assert len(caches(tmp_path)) == 2
    names = {"__name__": "unwritten"}
    exec(CODE.replace("VALUE", "3"), names)
    with refused(ConfigError, expected="code", hint="define the class in a file"):
        quiet(names["Own"](), folder=tmp_path / "c")


def test_only_code_that_is_imported_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "own_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "data.py").write_text("from .helper import VALUE\n" + CODE)
    (package / "helper.py").write_text("VALUE = 1\n")
    (package / "neighbor.py").write_text("x = 1\n")
    own = importlib.import_module("own_package.data").Own()
    before = fingerprint.of_code(type(own))
    (package / "neighbor.py").write_text("x = 2\n")
    assert fingerprint.of_code(type(own)) == before
    (package / "helper.py").write_text("VALUE = 2\n")
    assert fingerprint.of_code(type(own)) != before
    names = {path.name for path in fingerprint._imported({Folder.__module__})}
    assert {"folder.py", "file_dataset.py", "files.py", "labels.py"} <= names and "helen.py" not in names


def test_files_that_change_while_they_are_cached(tmp_path, pairs, monkeypatch):
    data = pairs()
    real = Folder.load

    def load(self, index):
        if index == 5:
            one_pixel_changed(tmp_path / "data" / "images" / "1.png")
        return real(self, index)

    monkeypatch.setattr(Folder, "load", load)
    with pytest.raises(DataError, match="changed"):
        quiet(data, folder=tmp_path / "c")
    assert not caches(tmp_path) and not debris(tmp_path)


def test_a_dataset_that_cannot_say_is_refused(tmp_path):
    class Silent(All):
        sources = SegmentationDataset.sources

    with refused(ConfigError, subject="Silent", expected="a method sources()"):
        quiet(Silent(), folder=tmp_path)

    class Structural:
        labels, transform = LabelSpec.indexed(2), None

    with refused(ConfigError, subject="Structural", expected="a method sources()"):
        quiet(Structural(), folder=tmp_path)
    loose = All()
    loose.filter = lambda x: x
    with refused(ConfigError, subject="All.filter", found="builtins.function"):
        quiet(loose, folder=tmp_path)
    with pytest.raises(ConfigError, match="already cached"):
        quiet(quiet(All(), folder=tmp_path), folder=tmp_path)
