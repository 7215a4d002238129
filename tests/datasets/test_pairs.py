"""Datasets of other libraries through `from_pairs`."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

import unetzoo
from unetzoo import LabelSpec
from unetzoo.datasets import Transform, from_pairs
from unetzoo.doctor import audit
from unetzoo.errors import (
    ConfigError,
    DataError,
    ImageDecodeError,
    LabelRangeError,
    SizeMismatchError,
    UnsupportedImageError,
)

RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, (24, 32, 3), np.uint8) for _ in range(4)]
MASKS = [RNG.integers(0, 3, (24, 32), np.uint8) for _ in range(4)]
PAIRS = list(zip(IMAGES, MASKS, strict=True))


def test_a_number_of_classes_is_not_a_list_of_names():
    with pytest.raises(ConfigError) as caught:
        from_pairs(PAIRS, 2)
    assert "classes=2" in caught.value.hint


class Tensors(torch.utils.data.Dataset):
    """(image, mask) tensors, as in many tutorials."""

    def __len__(self):
        return len(PAIRS)

    def __getitem__(self, index):
        image, mask = PAIRS[index]
        return torch.from_numpy(image).permute(2, 0, 1) / 255, torch.from_numpy(mask).long()


def fits(data):
    """Train an epoch, evaluate, and cross a process boundary as with workers."""
    trainer = unetzoo.Trainer(
        unetzoo.build("bnunet", classes=3, encoder_channels=[4, 4, 4]),
        unetzoo.LOSSES.build("dice_ce", mode="multiclass", ignore_index=data.labels.ignore_index),
        metrics=unetzoo.METRICS.build("segmentation", labels=data.labels), epochs=1, batch_size=2, progress=False,
    )  # fmt: skip
    trainer.fit(data, data)
    again = pickle.loads(pickle.dumps(data))
    assert torch.equal(torch.as_tensor(again[1]["mask"]), torch.as_tensor(data[1]["mask"]))
    return 0 <= trainer.evaluate(data)["miou"] <= 1


@pytest.mark.parametrize(
    "convert",
    [
        pytest.param(lambda a: a, id="arrays"),
        pytest.param(Image.fromarray, id="PIL"),
        pytest.param(
            lambda a: torch.from_numpy(a).permute(2, 0, 1) if a.ndim == 3 else torch.from_numpy(a), id="uint8"
        ),
        pytest.param(lambda a: a if a.ndim == 3 else a[None], id="(1, H, W)"),
        pytest.param(lambda a: a if a.ndim == 3 else a[..., None].astype(np.int64), id="(H, W, 1)"),
        pytest.param(lambda a: a if a.ndim == 3 else a.tolist(), id="lists"),
    ],
)
def test_pixels_are_those_of_the_pairs(convert):
    data = from_pairs([(convert(image), convert(mask)) for image, mask in PAIRS], ["a", "b", "c"])
    assert len(data) == 4 and data.labels.names == ("a", "b", "c")
    for index, (image, mask) in enumerate(PAIRS):
        sample = data[index]
        assert (sample["image"] == image).all() and sample["image"].dtype == np.uint8
        assert (sample["mask"] == mask).all() and sample["id"] == str(index)


def test_training_on_arrays():
    assert fits(from_pairs(PAIRS, classes=3, transform=Transform(crop=16)))


def test_training_on_tensors():
    data = from_pairs(Tensors(), classes=3)
    image, mask = Tensors()[2]
    assert torch.equal(data[2]["image"], image) and torch.equal(data[2]["mask"], mask)
    assert fits(data)


def test_training_on_torchvision(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for index, (image, mask) in enumerate(PAIRS):
        Image.fromarray(image).save(root / "JPEGImages" / f"{index}.jpg")
        palette = Image.fromarray(np.where(np.eye(24, 32, dtype=bool), 255, mask).astype(np.uint8))
        palette.putpalette(list(range(256)) * 3)
        palette.save(root / "SegmentationClass" / f"{index}.png")
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("0\n1\n2\n3\n")
    voc = torchvision.datasets.VOCSegmentation(tmp_path, image_set="train")
    data = from_pairs(voc, classes=3, ignore_index=255, transform=Transform())
    plain = from_pairs(voc, classes=3, ignore_index=255)
    assert (plain[3]["mask"] == np.where(np.eye(24, 32, dtype=bool), 255, MASKS[3])).all()
    assert (plain[3]["image"] == np.asarray(Image.open(root / "JPEGImages" / "3.jpg"))).all()
    assert fits(data)


def test_training_on_a_hugging_face_table():
    pytest.importorskip("datasets.features")  # `datasets` alone may be the folder of these tests
    import datasets

    rows = {"pixels": [Image.fromarray(image) for image in IMAGES], "id": ["w", "x", "y", "z"],
            "annotation": [Image.fromarray(mask) for mask in MASKS]}  # fmt: skip
    features = datasets.Features(
        {"pixels": datasets.Image(), "id": datasets.Value("string"), "annotation": datasets.Image()}
    )
    table = datasets.Dataset.from_dict(rows, features=features)
    with pytest.raises(DataError) as caught:
        from_pairs(table, classes=3)
    assert "pair 0" in caught.value.subject and caught.value.expected == "image, mask"
    assert "annotation" in caught.value.found and "image=" in caught.value.hint
    plain = from_pairs(table, classes=3, image="pixels", mask="annotation")
    assert plain[2]["id"] == "y" and (plain[2]["image"] == IMAGES[2]).all() and (plain[2]["mask"] == MASKS[2]).all()
    assert fits(from_pairs(table, classes=3, image="pixels", mask="annotation", transform=Transform()))
    with pytest.raises(ConfigError) as caught:
        from_pairs(datasets.DatasetDict({"train": table}), classes=3)
    assert "data['train']" in caught.value.hint
    with pytest.raises(ConfigError) as caught:
        from_pairs(table.to_iterable_dataset(), classes=3)
    assert "streaming" in caught.value.hint


def test_other_channels_and_ranges():
    deep = [(np.full((8, 8, 5), 1000, np.uint16), np.zeros((8, 8), np.uint8))]
    data = from_pairs(deep, classes=2, channels=5, range=[0, 4000])
    assert data[0]["image"].dtype == np.float32 and (data[0]["image"] == 0.25).all()
    data = from_pairs(deep, classes=2, bands=[2, 2], range="dtype")
    assert data[0]["image"].shape == (8, 8, 2)
    for options in ({"channels": 5}, {"range": [0, 4000]}):
        with pytest.raises(UnsupportedImageError):
            from_pairs(deep, classes=2, **options)
    gray = from_pairs([(IMAGES[0][..., 0], MASKS[0])], classes=3, channels=1)
    assert gray[0]["image"].shape == (24, 32, 1)
    ranged = from_pairs(Tensors(), classes=3, range=[0, 1])
    assert ranged[0]["image"].shape == (24, 32, 3)
    assert np.allclose(ranged[0]["image"], IMAGES[0] / 255, atol=1e-6)


def test_label_sets_with_other_values():
    labels = LabelSpec(("a", "b"), ids=(0, 7), ignore_ids=(-1,), ignore_index=255)
    mask = np.where(MASKS[0] == 0, -1, np.where(MASKS[0] == 1, 0, 7))
    data = from_pairs([(IMAGES[0], mask)], labels)
    assert (data[0]["mask"] == np.where(MASKS[0] == 0, 255, MASKS[0] - 1)).all()
    boolean = from_pairs([(IMAGES[0], MASKS[0] > 1)], classes=2)
    assert (boolean[0]["mask"] == (MASKS[0] > 1)).all()


@pytest.mark.parametrize(
    ("pair", "error", "word"),
    [
        ((IMAGES[0],), DataError, "tuple of 1"),
        ((IMAGES[0], None), DataError, "None"),
        ((IMAGES[0], MASKS[0], 5), DataError, "tuple of 3"),
        ("ab.png", DataError, "str"),
        (("a.png", "b.png"), DataError, "str"),
        ({"image": IMAGES[0], "label": 3}, DataError, "label"),
        ((IMAGES[0], MASKS[0][:5]), SizeMismatchError, "5"),
        ((IMAGES[0], MASKS[0] * 7), LabelRangeError, "7"),
        ((IMAGES[0], MASKS[0].astype(int) - 1), LabelRangeError, "-1"),
        ((IMAGES[0], MASKS[0].astype(np.int64) * 10**15), LabelRangeError, "10"),
        ((IMAGES[0], MASKS[0].astype(float)), DataError, "float64"),
        ((IMAGES[0], IMAGES[0]), DataError, "(24, 32, 3)"),
        ((IMAGES[0], Image.fromarray(IMAGES[0])), ImageDecodeError, "RGB"),
        ((IMAGES[0] / 255, MASKS[0]), UnsupportedImageError, "64 bits"),
        ((IMAGES[0][..., :2], MASKS[0]), UnsupportedImageError, "2 channels"),
        ((Image.new("I;16", (32, 24)), MASKS[0]), UnsupportedImageError, "16 bits"),
        ((np.zeros((0, 32, 3), np.uint8), MASKS[0]), DataError, "(0, 32, 3)"),
        ((IMAGES[0][None], MASKS[0]), DataError, "(1, 24, 32, 3)"),
        ((torch.zeros(3, 24, 31), MASKS[0]), SizeMismatchError, "31"),
    ],
)
def test_each_fault_is_reported_with_its_pair(pair, error, word):
    with pytest.raises(error) as caught:
        from_pairs([pair], classes=3)
    assert "pair 0 of list" in str(caught.value.subject) and caught.value.hint
    assert word in f"{caught.value.found} {caught.value.expected}"
    with pytest.raises(error) as caught:
        from_pairs([PAIRS[0], pair], classes=3)[1]
    assert "pair 1 of list" in str(caught.value.subject)


def test_errors_of_the_adapted_dataset_are_reported_with_their_pair():
    class Broken(Tensors):
        def __getitem__(self, index):
            if index == 2:
                raise OSError("disk on fire")
            return super().__getitem__(index)

    data = from_pairs(Broken(), classes=3)
    with pytest.raises(DataError) as caught:
        data[2]
    assert caught.value.subject == "pair 2 of Broken" and "disk on fire" in caught.value.found


@pytest.mark.parametrize("pairs", [5, None, "files/", iter(PAIRS), torch.utils.data.DataLoader(PAIRS)])
def test_objects_that_are_no_datasets(pairs):
    with pytest.raises(ConfigError) as caught:
        from_pairs(pairs, classes=3)
    assert caught.value.hint


def test_inconsistent_arguments():
    spec = LabelSpec(("a", "b", "c"))
    for labels, options in (
        (None, {}), (["a", "b"], {"classes": 3}), (spec, {"classes": 2}), (spec, {"ignore_index": 9}), (["a", "a"], {}),
        (["a", "b", "c"], {"channels": 0}),
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            from_pairs(PAIRS, labels, **options)
    with pytest.raises(DataError):
        from_pairs([], classes=3)
    with pytest.raises(ConfigError) as caught:
        from_pairs(Tensors(), classes=3, transform=Transform())
    assert "range" in caught.value.expected
    with pytest.raises(ConfigError):
        from_pairs(PAIRS, classes=3).sources()


def test_pairs_are_audited_and_registered(tmp_path, monkeypatch):
    monkeypatch.setattr(unetzoo.DATASETS, "_local", {})
    assert not audit(from_pairs(PAIRS, classes=3)).errors
    unetzoo.DATASETS.register("mine")(lambda split: from_pairs(PAIRS, classes=3))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        '[model]\nname = "bnunet"\nclasses = 3\nencoder_channels = [4, 4, 4]\n[data]\nname = "mine"\n'
        '[loss]\nce = 1.0\n[metrics.mask]\nname = "segmentation"\n[train]\nepochs = 1\nbatch_size = 2\n'
    )
    result = unetzoo.train(recipe, out=tmp_path / "run", progress=False)
    assert unetzoo.evaluate(tmp_path / "run", progress=False)["miou"] == pytest.approx(result.scores["miou"])
