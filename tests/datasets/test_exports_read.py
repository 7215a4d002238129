"""Exports that others wrote: names, layouts, faults."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from exported import SMALL, opened
from PIL import Image
from refusals import refused

from unetzoo.datasets import Composites, CompositesExport, cached, write_export
from unetzoo.datasets.export_files import identities
from unetzoo.errors import (
    ConfigError,
    DataError,
    ImageDecodeError,
    LabelRangeError,
    LayoutError,
    PairingError,
    SizeMismatchError,
)

FOLDERS = ("fg_bg", "fg_bg_mask", "fg_bg_depth", "bg")


@pytest.mark.parametrize(
    ("stem", "scenes", "names"),
    [
        ("fg021flip_bg94_05", (), ("fg021", "bg94")),
        ("fg021_bg94_05", {"bg9", "bg94"}, ("fg021", "bg94")),
        ("_base_fg_fg001_bg_bg1_20", {"bg1"}, ("fg001", "bg1")),
        ("FGFLIP_BG_flip_fg_fg001_bg_bg1_01", (), ("fg001", "bg1")),
        ("ak_fg_001flip_ak_bg_005_000012", {"ak_bg_005", "bg_005"}, ("ak_fg_001", "ak_bg_005")),
        ("ak_fg_001_bg1_000012", {"bg1"}, ("ak_fg_001", "bg1")),
        ("img_0050", (), None), ("fg_bg_638", (), None), ("img_0050", {"bg1"}, None), ("fg1_bg2", {"bg2"}, None),
    ],
)  # fmt: skip
def test_names(stem, scenes, names):
    assert identities(stem, scenes) == names


@pytest.fixture
def original(tmp_path):
    """A small export as the original made it: JPEG throughout, `fg001flip_bg1_05`, one scene file each."""
    rng = np.random.default_rng(0)
    for kind in FOLDERS:
        (tmp_path / kind).mkdir()
    for bg in range(1, 11):
        Image.new("RGB", (40, 30), (20 * bg, 0, 0)).save(tmp_path / "bg" / f"bg{bg}.jpg")
    for fg in range(1, 11):
        for bg in range(1, 11):
            mask = np.zeros((30, 40), np.uint8)
            mask[5 : 10 + fg, 6:20] = 255
            stem = f"fg{fg:03d}{'flip' * (bg % 2)}_bg{bg}_05"
            image = np.where(mask[..., None] > 0, np.uint8(200), np.uint8(20 * bg)).repeat(3, axis=2)
            for kind, array in (("fg_bg", image), ("fg_bg_mask", mask)):
                Image.fromarray(array).save(tmp_path / kind / f"{stem}.jpg", quality=90)
            depth = Image.fromarray(rng.integers(50, 60, (30, 40)).astype(np.uint8))
            depth.convert("RGB" if bg == 1 else "L").save(tmp_path / "fg_bg_depth" / f"{stem}.jpg")
    return tmp_path


def test_the_originals_layout(original):
    with pytest.raises(ImageDecodeError, match="lossy") as caught:
        CompositesExport(original)
    assert caught.value.subject == original and "mask_threshold=128" in caught.value.hint
    data = CompositesExport(original, mask_threshold=128)
    sample = data[data.stems.index("fg003flip_bg7_05")]
    truth = np.zeros((30, 40), bool)
    truth[5:13, 6:20] = True
    assert (sample["mask"] == truth).all() and set(np.unique(sample["mask"])) == {0, 1}
    assert abs(int(sample["image"][0, 0, 3]) - 140) < 3 and sample["image"].shape == (30, 40, 6)
    assert 0.15 < sample["depth"].min() and sample["depth"].max() < 0.3 and "valid" not in sample
    assert data.depth_source == "files"
    parts = {split: CompositesExport(original, split, mask_threshold=128).stems for split in ("train", "val", "test")}
    assert (len(parts["train"]), parts["val"], parts["test"]) == (64, ["fg009flip_bg9_05"], ["fg010_bg10_05"])
    assert len(data.sources()) == 64 * 3 + 8
    with pytest.raises(ConfigError, match="mask_threshold"):
        CompositesExport(original, mask_threshold=0)
    with pytest.raises(ConfigError, match="channels"):
        CompositesExport(original, channels=4)
    gaps = CompositesExport(original, mask_threshold=128, depth_scale=0.1, depth_gaps=True)[0]
    assert 4.9 < gaps["depth"].max() < 6.5 and gaps["valid"].all()
    shutil.rmtree(original / "fg_bg_depth")
    without = CompositesExport(original, mask_threshold=128)
    assert "depth" not in without[0] and without.depth_source == "none"


def test_scenes_by_stem_are_divided_by_their_content(original):
    """Names without identities: 100 composites of 10 scenes, each with its own scene file."""
    scenes = {}
    for number, path in enumerate(sorted((original / "fg_bg").iterdir())):
        names = identities(path.stem)
        for kind in FOLDERS[:3]:
            (original / kind / path.name).rename(original / kind / f"img_{number:04d}.jpg")
        shutil.copy(original / "bg" / f"{names[1]}.jpg", original / "bg" / f"img_{number:04d}.jpg")
        scenes[f"img_{number:04d}"] = names[1]
    for path in (original / "bg").glob("bg*"):
        path.unlink()
    sets = []
    for split in ("train", "val", "test"):
        stems = CompositesExport(original, split, mask_threshold=128, split_seed=1).stems
        sets.append({scenes[stem] for stem in stems})
        assert len(stems) == 10 * len(sets[-1])
    assert [len(s) for s in sets] == [8, 1, 1] and len(set.union(*sets)) == 10
    assert CompositesExport(original, "all", mask_threshold=128)[0]["image"].shape[2] == 6
    three = [CompositesExport(original, split, mask_threshold=128, channels=3) for split in ("train", "val", "test")]
    assert [len(data) for data in three] == [80, 10, 10] and len(three[0].sources()) == 3 * 80
    shutil.rmtree(original / "bg")
    assert len(CompositesExport(original, "all", mask_threshold=128, channels=3)) == 100
    with pytest.raises(DataError, match="unknown split") as caught:
        CompositesExport(original, "train", mask_threshold=128, channels=3)
    assert 'split="all"' in caught.value.hint


def test_faults_of_an_export(original):
    def read(**options):
        return CompositesExport(original, "all", mask_threshold=128, **options)

    Image.new("L", (40, 31)).save(original / "fg_bg_depth" / "fg001_bg2_05.jpg")
    Image.new("RGB", (41, 30)).save(original / "bg" / "bg3.jpg")
    (original / "fg_bg" / "fg001_bg4_05.jpg").write_bytes(b"\xff\xd8\xff broken")
    data = read()
    for stem, role in (("fg001_bg2_05", "depth"), ("fg001flip_bg3_05", "background")):
        with pytest.raises(SizeMismatchError, match=role):
            data[data.stems.index(stem)]
    with pytest.raises(ImageDecodeError, match="fg001_bg4"):
        data[data.stems.index("fg001_bg4_05")]
    (original / "fg_bg_mask" / "fg002_bg2_05.jpg").unlink()
    (original / "fg_bg" / "fg003_bg2_05.jpg").unlink()
    (original / "bg" / "bg5.jpg").unlink()
    shutil.copy(original / "fg_bg" / "fg004_bg2_05.jpg", original / "fg_bg" / "fg004_bg2_05.jpeg")
    with pytest.raises(PairingError) as caught:
        read()
    # one mask and one composite are missing, ten composites have no scene, and one exists twice
    for part in ("13 faults", "fg_bg/fg002_bg2_05.jpg has no labels", "fg003_bg2_05.jpg has no image",
                 "fg001flip_bg5_05.jpg has no background", "fg004_bg2_05.jpg have the same name"):  # fmt: skip
        assert part in caught.value.found
    (original / "fg_bg_depth" / "fg001_bg6_05.jpg").unlink()
    with pytest.raises(PairingError) as caught:
        read()
    assert "fg001_bg6_05.jpg has no depth" in caught.value.found
    shutil.rmtree(original / "fg_bg_mask")
    with pytest.raises(LayoutError) as caught:
        read()
    assert caught.value.expected == "fg_bg/ and fg_bg_mask/ and bg/" and "compose" in caught.value.hint
    (original / "fg_bg_mask").mkdir()
    with pytest.raises(PairingError, match="has no labels"):
        read()
    with pytest.raises(DataError, match="no such folder"):
        CompositesExport(original / "nowhere")
    with refused(ConfigError, hint="did you mean 'val'"):
        CompositesExport(original, "vall")


def test_grays_in_png_masks(tmp_path):
    data = Composites(**SMALL, length=3)
    write_export(data, tmp_path)
    path = tmp_path / "fg_bg_mask" / f"{data.stem(1)}.png"
    Image.fromarray(opened(path) // 255 * np.uint8(200)).save(path)
    read = CompositesExport(tmp_path, "all")
    with refused(LabelRangeError, found="200 (", hint="mask_threshold=128"):
        read[read.stems.index(data.stem(1))]
    lenient = CompositesExport(tmp_path, "all", mask_threshold=128)
    assert (lenient[lenient.stems.index(data.stem(1))]["mask"] == data[1]["mask"]).all()


@pytest.mark.parametrize("text", ["", "[]", '{"format": 99}', '{"format": 1}', "\x00"])
def test_broken_manifest(tmp_path, text):
    write_export(Composites(**SMALL, length=2), tmp_path)
    (tmp_path / "composites.json").write_text(text)
    with pytest.raises(DataError, match="unreadable manifest"):
        CompositesExport(tmp_path, "all")
    with pytest.raises(DataError, match="unreadable manifest"):
        write_export(Composites(**SMALL, length=2), tmp_path)


def test_an_archive(tmp_path, monkeypatch):
    monkeypatch.setenv("UNETZOO_CACHE", str(tmp_path / "cache"))
    data = Composites(**SMALL, length=3)
    write_export(data, tmp_path / "out")
    read = CompositesExport(shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "out"), "all")
    assert (read[read.stems.index(data.stem(2))]["image"] == data[2]["image"]).all()


def test_they_can_be_cached(original, tmp_path):
    data = CompositesExport(original, "val", mask_threshold=128)
    kept = cached(data, folder=tmp_path / "cache", workers=0, progress=False)
    assert (kept[0]["image"] == data[0]["image"]).all() and kept[0]["id"] == data[0]["id"]


@pytest.mark.realdata
def test_a_real_export(real):
    root = real / "fgbg_depth" / "composites"
    with pytest.raises(ImageDecodeError) as caught:
        CompositesExport(root)
    assert "15 faults" in caught.value.found and "mask_threshold=128" in caught.value.hint
    data = CompositesExport(root, "all", mask_threshold=128)
    assert len(data) == 15
    for sample in data:
        image, mask = sample["image"].astype(int), sample["mask"] > 0
        gap = np.abs(image[..., :3] - image[..., 3:]).max(axis=2)
        assert gap[mask].mean() > 5 * gap[~mask].mean() and 0.005 < mask.mean() < 0.4
        assert 0 <= sample["depth"].min() < sample["depth"].max() <= 1
    parts = [CompositesExport(root, split, mask_threshold=128).stems for split in ("train", "val", "test")]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 15 and all(parts)
