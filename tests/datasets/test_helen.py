from __future__ import annotations

import pickle

import numpy as np
import pytest
from layouts import FACE, helen, plain, save
from PIL import Image
from refusals import refused
from torch.utils.data import DataLoader

from unetzoo.datasets import Helen, Transform
from unetzoo.errors import ConfigError, DataError, ImageDecodeError, LabelRangeError, LayoutError, PairingError


@pytest.mark.parametrize("resorted", [False, True])
def test_both_layouts(tmp_path, resorted):
    root = helen(tmp_path, resorted=resorted)
    data = {split: Helen(root, split) for split in ("train", "val", "trainval", "test")}
    assert {split: len(d) for split, d in data.items()} == {"train": 11, "val": 1, "trainval": 12, "test": 3}
    ids = {split: {s["id"] for s in d} for split, d in data.items()}
    assert ids["train"] | ids["val"] == ids["trainval"] and not ids["train"] & ids["val"]
    assert [s["id"] for s in data["trainval"]][-2:] == ["10_1", "11_1"]
    sample = data["test"][2]
    assert (sample["mask"] == FACE).all() and abs(int(sample["image"].mean()) - 20) <= 1
    assert (pickle.loads(pickle.dumps(data["val"]))[0]["mask"] == FACE).all()


def test_the_inner_folder_of_the_resorted_layout_serves_as_root(tmp_path):
    helen(tmp_path, resorted=True)
    assert len(Helen(tmp_path / "splitted_Data", "test")) == 3


def test_val_is_a_seeded_share(tmp_path):
    root = helen(tmp_path, count=20, tests=1)
    ids = [[s["id"] for s in Helen(root, "val", val_fraction=0.25, split_seed=seed)] for seed in (0, 0, 1)]
    assert len(ids[0]) == 5 and ids[0] == ids[1] != ids[2]
    with pytest.raises(ConfigError, match="val_fraction"):
        Helen(root, "val", val_fraction=1.0)


def test_a_mirrored_face_has_its_left_at_the_viewers_left(tmp_path):
    data = Helen(helen(tmp_path), "test")
    data.transform = Transform(hflip=1.0, labels=data.labels)
    mask = data[0]["mask"].numpy()
    for left, right in (("lb", "rb"), ("le", "re")):
        columns = [np.nonzero(mask == data.labels.names.index(name))[1].mean() for name in (left, right)]
        assert columns[0] < 16 < columns[1]
    assert {data.labels.names[i] for i in data.labels.groups["brows"]} == {"lb", "rb"}


@pytest.mark.parametrize("workers", [0, 2])
def test_loader(tmp_path, workers):
    data = Helen(helen(tmp_path), "test", transform=Transform())
    (batch,) = DataLoader(data, batch_size=3, num_workers=workers)
    assert batch["image"].shape == (3, 3, 32, 32) and batch["mask"].shape == (3, 32, 32)


def test_jpeg_labels_are_refused(tmp_path):
    root = helen(tmp_path, tests=25)
    save(root / "test" / "0_1_label.jpg", FACE)
    assert len(Helen(root, "test")) == 25  # a PNG is there as well
    for i in range(25):
        (root / "test" / f"{i}_1_label.png").unlink()
        save(root / "test" / f"{i}_1_label.jpg", FACE)
    with pytest.raises(
        ImageDecodeError, match=r"JPEG files, which are lossy(?s:.*)25 faults(?s:.*)and 5 more"
    ) as caught:
        Helen(root, "test")
    assert str(caught.value).count("_label.jpg") == 20


def test_a_jpeg_in_disguise_is_refused(tmp_path):
    root = helen(tmp_path)
    Image.fromarray(FACE).save(root / "test" / "1_1_label.png", format="JPEG")
    with refused(ImageDecodeError, subject="1_1_label.png", hint="JPEG"):
        Helen(root, "test")[1]


def test_faults_are_reported_together(tmp_path):
    root = helen(tmp_path, tests=30)
    for i in range(25):
        (root / "test" / f"{i}_1_label.png").unlink()
    (root / "test" / "29_1_image.jpg").unlink()
    with refused(PairingError, found=("26 faults", "and 6 more")):
        Helen(root, "test")
    save(root / "train" / "3_1_image.png", plain(FACE.shape, 0))
    with pytest.raises(PairingError, match="same name"):
        Helen(root, "train")


def test_other_layouts_and_values(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        Helen(tmp_path / "none")
    (tmp_path / "helenstar").mkdir()
    with pytest.raises(LayoutError) as caught:
        Helen(tmp_path)
    assert "splitted_Data/train/images/" in caught.value.expected and caught.value.found == "helenstar/"
    assert caught.value.hint == Helen.how_to_get
    with pytest.raises(ConfigError, match="trainval"):
        Helen(tmp_path, "all")  # type: ignore[arg-type]
    root = helen(tmp_path / "data", count=1)
    with pytest.raises(DataError, match="too few"):
        Helen(root)
    save(root / "train" / "0_1_label.png", FACE + 1)
    with refused(LabelRangeError, subject="0_1_label.png", found="11"):
        Helen(root, "trainval")[0]


@pytest.mark.realdata
def test_helen_real(real, tmp_path):
    faces = real / "faces" / "celebamask_hq"
    for path in sorted((faces / "labels11_helen").glob("28*.png")):
        labels = np.asarray(Image.open(path))
        image = Image.open(faces / "CelebA-HQ-img" / f"{path.stem}.jpg").resize(labels.shape[::-1])
        save(tmp_path / "test" / f"{path.stem}_label.png", labels)
        save(tmp_path / "test" / f"{path.stem}_image.jpg", np.asarray(image))
    data = Helen(tmp_path, "test")
    assert len(data) == 8
    masks = np.stack([s["mask"] for s in data])
    columns = {name: np.nonzero(masks == i)[2].mean() / masks.shape[2] for i, name in enumerate(data.labels.names)}
    assert columns["lb"] < 0.5 < columns["rb"] and columns["le"] < 0.5 < columns["re"]
