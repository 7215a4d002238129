from __future__ import annotations

import pickle

import numpy as np
import pytest
from layouts import CELEBA, FACE, celebamask, plain, save
from PIL import Image
from refusals import refused

from unetzoo.datasets import CelebAMask, Transform
from unetzoo.datasets.celebamask import PARTS
from unetzoo.errors import (
    ConfigError,
    DataError,
    ImageDecodeError,
    LabelRangeError,
    LayoutError,
    PairingError,
    SizeMismatchError,
)

ANNO = "CelebAMask-HQ-mask-anno"
TRUTH = np.zeros_like(FACE)
for name, number in CELEBA.items():
    TRUTH[FACE == number] = 1 + PARTS.index(name)


def test_parts_are_painted_by_name(tmp_path):
    root = celebamask(tmp_path, ids=(0, 1999, 2000), size=64)
    data = pickle.loads(pickle.dumps(CelebAMask(root, "all")))
    assert [s["id"] for s in data] == ["0", "1999", "2000"]
    sample = data[2]
    assert (sample["mask"] == TRUTH).all()  # hair over skin; eye_g, hat and others have no file: absent
    assert sample["image"].shape == (32, 32, 3) and abs(int(sample["image"].mean()) - 2000 % 256) <= 1
    assert data.labels.classes == 19 and data.labels.names[11:13] == ("u_lip", "l_lip")


def test_later_parts_paint_over_earlier_ones(tmp_path):
    root = celebamask(tmp_path, ids=[7])
    save(root / ANNO / "0" / "00007_hat.png", np.full((32, 32), 255, np.uint8))
    save(root / ANNO / "0" / "00007_cloth.png", np.pad(np.full((8, 32), 255, np.uint8), ((24, 0), (0, 0))))
    mask = CelebAMask(root, "all")[0]["mask"]
    assert (mask[:24] == 14).all() and (mask[24:] == 18).all()


def test_eyes_and_lips_are_one_class(tmp_path):
    root = celebamask(tmp_path, ids=[7, 8])
    for part in ("u_lip", "l_lip", "l_eye", "r_eye"):
        (root / ANNO / "0" / f"00008_{part}.png").unlink()
    data = CelebAMask(root, "all", "eyes-lips")
    assert (data[0]["mask"] == np.isin(FACE, (4, 5, 7, 9))).all()
    assert data[1]["mask"].shape == (32, 32) and not data[1]["mask"].any()  # absent: the other parts give the size
    assert data.labels.classes == 2 and not data.labels.swap_pairs


@pytest.mark.parametrize("flip", ["hflip", "vflip"])
def test_mirrored_faces_keep_their_left(tmp_path, flip):
    data = CelebAMask(celebamask(tmp_path, ids=[1]), "all")
    data.transform = Transform(labels=data.labels, **{flip: 1.0})
    mask = data[0]["mask"].numpy()
    # a mirrored person's left eye was the right one: seen from the front it lies on the right again after a
    # horizontal flip, and on the left of a face that stands on its head
    left, right = (np.nonzero(mask == data.labels.names.index(name))[1].mean() for name in ("l_eye", "r_eye"))
    assert (left > right) == (flip == "hflip")


def test_the_official_split(tmp_path):
    mapping = {0: 162_770, 1: 162_771, 2: 182_637, 3: 182_638, 4: 0, 5: 202_598, 6: 17}
    root = celebamask(tmp_path, ids=range(6), mapping=mapping)  # a copy may hold fewer images than the file
    ids = {split: [s["id"] for s in CelebAMask(root, split)] for split in ("train", "val", "test", "all")}
    assert ids == {"train": ["0", "4"], "val": ["1", "2"], "test": ["3", "5"], "all": list("012345")}


def test_the_seeded_split(tmp_path):
    root = celebamask(tmp_path, ids=range(100), size=32)
    ids = {split: CelebAMask(root, split).files for split in ("train", "val", "test")}
    assert {split: len(part) for split, part in ids.items()} == {"train": 81, "val": 9, "test": 10}
    assert len({*ids["train"], *ids["val"], *ids["test"]}) == 100
    assert CelebAMask(root, "val", split_seed=1).files != ids["val"] == CelebAMask(root, "val").files


