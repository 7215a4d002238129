from __future__ import annotations

import pickle

import numpy as np
import pytest
import tifffile
from PIL import Image

from unetzoo.datasets import ISBI2012
from unetzoo.errors import ConfigError, DataError, ImageDecodeError, LayoutError, SizeMismatchError


@pytest.fixture(params=["png", "tif"])
def isbi(request, tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (30, 8, 10), np.uint8)
    labels = rng.integers(0, 2, (30, 8, 10), np.uint8) * 255
    if request.param == "tif":
        tifffile.imwrite(tmp_path / "train-volume.tif", images)
        tifffile.imwrite(tmp_path / "train-labels.tif", labels)
    else:
        for name, stack in (("images", images), ("labels", labels)):
            (tmp_path / name).mkdir()
            for i, slice_ in enumerate(stack):
                Image.fromarray(slice_).save(tmp_path / name / f"{i}.png")  # unpadded: 10 must come after 9
    return tmp_path, images, labels


def test_isbi(isbi):
    root, images, labels = isbi
    data = {split: ISBI2012(root, split) for split in ("train", "val", "test", "all")}
    assert {split: len(d) for split, d in data.items()} == {"train": 20, "val": 4, "test": 6, "all": 30}
    assert [[int(s["id"]) for s in data[split]] for split in ("val", "test")] == [[20, 21, 22, 23], [*range(24, 30)]]
    for i in (0, 19):
        sample = data["train"][i]
        assert (sample["image"][..., 0] == images[i]).all() and (sample["mask"] == labels[i] // 255).all()
    assert (pickle.loads(pickle.dumps(data["test"]))[-1]["image"][..., 0] == images[29]).all()


def test_isbi_faults(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(LayoutError) as caught:
        ISBI2012(tmp_path)
    assert "train-volume.tif" in caught.value.expected and caught.value.hint == ISBI2012.how_to_get
    with pytest.raises(DataError, match="no such folder"):
        ISBI2012(tmp_path / "none")
    with pytest.raises(ConfigError):
        ISBI2012(tmp_path, "first")  # type: ignore[arg-type]
    tifffile.imwrite(tmp_path / "train-volume.tif", np.zeros((3, 4, 4), np.uint8))
    tifffile.imwrite(tmp_path / "train-labels.tif", np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(SizeMismatchError, match="different shape"):
        ISBI2012(tmp_path)
    (tmp_path / "train-labels.tif").write_bytes(b"junk")
    with pytest.raises(ImageDecodeError):
        ISBI2012(tmp_path)


@pytest.mark.realdata
def test_isbi_real(real):
    data = ISBI2012(real / "isbi2012", "all")
    masks = np.stack([data[i]["mask"] for i in (0, 29)])
    assert len(data) == 30 and masks.shape == (2, 512, 512) and 0.7 < masks.mean() < 0.85


def test_isbi_baseline_is_cell_everywhere(isbi):
    data = ISBI2012(isbi[0], "val")
    assert (data.baseline(data[0]) == 1).all()
