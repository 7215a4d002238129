"""`unetzoo.load` opens everything that the library writes, and describes anything else that it finds."""

import numpy as np
import pytest
import torch

import unetzoo
from unetzoo.bundle import ModelBundle
from unetzoo.errors import CheckpointError, ConfigError


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
