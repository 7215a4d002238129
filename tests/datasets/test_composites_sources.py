"""Composites of files: the original's grid, measured depth, faults of sources."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from composing import same
from PIL import Image
from refusals import refused

from unetzoo.datasets import Composites, cached
from unetzoo.datasets.blending import shift
from unetzoo.errors import DataError, ImageDecodeError, PairingError, SizeMismatchError


def pasted_as_the_original(root, data, index):
    """The composite as the original's script makes it: pasted with its alpha at a multiple of 28."""
    which = data.combination(index)
    cut = Image.open(next((root / "fg").glob(f"{data.foreground_names[which.foreground]}.*"))).convert("RGBA")
    scene = Image.open(next((root / "bg").glob(f"{data.background_names[which.background]}.*"))).convert("RGB")
    cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if which.mirrored else cut
    number = int(data.stem(index)[-2:])
    place = 28 * ((number - 1) % 5), 28 * (4 - (number - 1) // 5)
    assert place == (which.left, which.top)
    scene.paste(cut, place, mask=cut)
    alpha = Image.new("L", scene.size)
    alpha.paste(cut.getchannel("A"), place)
    return np.asarray(scene), np.asarray(alpha) >= 128


def test_the_grid_is_the_originals(tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("fg", "bg"):
        (tmp_path / folder).mkdir()
    for i in range(3):
        rgba = rng.integers(0, 256, (96, 96, 4), np.uint8)
        rgba[: 20 + i, :, 3] = rgba[60:, :, 3] = 0  # empty rims
        Image.fromarray(rgba).save(tmp_path / "fg" / f"{i}.png")
        Image.fromarray(rng.integers(0, 256, (192, 192, 3), np.uint8)).save(tmp_path / "bg" / f"{i}.png")
    data = Composites("all", length="all", positions="grid", root=tmp_path)
    ramp = np.linspace(1, 0.4, 192)
    for i in (*range(20), *range(len(data) - 20, len(data))):
        image, mask = pasted_as_the_original(tmp_path, data, i)
        assert (data[i]["image"][..., :3] == image).all() and (data[i]["mask"] == mask).all()
        lowest = min(data.combination(i).top + 59, 191)  # of the cut-out, not of its rim
        np.testing.assert_allclose(data[i]["depth"][mask], 0.75 * ramp[lowest], rtol=1e-6)


@pytest.mark.realdata
def test_the_grid_is_the_originals_on_its_own_files(real):
    root = real / "fgbg_depth"
    data = Composites("all", length="all", positions="grid", root=root)
    compared = 0
    for i in range(0, len(data), 5431):
        which = data.combination(i)
        names = data.foreground_names[which.foreground], data.background_names[which.background]
        if not names[0].startswith("fg") or not names[1].startswith("bg"):
            continue
        with Image.open(root / "fg" / f"{names[0]}.png") as cut:
            if max(cut.size) != 96:
                continue  # taller than wide: scaled here, not in the original
        image, mask = pasted_as_the_original(root, data, i)
        assert (data[i]["image"][..., :3] == image).all() and (data[i]["mask"] == mask).all()
        compared += 1
    assert compared > 40


@pytest.fixture
def folders(tmp_path):
    """Ten cut-outs with a hole, ten scenes, and depth maps in millimeters that know nothing of the left quarter."""
    rng = np.random.default_rng(0)
    for name in ("fg", "bg", "depth"):
        (tmp_path / name).mkdir()
    for i in range(10):
        rgba = rng.integers(0, 255, (20, 20, 4), np.uint8)
        rgba[..., 3] = 255
        rgba[5:9, 5:9, 3] = 0
        Image.fromarray(rgba).save(tmp_path / "fg" / f"cut_{i}.png")
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / "bg" / f"scene{i}.png")
        depth = rng.integers(500, 4000, (40, 40)).astype(np.uint16)
        depth[:, :10] = 0
        Image.fromarray(depth).save(tmp_path / "depth" / f"scene{i}.png")
    return tmp_path


@pytest.mark.parametrize("jitter", [False, True])
def test_depth_maps(folders, jitter):
    options = {"size": 40, "root": folders, "depth": "depth", "depth_scale": 0.001, "depth_gaps": True}
    data = Composites(jitter=jitter, **options)
    plain = Composites(**options)
    hidden_by_gap = 0
    for i in range(20):
        sample, which = plain[i], plain.combination(i)
        truth = np.asarray(Image.open(folders / "depth" / f"scene{which.background}.png")) / 1000
        mask, known = sample["mask"] > 0, truth > 0
        hidden = truth[mask & known]
        layer = 0.75 * (hidden.min() if hidden.size else truth[known].min())
        hidden_by_gap += (mask & ~known).any()
        np.testing.assert_allclose(sample["depth"], np.where(mask, layer, truth), rtol=1e-6)
        assert (sample["valid"] == (known | mask)).all() and mask.sum() == 400 - 16
        if jitter:
            moved = data[i]
            assert any((shift(sample["valid"], dy, dx) == moved["valid"]).all() and
                       (shift(sample["depth"], dy, dx) == moved["depth"]).all()
                       for dy in (-1, 0, 1) for dx in (-1, 0, 1))  # fmt: skip
    assert hidden_by_gap and plain.depth_source == "layered over maps" and "over maps" in repr(plain)
    whole = Composites(**{**options, "depth_gaps": False})
    assert whole[0]["valid"].all() and Composites(size=40, root=folders).depth_source == "layered"
    assert {path.parent.name for path in plain.sources()} == {"fg", "bg", "depth"}
    assert same(pickle.loads(pickle.dumps(data))[1], data[1])


def test_depth_maps_of_another_size(folders):
    for path in (folders / "depth").iterdir():
        Image.fromarray(np.full((80, 80), 30000, np.uint16)).save(path)
    for i in range(5):
        sample = Composites(size=40, root=folders, depth="depth")[i]
        mask = sample["mask"] > 0
        np.testing.assert_allclose(sample["depth"], np.where(mask, 0.75, 1) * 30000 / 65535, rtol=1e-5)


def test_depth_maps_that_cannot_be_used(folders):
    def sample():
        return [Composites("all", 40, root=folders, depth="depth", depth_gaps=True)[i] for i in range(50)]

    path = folders / "depth" / "scene3.png"
    Image.new("I;16", (40, 30), 7).save(path)
    with refused(SizeMismatchError, subject="scene3", expected="40×40", found="40×30"):
        sample()
    Image.new("I;16", (40, 40)).save(path)
    with refused(DataError, subject="scene3"):
        sample()
    path.unlink()
    Image.new("I;16", (40, 40), 7).save(folders / "depth" / "scene4.tif")
    with refused(PairingError, found=("2 faults", "scene3.png has no depth map", "scene4.png has 2 depth maps")):
        sample()
    with pytest.raises(DataError, match="no such folder"):
        Composites(root=folders, depth="maps")


def test_faults_of_sources_are_reported_together(folders):
    assert Composites("all", root=folders, depth="depth", depth_scale=0.001, size=40).check() < 4
    Image.new("RGBA", (5, 5)).save(folders / "fg" / "cut_2.png")
    with refused(DataError, subject="cut_2"):
        Composites(root=folders).check()
    Image.new("RGB", (5, 5)).save(folders / "fg" / "cut_3.png")
    (folders / "bg" / "scene5.png").write_bytes(b"no image")
    with refused(DataError, found=("3 faults", "cut_2", "cut_3", "scene5")):
        Composites(root=folders).check()


def test_they_can_be_cached(folders, tmp_path):
    options = {"size": 40, "root": folders, "depth": "depth", "length": 3}
    kept = cached(Composites(**options), folder=tmp_path / "cache", workers=0, progress=False)
    assert all(same(kept[i], Composites(**options)[i]) for i in range(3))


def test_files(tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("cut", "scenes"):
        (tmp_path / folder).mkdir()
    for i in range(10):
        rgba = rng.integers(0, 255, (40, 30, 4), np.uint8)
        rgba[..., 3] = 0
        rgba[10:30, 6:26, 3] = 255
        Image.fromarray(rgba).save(tmp_path / "cut" / f"{i}.png")
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)).save(tmp_path / "scenes" / f"{i}.jpg")
    data = Composites(size=40, root=tmp_path, fg="cut", bg="scenes")
    assert data.foregrounds == list(range(8)) and len(Composites("val", root=tmp_path, fg="cut", bg="scenes")) == 1000
    sample = data[0]
    assert sample["mask"].sum() == 100  # half the side of the image: 40 px of file are 20
    assert sample["depth"][~sample["mask"].astype(bool)].max() <= 1
    assert same(pickle.loads(pickle.dumps(data))[1], data[1])
    Image.new("RGB", (5, 5)).save(tmp_path / "cut" / "0.png")
    with pytest.raises(ImageDecodeError, match="alpha"):
        [Composites(size=40, root=tmp_path, fg="cut", bg="scenes")[i] for i in range(60)]
    Image.new("RGBA", (5, 5)).save(tmp_path / "cut" / "0.png")
    with pytest.raises(DataError, match="empty cut-out"):
        [Composites(size=40, root=tmp_path, fg="cut", bg="scenes")[i] for i in range(60)]
    with refused(DataError, hint="omit root"):
        Composites(root=tmp_path)


