from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
from layouts import carvana, plain, save
from PIL import Image
from refusals import refused

from unetzoo.datasets import Carvana
from unetzoo.errors import ConfigError, DataError, ImageDecodeError, LabelRangeError, PairingError


def cars(data):
    return {sample["id"].rpartition("_")[0] for sample in data}


def test_cars_are_divided_not_images(tmp_path):
    root = carvana(tmp_path, cars=20, views=4)
    data = {split: Carvana(root, split) for split in ("train", "val", "test", "all")}
    assert {split: len(d) for split, d in data.items()} == {"train": 64, "val": 8, "test": 8, "all": 80}
    parts = [cars(data[split]) for split in ("train", "val", "test")]
    assert set.union(*parts) == cars(data["all"]) and sum(map(len, parts)) == 20
    assert cars(Carvana(root, "val", split_seed=1)) != parts[1]
    again = pickle.loads(pickle.dumps(data["val"]))
    assert [s["id"] for s in again] == [s["id"] for s in data["val"]]


def test_masks_by_position(tmp_path):
    data = Carvana(carvana(tmp_path, cars=3), "all")
    sample = data[17]
    truth = np.zeros((20, 30), np.uint8)
    truth[5:15, 4:12] = 1
    assert sample["id"] == "01ab_02" and (sample["mask"] == truth).all() and sample["image"].mean() == 7


def test_hq(tmp_path):
    root = carvana(tmp_path, cars=3, views=1, images="train_hq")
    assert len(Carvana(root, "all", hq=True)) == 3
    with refused(DataError, expected="train/ and train_masks/", found="train_hq/, train_masks/", hint="unpack"):
        Carvana(root)


def palette(image, colors):
    paletted = Image.fromarray(image).convert("P")
    paletted.putdata(image.ravel().tolist())
    paletted.putpalette([v for color in colors for v in (color,) * 3])
    return paletted


@pytest.mark.parametrize("kind", ["0/1 by palette", "1/0 by palette", "0/255", "0/1 as numbers", "1 bit"])
def test_masks_are_read_as_displayed(tmp_path, kind):
    root = carvana(tmp_path, cars=1, views=1)
    path = root / "train_masks" / "00ab_01_mask.gif"
    truth = np.zeros((20, 30), np.uint8)
    truth[5:15, 4:11] = 1
    match kind:
        case "0/1 by palette":
            palette(truth, [0, 255]).save(path)
        case "1/0 by palette":
            palette(1 - truth, [255, 0]).save(path)
        case "0/255":
            Image.fromarray(truth * 255).save(path, format="PNG")
        case "0/1 as numbers":
            Image.fromarray(truth).save(path, format="PNG")
        case _:
            Image.fromarray(truth * 255).convert("1").save(path, format="PNG")
    assert (Carvana(root, "all")[0]["mask"] == truth).all()


def test_other_values_are_refused(tmp_path):
    root = carvana(tmp_path, cars=1, views=2)
    gray = np.resize(np.array([0, 128, 255], np.uint8), (20, 30))
    save(root / "train_masks" / "00ab_01_mask.gif", gray)
    (root / "train_masks" / "00ab_02_mask.gif").write_bytes(b"GIF89a")
    data = Carvana(root, "all")
    with refused(LabelRangeError, subject="00ab_01_mask.gif", found="128"):
        data[0]
    with pytest.raises(ImageDecodeError, match=r"00ab_02_mask\.gif"):
        data[1]


def test_faults(tmp_path):
    root = carvana(tmp_path, cars=2)
    with pytest.raises(DataError) as caught:
        Carvana(root)
    assert 'split="all"' in caught.value.hint and "00ab, 01ab" in caught.value.found
    with pytest.raises(ConfigError):
        Carvana(root, "vall")  # type: ignore[arg-type]
    for view in range(1, 17):
        (root / "train_masks" / f"00ab_{view:02d}_mask.gif").unlink()
        (root / "train" / f"01ab_{view:02d}.jpg").unlink()
    save(root / "train" / "00ab_17.jpg", plain((20, 30), 0))
    with refused(PairingError, found=("33 faults", "00ab_17.jpg is not named", "and 13 more")):
        Carvana(root, "all")
    with pytest.raises(DataError, match="no such folder"):
        Carvana(tmp_path / "none")


@pytest.mark.realdata
def test_carvana_real(real, tmp_path):
    for kind, folder in (("images", "train"), ("masks", "train_masks")):
        (tmp_path / folder).mkdir()
        for i, path in enumerate(sorted((real / "cars" / "carvana_10" / kind).iterdir())):
            shutil.copy(path, tmp_path / folder / f"car{i:02d}_01{path.stem[2:]}{path.suffix}")
    data = Carvana(tmp_path, "all")
    assert len(data) == 10 and [len(Carvana(tmp_path, split)) for split in ("train", "val", "test")] == [8, 1, 1]
    for sample in data:
        assert set(np.unique(sample["mask"])) == {0, 1}
        assert sample["mask"][:5].mean() < 0.05 < sample["mask"].mean()  # a car, and not the studio about it
