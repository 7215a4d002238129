"""Borders between touching objects, and objects from probabilities."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.measure import label

from unetzoo.datasets import DSB2018, Folder, Transform, sample_rng, with_border_weights, with_borders
from unetzoo.errors import ConfigError, DataError, InputShapeError
from unetzoo.instances import separate, touching_borders
from unetzoo.metrics import InstancesMetric

DATA = Path(os.environ.get("UNETZOO_DATA", "/nowhere")) / "dsb2018"


def renamed(objects: np.ndarray) -> np.ndarray:
    """Numbers in the order of first pixels."""
    _, first, places = np.unique(objects, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    return order[places].reshape(objects.shape)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), width=st.integers(1, 3), gap=st.sampled_from([1, 70_000, 2**60]))
def test_borders_are_pixels_near_two_objects(seed, width, gap):
    rng = np.random.default_rng(seed)
    numbers = np.kron(rng.integers(0, 4, (4, 5)), np.ones((3, 3), int)) * gap
    near = np.zeros(numbers.shape, bool)
    for row, column in np.ndindex(*numbers.shape):
        around = numbers[max(row - width, 0) : row + width + 1, max(column - width, 0) : column + width + 1]
        near[row, column] = len(set(around[around > 0].tolist())) > 1
    for number in set(numbers[numbers > 0].tolist()):
        if near[numbers == number].all():
            near[numbers == number] = False
    assert (touching_borders(numbers, width) == near).all()


def test_pieces_of_one_object_do_not_touch_it_and_no_object_is_fine():
    assert not touching_borders(np.array([[3, 3, 0, 3]])).any()
    assert not touching_borders(np.zeros((4, 4), int)).any() and touching_borders(np.zeros((0, 4), int)).shape == (0, 4)


def test_wrong_borders():
    for width in (0, 1.5, True):
        with pytest.raises(ConfigError):
            touching_borders(np.zeros((2, 2), int), width)  # pyright: ignore
    for numbers in (np.zeros((2, 2)), np.zeros(4, int)):
        with pytest.raises(InputShapeError):
            touching_borders(numbers)  # pyright: ignore


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_without_borders_objects_are_connected_pieces(seed):
    inside = np.random.default_rng(seed).random((9, 11))
    assert (renamed(separate(inside)) == renamed(label(inside > 0.5, connectivity=1))).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_pixels_belong_to_the_nearest_seed_of_their_piece(seed):
    rng = np.random.default_rng(seed)
    inside, border = rng.random((2, 8, 9)) * 0.7
    objects = separate(inside, border)
    seeds, foreground = (label(part, connectivity=1) for part in (inside > 0.5, (inside + border > 0.5)))
    for row, column in np.ndindex(*inside.shape):
        rivals = np.argwhere((seeds > 0) & (foreground == foreground[row, column]))
        if not foreground[row, column] or not len(rivals):
            assert objects[row, column] == 0
            continue
        distances = np.hypot(*(rivals - (row, column)).T)
        nearest = {int(objects[tuple(rival)]) for rival in rivals[distances == distances.min()]}
        assert objects[row, column] in nearest
    assert (renamed(np.where(seeds > 0, objects, 0)) == renamed(seeds)).all()


def test_small_objects_and_unusable_settings():
    inside = np.array([[0.9, 0.0, 0.9, 0.9]])
    assert separate(inside, min_size=2).tolist() == [[0, 0, 1, 1]]
    assert separate(np.zeros((3, 3)), np.ones((3, 3))).max() == 0 and separate(np.zeros((0, 3))).shape == (0, 3)
    for options in ({"threshold": 1}, {"seed": 0}, {"min_size": -1}):
        with pytest.raises(ConfigError):
            separate(inside, **options)
    with pytest.raises(InputShapeError):
        separate(inside, inside.T)


@pytest.fixture
def cells(tmp_path):
    numbers = np.zeros((20, 30), np.uint16)
    numbers[2:12, 2:12], numbers[2:12, 12:22], numbers[15:18, 25:28] = 5, 60_000, 9
    for kind, image in (("images", np.zeros((20, 30), np.uint8)), ("masks", numbers)):
        (tmp_path / kind).mkdir()
        for name in "ab":
            Image.fromarray(image).save(tmp_path / kind / f"{name}.png")
    return tmp_path, numbers


def test_a_dataset_with_borders(cells):
    root, numbers = cells
    plain = Folder(root, None, instances=True, transform=Transform(crop=16, hflip=0.5, rot90=True))
    data = with_borders(plain, 2)
    assert data.labels.names == ("background", "object", "border") and len(data) == len(plain) == 2
    raw = data.load(0)
    assert (raw["mask"] == np.where(touching_borders(numbers, 2), 2, numbers > 0)).all()
    sample = data.transform(raw, sample_rng(0, 0, 0))
    assert sample["mask"].shape == (16, 16) and sample["mask"].dtype == torch.int64
    weighted = with_border_weights(data)[0]
    assert set(weighted) >= {"mask", "instances", "weight", "image"} and list(data.sources()) == list(plain.sources())


def test_borders_need_numbered_objects_of_one_class(cells):
    root, _ = cells
    for path in (root / "masks").iterdir():
        Image.new("L", (30, 20), 1).save(path)
    with pytest.raises(DataError) as caught:
        with_borders(Folder(root, None, classes=2))[0]
    assert "instances" in str(caught.value.hint)
    with pytest.raises(ConfigError):
        with_borders(Folder(root, None, classes=3))
    with pytest.raises(ConfigError):
        with_borders(Folder(root, None, instances=True), 0)


@pytest.mark.realdata
@pytest.mark.skipif(not DATA.is_dir(), reason="UNETZOO_DATA is not set")
def test_targets_of_real_nuclei_separate_into_the_same_nuclei():
    data, metric = with_borders(DSB2018(DATA, "val"), 2), InstancesMetric(num_classes=3)
    for index in range(0, len(data), 6):
        sample = data[index]
        mask = torch.from_numpy(sample["mask"].astype(np.int64))[None]
        metric.update(mask, mask, instances=torch.from_numpy(sample["instances"])[None])
    scores = metric.compute()
    assert scores["image/ap50"] > 0.97 and scores["ap50"] > 0.97
