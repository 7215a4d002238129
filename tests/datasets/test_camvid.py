from __future__ import annotations

import pickle

import numpy as np
import pytest
from layouts import camvid, save
from refusals import refused

from unetzoo.datasets import CamVid, Transform
from unetzoo.errors import ConfigError, DataError, LabelRangeError, LayoutError, PairingError


@pytest.mark.parametrize("segnet", [True, False])
def test_camvid(tmp_path, segnet):
    root = camvid(tmp_path, segnet)
    assert [len(CamVid(root, split)) for split in ("train", "val", "test")] == [4, 2, 1]
    data = pickle.loads(pickle.dumps(CamVid(root, "train")))
    sample = data[3]
    assert sample["id"] == "0001TP_000003" and (sample["image"] == 30).all()
    assert sample["mask"].tolist() == [[*range(11), 255]] * 10
    assert data.labels.names[8] == "car" and data.labels.palette[8] == (64, 0, 128) and data.labels.ignore_index == 255
    data.transform = Transform(size=24)
    assert set(np.unique(data[0]["mask"])) <= {*range(11), 255}


def test_faults(tmp_path):
    with pytest.raises(DataError) as caught:
        CamVid(tmp_path / "none")
    assert caught.value.subject == tmp_path / "none" and caught.value.hint == CamVid.how_to_get
    (tmp_path / "701_StillsRaw").mkdir()
    with pytest.raises(LayoutError) as caught:
        CamVid(tmp_path)
    assert caught.value.subject == tmp_path and caught.value.hint == CamVid.how_to_get
    assert "trainannot/" in caught.value.expected and "701_StillsRaw/" in caught.value.found
    with pytest.raises(ConfigError, match="train"):
        CamVid(tmp_path, "trian")  # type: ignore[arg-type]
    root = camvid(tmp_path / "a", train=30)
    for path in sorted((root / "trainannot").iterdir())[:25]:
        path.unlink()
    with refused(PairingError, found=("25 faults", "and 5 more")):
        CamVid(root)
    with pytest.raises(LayoutError) as caught:
        CamVid(root, "val")
    assert "valannot/" in caught.value.expected
    root = camvid(tmp_path / "b", False, train=1)
    save(root / "labels" / "train" / "0001TP_000000.png", np.full((10, 12), 12, np.uint8))
    with pytest.raises(LabelRangeError, match=r"12 \(120 px\)"):
        CamVid(root)[0]
    with pytest.raises(LayoutError) as caught:
        CamVid(root, "val")
    assert "labels/val/" in caught.value.expected


@pytest.mark.realdata
def test_camvid_real(real):
    data = {split: CamVid(real / "camvid", split) for split in ("train", "val")}
    assert [len(d) for d in data.values()] == [367, 101]
    masks = np.stack([data["val"][i]["mask"] for i in range(0, 101, 10)])
    assert set(np.unique(masks)) == {*range(11), 255}
    rows = {name: np.nonzero(masks == i)[1].mean() for i, name in enumerate(data["val"].labels.names)}
    assert rows["sky"] < rows["building"] < rows["road"]  # numbers and names belong together
