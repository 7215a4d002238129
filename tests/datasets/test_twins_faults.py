"""Faults of twins: their content, and the files that they change."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from twinned import content, load, plants

from unetzoo.datasets.files import read_image
from unetzoo.errors import DataError
from unetzoo.twins import FAULTS, LAYOUTS, plant, write

# What a dataset that reads all of its samples must raise; faults that it cannot see are the audit's.
LOUD = {
    "missing-mask", "missing-image", "duplicate-stem", "truncated-image", "truncated-mask", "empty-file",
    "not-an-image", "pixel-bomb", "size-mismatch", "depth-missing", "depth-size-mismatch", "jpeg-mask", "rgb-mask",
    "alpha-mask", "sixteen-bit-mask", "float-mask", "multi-frame-mask", "palette-to-gray", "jpeg-values", "zero-one",
    "zero-255", "shifted-ids", "out-of-range-id", "sixteen-bit-image",
}  # fmt: skip


@pytest.mark.parametrize(("name", "code"), list(plants()))
def test_faults_change_only_the_reported_files(name, code, twins, tmp_path):
    root = tmp_path / "twin"
    shutil.copytree(twins(name, LAYOUTS[name].least), root)
    before = content(root)
    touched = plant(root, name, code)
    if code == "no-permission":
        assert [path.stat().st_mode & 0o777 for path in touched] == [0]
        os.chmod(touched[0], 0o644)
        return
    after = content(root)
    changed = {path for path in {*before, *after} if before.get(path) != after.get(path)}
    assert touched and changed == {str(path.relative_to(root)) for path in touched}
    if code in LOUD and name != "composites":
        with pytest.raises(DataError):
            for split in LAYOUTS[name].splits:
                for _ in load(name, root, split):
                    pass


def test_the_seed_selects_the_sample_of_a_fault(twins, tmp_path):
    hit = set()
    for seed in (0, 0, 1, 2, 3):
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(twins("helen"), root)
        hit.add((seed, plant(root, "helen", "empty-file", seed)[0].name))
    assert len(hit) == 4 and len({name for _, name in hit}) > 1


@pytest.mark.parametrize("name", ["csv", "celebamask", "isbi2012-tif"])
def test_several_faults_hit_several_samples(name, twins, tmp_path):
    root = tmp_path / "twin"
    shutil.copytree(twins(name), root)
    codes = [code for code in ("missing-mask", "missing-image", "truncated-image", "blank-image", "out-of-range-id")
             if name in FAULTS[code].layouts and not (code == "truncated-image" and "tif" in name)]  # fmt: skip
    first = [plant(root, name, code)[0] for code in codes]
    assert len(codes) >= 2 and len({path.stem for path in first}) >= 2


def planted(name, code, twins, tmp_path):
    root = tmp_path / "twin"
    shutil.copytree(twins(name), root)
    return root, plant(root, name, code)


def digests(name, root, split):
    return [hashlib.sha256(s["image"][..., :3].tobytes()).digest() for s in load(name, root, split)]


@pytest.mark.parametrize("name", [name for name in FAULTS["leakage"].layouts if name != "composites"])
def test_leakage_duplicates_and_conflicts(name, twins, tmp_path):
    clean = [set(digests(name, twins(name), split)) for split in ("train", "val")]
    assert not clean[0] & clean[1]
    root, _ = planted(name, "leakage", twins, tmp_path / "a")
    assert set(digests(name, root, "train")) & set(digests(name, root, "val"))
    for code, agree in (("duplicate-image", True), ("conflicting-labels", False)):
        root, _ = planted(name, code, twins, tmp_path / code)
        samples = list(load(name, root, "train"))
        seen = digests(name, root, "train")
        (twice,) = [d for d, n in Counter(seen).items() if n > 1]
        a, b = (samples[i]["mask"] for i, d in enumerate(seen) if d == twice)
        assert (a == b).all() == agree


@pytest.mark.parametrize("name", FAULTS["misaligned-mask"].layouts)
def test_misaligned_masks_are_swapped_masks(name, twins, tmp_path):
    root, _ = planted(name, "misaligned-mask", twins, tmp_path)
    before, after = (list(load(name, place, "train")) for place in (twins(name), root))
    assert all((a["image"] == b["image"]).all() for a, b in zip(before, after, strict=True))
    differ = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if (a["mask"] != b["mask"]).any()]
    i, j = differ
    assert (before[i]["mask"] == after[j]["mask"]).all() and (before[j]["mask"] == after[i]["mask"]).all()


def values(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_content_of_some_faults(twins, tmp_path):
    def one(name, code):
        return planted(name, code, twins, tmp_path / code / name)[1][0]

    assert len(set(one("carvana", "inverted-mask").read_bytes())) > 1
    clean = next(p for p in LAYOUTS["folder"].reader(twins("folder"))).masks[0]
    gray = one("folder", "palette-to-gray")
    assert clean.name == gray.name and len(np.unique(values(clean))) == len(np.unique(values(gray)))
    assert set(np.unique(values(one("isbi2012", "zero-one")))) == {0, 1}
    assert set(np.unique(values(one("camvid", "zero-255")))) == {0, 255}
    assert set(np.unique(values(one("csv", "shifted-ids")))) == {1, 2}
    assert values(one("helen", "sixteen-bit-mask")).max() == 10 * 257
    assert set(np.unique(values(one("camvid", "all-ignored")))) == {11}
    assert set(np.unique(values(one("isbi2012", "empty-mask")))) == {255}
    for name, code, fact in (
        ("carvana", "multi-frame-mask", lambda image: image.n_frames == 2),
        ("eva", "exif-one-sided", lambda image: image.getexif()[0x0112] in (3, 6, 8)),
        ("helen", "cmyk-image", lambda image: image.mode == "CMYK"),
    ):
        with Image.open(one(name, code)) as image:
            assert fact(image)
    assert values(one("helen", "blank-image")).std() < 1
    assert one("folder", "pixel-bomb").stat().st_size < 50_000
    interpolated = values(one("carvana", "interpolated-ids"))
    assert len(np.unique(interpolated)) > 10
    root, _ = planted("camvid", "absent-class", twins, tmp_path / "absent")
    assert not any((s["mask"] == 10).any() for split in ("train", "val", "test") for s in load("camvid", root, split))


def test_exif_does_not_change_pixels(twins, tmp_path):
    root, (path,) = planted("helen", "exif-one-sided", twins, tmp_path)
    was = twins("helen") / path.relative_to(root)
    assert (values(path) == values(was)).all() and read_image(path).tobytes() != read_image(was).tobytes()


def test_faults_of_one_file_and_of_all_files_go_together(tmp_path):
    root = write("camvid", tmp_path / "twin")
    broken = plant(root, "camvid", "truncated-mask")
    assert len(plant(root, "camvid", "interpolated-ids")) > 1
    assert not set(broken) & set(plant(root, "camvid", "shifted-ids"))
