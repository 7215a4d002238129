"""Transforms in loaders with workers, and from recipes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from unetzoo.datasets import Albumentations, BatchTransform, Composites, Transform
from unetzoo.errors import ConfigError
from unetzoo.training import train
from unetzoo.training.data import make_loader
from unetzoo.training.recipe import load
from unetzoo.training.run import make_batch_transform, make_dataset, make_transform

AUGMENT = {"crop": 24, "hflip": 0.5, "rotate": 20, "scale": (0.8, 1.2), "elastic": 2.0, "contrast": 0.2, "hue": 20}
NOISE = [{"name": "GaussNoise", "p": 0.5}, {"name": "HorizontalFlip", "p": 0.5}]


def epochs(transform, workers, count=3, batch_transform=lambda batch: batch):
    """Samples by id, of each epoch, from one loader whose workers stay."""
    data = Composites(size=32, length=6, foregrounds=3, transform=transform)
    loader = make_loader(data, batch_size=2, seed=11, workers=workers, rank=0, world=1, train=True)
    rows = []
    for epoch in range(count):
        loader.sampler.epoch = epoch
        samples = {}
        for batch in map(batch_transform, loader):
            for i, name in enumerate(batch["id"]):
                samples[name] = {k: batch[k][i].clone() for k in ("image", "mask", "depth", "valid") if k in batch}
        rows.append(samples)
    return rows


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("kind", ["own", "device", "albumentations"])
def test_epochs_differ_and_reruns_are_equal(kind):
    move = Transform(**AUGMENT, on="device" if kind == "device" else "loader")
    move = Albumentations(NOISE, move) if kind == "albumentations" else move
    batched = BatchTransform(move) if kind == "device" else (lambda batch: batch)
    first = epochs(move, 0, batch_transform=batched)
    assert len(first) == 3 and all(len(samples) == 6 for samples in first)
    for workers in (0, 2):  # persistent workers; the global streams have advanced by now
        torch.manual_seed(99)
        np.random.seed(99)
        again = epochs(move, workers, batch_transform=batched)
        assert all(same(a[name], b[name]) for a, b in zip(first, again, strict=True) for name in a)
    for name in first[0]:
        images = [samples[name]["image"] for samples in first]
        assert not any(torch.equal(images[i], images[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


RECIPE = """
[model]
name = "bnunet"
classes = 2
in_channels = 6
encoder_channels = [4, 8, 8]

[data]
name = "composites"
size = 32
length = 4
foregrounds = 12
backgrounds = 12
{data}

[transform]
normalize = "standard"
{both}

[transform.train]
hflip = 0.5
{train}

[transform.val]
{val}

[loss]
ce = 1.0

[train]
epochs = 1
batch_size = 2
"""


@pytest.fixture
def recipe(tmp_path):
    def write(**parts):
        path = tmp_path / "recipe.toml"
        path.write_text(RECIPE.format(**{"data": "", "both": "", "train": "", "val": "", **parts}))
        return path

    return write


TABLES = """
[[transform.train.albumentations]]
name = "GaussNoise"
p = 1.0
std_range = [0.1, 0.2]