@pytest.mark.realdata
def test_measured_depth(real, tmp_path):
    """Scenes whose depth was measured, in millimeters, with gaps."""
    (tmp_path / "fg").symlink_to(real / "fgbg_depth" / "fg")
    for folder, end in (("bg", "rgb"), ("depth", "depth_mm")):
        (tmp_path / folder).mkdir()
        for scene in ("motorcycle", "arc2017"):
            (tmp_path / folder / f"{scene}.png").symlink_to(real / "fgbg_depth" / "rgbd" / f"{scene}_{end}.png")
    data = Composites("all", root=tmp_path, depth="depth", depth_scale=0.001, depth_gaps=True)
    meters = {name: np.asarray(Image.open(tmp_path / "depth" / f"{name}.png")) / 1000 for name in data.background_names}
    for i in range(10):
        sample = data[i]
        truth, mask = meters[data.background_names[data.combination(i).background]], sample["mask"] > 0
        scene = sample["depth"][sample["valid"] & ~mask]
        assert truth[truth > 0].min() * 0.999 <= scene.min() and scene.max() <= truth.max() * 1.001
        assert abs(np.median(scene) - np.median(truth[truth > 0])) < 0.2 * np.median(scene)
        assert 0.3 < sample["valid"].mean() < 1 and sample["valid"][mask].all()
        assert sample["depth"][mask].max() < truth.max() and np.unique(sample["depth"][mask]).size == 1


@pytest.mark.realdata
def test_real_folders(real):
    data = Composites(root=real / "fgbg_depth", positions="grid")
    coverage = [data[i]["mask"].mean() for i in range(30)]
    assert data[0]["image"].shape == (192, 192, 6) and 0.005 < min(coverage) and max(coverage) < 0.3