@pytest.mark.parametrize("kind", ["empty", "truncated", "gray"])
def test_bad_part_files_are_named_or_skipped(tmp_path, kind):
    root = celebamask(tmp_path, ids=[3])
    path = root / ANNO / "0" / "00003_u_lip.png"
    if kind == "gray":
        save(path, np.full((32, 32), 128, np.uint8))
    else:
        path.write_bytes(path.read_bytes()[:50] if kind == "truncated" else b"")
    for task in ("parts", "eyes-lips"):
        with refused((ImageDecodeError, LabelRangeError), subject="00003_u_lip.png", hint='bad_parts="skip"'):
            CelebAMask(root, "all", task)[0]
    mask = CelebAMask(root, "all", bad_parts="skip")[0]["mask"]
    assert (mask == np.where(TRUTH == 11, 1, TRUTH)).all()
    for other in (root / ANNO / "0").iterdir():
        other.write_bytes(b"")
    with refused(ImageDecodeError, subject="00003_*.png"):
        CelebAMask(root, "all", bad_parts="skip")[0]


def test_sizes(tmp_path):
    root = celebamask(tmp_path, ids=[3])
    save(root / "CelebA-HQ-img" / "3.jpg", plain((32, 40), 0))
    with refused(SizeMismatchError, subject="3.jpg", found="40×32"):
        CelebAMask(root, "all")[0]
    save(root / ANNO / "0" / "00003_hair.png", np.zeros((16, 16), np.uint8))
    with refused(SizeMismatchError, subject="00003_hair.png", expected="32×32", found="16×16"):
        CelebAMask(root, "all", bad_parts="skip")[0]


def test_faults_are_reported_together(tmp_path):
    root = celebamask(tmp_path, ids=range(30))
    for i in range(21):
        (root / "CelebA-HQ-img" / f"{i}.jpg").unlink()
    for name in ("00022_mustache.png", "2_skin.png", "02022_skin.png", "00022_skin.jpg"):
        save(root / ANNO / "0" / name, FACE)
    save(root / "CelebA-HQ-img" / "007.jpg", plain((32, 32), 0))
    save(root / "CelebA-HQ-img" / "31.jpg", plain((32, 32), 0))
    (root / ANNO / "0" / "Thumbs.db").touch()
    with refused(PairingError, found=("28 faults", "and 8 more")) as caught:
        CelebAMask(root, "all")
    for fault in ("00022_mustache.png is not named like CelebAMask-HQ-mask-anno/",
                  "2_skin.png should be 0/00002_skin.png", "007.jpg is not named",
                  "02022_skin.png should be 1/02022_skin.png", "00022_skin.jpg is not named like"):  # fmt: skip
        assert fault in str(caught.value)


def test_a_mapping_file_that_does_not_fit(tmp_path):
    root = celebamask(tmp_path, ids=range(3), mapping={0: 5, 1: 7})
    path = root / "CelebA-HQ-to-CelebA-mapping.txt"
    with refused(DataError, subject="mapping.txt", found=("1 fault", "2.jpg is not in it")):
        CelebAMask(root)
    path.write_text(path.read_text() + "2 x y\n\n")
    with refused(DataError, found=("2 faults", "line 4: '2 x y'")):
        CelebAMask(root)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot read the mapping file"):
        CelebAMask(root)
    assert len(CelebAMask(root, "all")) == 3


def test_arguments_and_layout(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        CelebAMask(tmp_path / "none")
    (tmp_path / "CelebA-HQ-img").mkdir()
    with pytest.raises(LayoutError) as caught:
        CelebAMask(tmp_path)
    assert ANNO in caught.value.expected and caught.value.hint == CelebAMask.how_to_get
    with pytest.raises(ConfigError, match="unknown task"):
        CelebAMask(tmp_path, task="lips")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown bad_parts"):
        CelebAMask(tmp_path, bad_parts="ignore")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown split"):
        CelebAMask(tmp_path, "dev")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="too few"):
        CelebAMask(celebamask(tmp_path / "two", ids=[1, 2]))


@pytest.mark.realdata
def test_celebamask_real(real):
    root = real / "faces" / "celebamask_hq"
    data = CelebAMask(root, "all")
    lips = CelebAMask(root, "all", "eyes-lips")
    assert len(data) == 12
    columns = []
    for i, sample in enumerate(data):
        truth = np.asarray(Image.open(root / "labels19" / f"{sample['id']}.png"))
        truth = np.kron(truth, np.ones((512 // len(truth),) * 2, np.uint8))  # part files are 512², some maps 256²
        assert np.array_equal(sample["mask"], truth)
        assert np.array_equal(lips[i]["mask"], np.isin(truth, (4, 5, 11, 12)))
        columns.append([np.nonzero(truth == part)[1].mean() for part in (4, 5)])
    left, right = np.nanmean(columns, axis=0)
    assert right < 256 < left  # the subject's sides
