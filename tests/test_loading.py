"""`unetzoo.load` opens everything that the library writes, and describes anything else that it finds."""

import numpy as np
import pytest
import torch

import unetzoo
from unetzoo.bundle import ModelBundle
from unetzoo.errors import CheckpointError, ConfigError, InputShapeError
from unetzoo.models.transfer import start_from


@pytest.fixture
def net():
    return unetzoo.build("bnunet", classes=3, encoder_channels=(4, 8, 16)).eval()


def test_a_saved_network(net, tmp_path):
    net.save_pretrained(tmp_path / "saved")
    bundle = unetzoo.load(tmp_path / "saved")
    image = torch.rand(1, 3, 16, 16)
    assert isinstance(bundle, ModelBundle) and not bundle.model.training
    assert torch.equal(bundle.model(image), net(image))


def test_a_loaded_network_predicts_like_the_saved_one(net, tmp_path):
    labels = unetzoo.LabelSpec(("sky", "road", "car"))
    ModelBundle(net, labels, unetzoo.Preprocess(normalize="standard")).attach()
    net.save_pretrained(tmp_path / "saved")
    image = np.random.default_rng(0).integers(0, 256, (21, 34, 3), np.uint8)
    result = unetzoo.load(tmp_path / "saved").predict(image)
    expected = unetzoo.predict(net, unetzoo.Preprocess(normalize="standard")(image)).argmax(0)
    assert np.array_equal(result.label_map, expected) and result.labels.names == labels.names


def test_a_loaded_network_without_preprocessing_requires_it(net, tmp_path):
    net.save_pretrained(tmp_path / "saved")
    bundle, image = unetzoo.load(tmp_path / "saved"), np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(ConfigError) as caught:
        bundle.predict(image)
    assert "Preprocess(" in caught.value.hint
    assert bundle.predict(image, preprocess=unetzoo.Preprocess()).label_map.shape == (16, 16)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("weights.pth", "from_foreign"), ("missing", "check the path"), ("notes.txt", "one of these"), ("empty", None)],
)
def test_paths_that_cannot_be_loaded(tmp_path, name, hint):
    path = tmp_path / name
    if name == "empty":
        path.mkdir()
    elif name != "missing":
        path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError) as caught:
        unetzoo.load(path)
    assert caught.value.subject == path
    assert hint is None or hint in str(caught.value.hint)


def test_a_run_before_its_first_epoch(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(CheckpointError) as caught:
        unetzoo.load(tmp_path)
    assert "--resume" in str(caught.value.hint)


@pytest.mark.parametrize("path", ["/no/such/folder", "no/such/folder", "./missing"])
@pytest.mark.parametrize("load", [unetzoo.from_pretrained, unetzoo.models.UNet.from_pretrained], ids=["any", "a class"])
def test_a_path_that_is_neither_a_folder_nor_a_repository(load, path):
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert caught.value.subject == path and "path" in caught.value.hint


def disks():
    """A drawn fluorescence image with three nuclei, (H, W, 3)."""
    rows, columns = np.mgrid[:96, :128]
    inside = [(rows - y) ** 2 + (columns - x) ** 2 < 81 for y, x in ((24, 30), (60, 70), (70, 110))]
    return np.repeat(np.where(np.any(inside, 0), 150, 10).astype(np.uint8)[..., None], 3, -1), np.any(inside, 0)


def test_shipped_weights_find_nuclei():
    image, inside = disks()
    found = unetzoo.load("nuclei").predict(image).label_map > 0
    assert (found & inside).sum() > 0.8 * (found | inside).sum()
    assert unetzoo.load("unetzoo:nuclei").name == "nuclei" and "nuclei" in unetzoo.WEIGHTS.names()


def test_shipped_weights_refuse_other_channels():
    with pytest.raises(InputShapeError) as caught:
        unetzoo.load("nuclei").predict(np.zeros((32, 32, 5), np.uint8))
    assert caught.value.hint


def test_a_misspelled_name_of_weights():
    with pytest.raises(CheckpointError) as caught:
        unetzoo.load("nucleii")
    assert "'nuclei'" in caught.value.hint


def test_a_network_starts_from_shipped_weights():
    net = unetzoo.build("bnunet", classes=5, in_channels=1, encoder_channels=(24, 48, 96, 128, 160))
    taken = start_from(net, "nuclei")
    assert len(taken.taken) > 90 and set(taken.new) == {"segmentation_head.0.weight", "segmentation_head.0.bias"}


def test_a_folder_with_a_network_comes_before_shipped_weights_of_its_name(net, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nuclei").mkdir()
    assert unetzoo.load("nuclei").labels is not None  # an ordinary folder, e.g. of images
    net.save_pretrained(tmp_path / "nuclei")
    assert unetzoo.load("nuclei").labels is None
