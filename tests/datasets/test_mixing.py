"""CutMix and copy-paste replace the same pixels of all planes, with random numbers that each sample brings."""

import numpy as np
import pytest
import torch

import unetzoo
from unetzoo.datasets import BatchTransform, Transform, sample_rng
from unetzoo.errors import ConfigError
from unetzoo.training import load_recipe
from unetzoo.training.batches import ready
from unetzoo.training.run import make_dataset, make_trainer

LABELS = unetzoo.LabelSpec(("background", "road", "crack"))


def sample(number, size=24, crack=False):
    """A sample whose planes all hold its number."""
    mask = np.ones((size, size), np.uint8)
    if crack:
        mask[4:8, 10:13] = 2
    return {
        "image": np.full((size, size, 3), 10 * number, np.uint8),
        "mask": mask,
        "instances": np.where(mask == 2, 1, 0),
        "depth": np.full((size, size), number, np.float32),
        "valid": np.full((size, size), number % 2 == 0),
        "weight": np.full((size, size), number, np.float32),
        "id": str(number),
    }


def batch(transform, cracks=(), count=4, epoch=0):
    made = [transform(sample(i, crack=i in cracks), sample_rng(0, epoch, i)) for i in range(count)]
    return torch.utils.data.default_collate(made)


@pytest.mark.parametrize("on", ["loader", "device"])
def test_cutmix_replaces_a_rectangle_of_all_planes(on):
    move = Transform(cutmix=1.0, on=on)
    mixed = BatchTransform(move)(batch(move))
    number = (mixed["image"][:, 0] * 255 / 10).round()
    assert "mixing" not in mixed and "moves" not in mixed and mixed["id"] == ["0", "1", "2", "3"]
    assert torch.equal(mixed["weight"], number) and torch.equal(mixed["valid"], number % 2 == 0)
    depth = mixed["depth"][:, 0]  # resampling on the device has no depth where none is valid
    assert torch.equal(depth[mixed["valid"]], number[mixed["valid"]])
    for index, plane in enumerate(number):
        foreign = plane != index
        assert set(plane.unique().tolist()) <= {index, (index - 1) % 4}
        rows, columns = foreign.any(1), foreign.any(0)
        assert torch.equal(foreign, rows[:, None] & columns)
    assert (number != torch.arange(4).view(-1, 1, 1)).any()


def test_the_share_of_a_rectangle_is_uniform():
    move = Transform(cutmix=0.5)
    parts = []
    for epoch in range(100):
        mixed = BatchTransform(move)(batch(move, epoch=epoch))
        parts += (mixed["depth"][:, 0] != torch.arange(4).view(-1, 1, 1)).float().mean((1, 2)).tolist()
    parts = np.array(parts)
    assert 0.4 < (parts > 0).mean() < 0.6 and 0.3 < parts[parts > 0].mean() < 0.45  # less than ½: cut off at borders


def test_pixels_of_a_rare_class_are_pasted():
    move = Transform(copy_paste={"crack": 1.0}, labels=LABELS)
    plain, mixed = batch(move, cracks=(1,)), BatchTransform(move)(batch(move, cracks=(1,)))
    crack = plain["mask"][1] == 2
    for index in (0, 2, 3):
        assert torch.equal(mixed["mask"][index] == 2, crack)
        assert (mixed["depth"][index, 0][crack] == 1).all() and (mixed["depth"][index, 0][~crack] == index).all()
    assert all(torch.equal(mixed[name][1], plain[name][1]) for name in ("image", "mask", "instances", "weight"))
    nothing = batch(move)
    unchanged = BatchTransform(move)(nothing)
    assert all(torch.equal(unchanged[name], nothing[name]) for name in ("image", "mask", "instances", "depth"))


def test_pasted_objects_have_numbers_of_their_own():
    move = Transform(copy_paste={2: 1.0})
    made = batch(move, cracks=(0, 1), count=2)
    made["mask"][0] = made["mask"][0].roll(8, 0)
    made["instances"][0] = made["instances"][0].roll(8, 0)
    assert BatchTransform(move)(made)["instances"].unique().tolist() == [0, 1, 2]


def test_several_labels_per_pixel():
    move = Transform(copy_paste={1: 1.0}, cutmix=1.0)
    made = batch(move, count=2)
    made["mask"] = torch.zeros(2, 3, 24, 24, dtype=torch.int64)
    made["mask"][0, 1, 2:5, 2:5] = 1
    mixed = BatchTransform(move)(made)
    assert mixed["mask"][1, 1, 2:5, 2:5].all() and mixed["mask"].shape == (2, 3, 24, 24)


def test_donors_vary_and_none_is_needed():
    move = Transform(copy_paste={"crack": 1.0}, labels=LABELS)
    donors = {
        float(BatchTransform(move)(batch(move, cracks=(1, 2, 3), epoch=epoch))["depth"][0, 0, 5, 11])
        for epoch in range(30)
    }
    assert donors == {1.0, 2.0, 3.0}
    one = batch(Transform(copy_paste={2: 1.0}, cutmix=1.0), cracks=(0,), count=1)
    assert torch.equal(BatchTransform(Transform(copy_paste={2: 1.0}, cutmix=1.0))(one)["mask"], one["mask"])


def test_validation_does_not_mix():
    made = batch(Transform(cutmix=1.0, copy_paste={"crack": 1.0}, labels=LABELS, train=False))
    assert "mixing" not in made


@pytest.mark.parametrize("settings", [{"cutmix": 2}, {"cutmix": "yes"}, {"copy_paste": {"crack": 0}},
                                      {"copy_paste": "crack"}, {"copy_paste": {"crak": 0.5}}])  # fmt: skip
def test_wrong_settings(settings):
    with pytest.raises(ConfigError):
        Transform(labels=LABELS, **settings)


def test_samples_need_a_batch_transform():
    with pytest.raises(ConfigError) as caught:
        ready(batch(Transform(cutmix=1.0)), torch.device("cpu"))
    assert "BatchTransform" in caught.value.hint


def test_a_recipe_mixes_and_repeats():
    """Equal runs give equal networks, and mixing changes them."""
    networks = []
    for cutmix in (1.0, 1.0, 0.0):
        sets = ["data.size=32", "data.length=4", "train.steps=2", "train.batch_size=4", "train.monitor=train/loss",
                "model.encoder_channels=[4,4,4]", f"transform.train.cutmix={cutmix}"]  # fmt: skip
        recipe = load_recipe("demo", sets)
        data = make_dataset(recipe, "train")
        trainer = make_trainer(recipe, data.labels, progress=False)
        trainer.fit(data)
        networks.append(torch.nn.utils.parameters_to_vector(trainer.net.parameters()))
    assert torch.equal(networks[0], networks[1]) and not torch.equal(networks[0], networks[2])