[[transform.train.albumentations]]
name = "OneOf"
p = 1.0
transforms = [{name = "Blur", blur_limit = 3}, {name = "HorizontalFlip"}]
"""


def test_albumentations_from_a_recipe(recipe):
    told = load(recipe(train=TABLES))
    data = make_dataset(told, "train")
    assert isinstance(data.transform, Albumentations) and data.transform.then.hflip == 0.5
    assert [type(step).__name__ for step in data.transform.pipeline.transforms[0].transforms] == ["GaussNoise", "OneOf"]
    assert data.transform.then.labels == data.labels
    assert isinstance(make_dataset(told, "val").transform, Transform)
    assert data[0]["image"].shape == (6, 32, 32)
    again = load(recipe(train=TABLES)).to_dict()  # as a run keeps it
    assert again["transform"]["train"]["albumentations"][0]["std_range"] == [0.1, 0.2]


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"train": 'albumentations = [{name = "GausNoise"}]'}, "did you mean 'GaussNoise'"),
        ({"train": 'albumentations = [{name = "GaussNoise", sigma = 3}]'}, "sigma"),
        ({"train": 'albumentations = [{name = "GaussNoise", p = 3}]'}, "less than or equal to 1"),
        ({"train": 'albumentations = [{name = "OneOf", transforms = [{name = "Sub"}]}]'}, "'Sub'"),
        ({"train": "albumentations = [{p = 3}]"}, "name"),
        ({"train": "albumentations = {x = 3}"}, "not an albumentations pipeline"),
        ({"train": 'albumentations = "flip"'}, "not an albumentations pipeline"),
        ({"train": "rotat = 3"}, "did you mean 'rotate'"),
        ({"train": "rotate = 300"}, "wrong rotate"),
        ({"both": 'on = "gpu"'}, "wrong on"),
        ({"both": "labels = 3"}, "wrong labels"),
        ({"val": 'on = "device"'}, "validation transforms stay with the loader"),
        ({"data": "border_weights = {w = 3}"}, "border_weights"),
        ({"data": "border_weights = {sigma = 0}"}, "border_weights"),
    ],
    ids=str,
)
def test_faults_are_found_before_any_work(recipe, parts, says):
    with pytest.raises(ConfigError, match=says):
        load(recipe(**parts))


def test_on_the_device_from_a_recipe(recipe, tmp_path):
    for on in ("both", "train"):
        told = load(recipe(**{on: 'on = "device"'}))
        labels = make_dataset(told, "train").labels
        assert make_transform(told, "train", labels).on == "device"
        assert make_transform(told, "val", labels).on == "loader"
        assert isinstance(make_batch_transform(told, labels), BatchTransform)
    assert make_batch_transform(load(recipe()), labels) is None
    scores = {}
    for on in ("loader", "device"):
        path = recipe(both=f'on = "{on}"', train="rotate = 20\nscale = [0.8, 1.2]\nbrightness = 0.1")
        scores[on] = train(path, out=tmp_path / on, progress=False).scores
    assert scores["device"].keys() == scores["loader"].keys()
    assert scores["device"]["val/loss"] == pytest.approx(scores["loader"]["val/loss"], abs=1e-3)


def test_growing_images_on_the_device(recipe, tmp_path):
    text = recipe(both='on = "device"').read_text().replace("epochs = 1\n", "")
    path = tmp_path / "stages.toml"
    path.write_text(text + "stages = [{size = 16, epochs = 1}, {size = 32, epochs = 1}]\n")
    assert np.isfinite(train(path, out=tmp_path / "run", progress=False).scores["val/loss"])


def test_border_weights_from_a_recipe(recipe, tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for i in range(10):
            image = np.zeros((32, 32), np.uint8)
            image[8:20, 4:14] = image[8:20, 17:28] = 1  # a gap of three pixels
            Image.fromarray(image).save(tmp_path / kind / f"{i}.png")
    text = recipe().read_text()
    start, end = text.index("[data]"), text.index("[transform]")
    for given, w0, sigma in (("true", 10, 5), ("{w0 = 3, sigma = 2}", 3, 2)):
        table = f'[data]\nname = "folder"\nroot = "{tmp_path}"\nclasses = 2\nborder_weights = {given}\n'
        (tmp_path / "cells.toml").write_text(text[:start] + table + text[end:])
        told = load(tmp_path / "cells.toml")
        for split in ("train", "val"):
            weight = make_dataset(told, split)[0]["weight"]
            assert weight[10, 14:17].tolist() == pytest.approx([1 + w0 * np.exp(-(4**2) / (2 * sigma**2))] * 3)
        assert load(tmp_path / "cells.toml").to_dict()["data"]["border_weights"]
    assert "weight" not in make_dataset(load(recipe(data="border_weights = false")), "train")[0]
