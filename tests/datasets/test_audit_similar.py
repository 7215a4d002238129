"""The audit of images of other splits that look like training images."""

import numpy as np
import pytest
from auditing import codes
from PIL import Image

from unetzoo.doctor import audit

TWO = {"names": ("background", "cell"), "ids": (0, 255)}


def smooth(rng, size=48):
    """Random blobs."""
    small = Image.fromarray(rng.integers(0, 256, (6, 6), np.uint8))
    return np.asarray(small.resize((size, size), Image.Resampling.BICUBIC), np.float32)


def write_frames(root, frames, name="video_{:03d}", split=lambda number: ""):
    """Write images with disc masks; `split` gives the folder of a number."""
    y, x = np.mgrid[: frames[0].shape[0], : frames[0].shape[1]]
    rng = np.random.default_rng(1)
    for number, frame in enumerate(frames):
        disc = (y - rng.integers(8, 40)) ** 2 + (x - rng.integers(8, 40)) ** 2 < 36
        for kind, array in (("images", frame), ("masks", disc * np.uint8(255))):
            path = root / kind / split(number) / (name.format(number) + ".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(path)
    return root


def video(count, seed=0):
    """Frames that change slowly."""
    rng = np.random.default_rng(seed)
    scenes = [smooth(rng) for _ in range(count // 8 + 2)]
    return [scenes[i // 8] * (1 - i % 8 / 8) + scenes[i // 8 + 1] * (i % 8 / 8) for i in range(count)]


def unrelated(count, seed=0):
    rng = np.random.default_rng(seed)
    return [smooth(rng) for _ in range(count)]


def test_a_video_divided_at_random(tmp_path):
    root = write_frames(tmp_path, video(40))
    report = audit(root, "folder", options=TWO)
    (warning,) = report.warnings
    assert warning.code == "neighbors-in-two-splits" and warning.count > 4
    assert "val; next to images/video_" in warning.cases[0].detail


def test_val_frames_between_training_frames(tmp_path):
    root = write_frames(tmp_path, video(40), split=lambda i: "val" if 15 <= i < 25 else "train")
    (warning,) = audit(root, "folder", options=TWO).warnings
    assert [case.file for case in warning.cases] == ["images/val/video_015.png", "images/val/video_024.png"]


def test_a_sequence_that_is_cut_once_is_divided_well(tmp_path):
    root = write_frames(tmp_path, video(40), split=lambda i: "val" if i >= 32 else "train")
    assert "neighbors-in-two-splits" not in codes(audit(root, "folder", options=TWO))


def test_videos_kept_whole_by_their_group(tmp_path):
    for number in range(5):
        root = write_frames(tmp_path, video(12, number), name=f"{number}_" + "{:02d}")
    report = audit(root, "folder", options={**TWO, "group": r"^(\d+)_"})
    assert not report.warnings and report.splits == {"train": 48, "val": 12}
    assert codes(audit(root, "folder", options=TWO), "warning") == {"neighbors-in-two-splits"}


@pytest.mark.parametrize("seed", range(3))
def test_numbered_images_that_are_no_sequence(seed, tmp_path):
    assert not audit(write_frames(tmp_path, unrelated(60, seed)), "folder", options=TWO).warnings


def test_common_backgrounds_do_not_make_images_similar(tmp_path):
    common = smooth(np.random.default_rng(9))
    frames = [0.9 * common + 0.1 * frame for frame in unrelated(40)]
    assert not audit(write_frames(tmp_path, frames), "folder", options=TWO).warnings


@pytest.mark.parametrize("copy", ["jpeg", "brighter", "half"])
def test_a_near_duplicate_in_another_split(copy, tmp_path):
    frames = unrelated(12)
    root = write_frames(tmp_path, frames, split=lambda i: "val" if i >= 9 else "train")
    image = Image.fromarray((frames[2] * 0.8 + 20 if copy == "brighter" else frames[2]).astype(np.uint8))
    if copy == "half":
        image = image.resize((24, 24)).resize((48, 48))
    (root / "images" / "val" / "video_010.png").unlink()
    image.save(root / "images" / "val" / ("video_010.jpg" if copy == "jpeg" else "video_010.png"), quality=70)
    (warning,) = audit(root, "folder", options=TWO).warnings
    assert warning.code == "near-duplicate" and warning.count == 1
    assert warning.cases[0].file.startswith("images/val/video_010") and "train/video_002" in warning.cases[0].detail


def test_datasets_without_files_are_compared_by_ids(tmp_path):
    from unetzoo.datasets import Folder

    root = write_frames(tmp_path, video(40))
    parts = {split: Folder(root, split, **TWO) for split in ("train", "val")}
    assert codes(audit(parts), "warning") == {"neighbors-in-two-splits"}


def test_a_group_in_two_splits_of_a_manifest(tmp_path):
    root = write_frames(tmp_path, unrelated(6))
    rows = [
        f"images/video_{i:03d}.png,masks/video_{i:03d}.png,{'val' if i > 3 else 'train'},{i // 3}" for i in range(6)
    ]
    (root / "data.csv").write_text("\n".join(["image,mask,split,group", *rows]))
    (warning,) = audit(root, "csv", options=TWO).warnings
    assert warning.code == "group-in-two-splits" and warning.cases[0].detail == "1: train, val"
