"""`unetzoo.load` opens whatever the library wrote, and says what it found instead."""

import pytest
import torch

import unetzoo
from unetzoo.bundle import ModelBundle
from unetzoo.errors import CheckpointError


@pytest.fixture
def net():
    return unetzoo.build("bnunet", classes=3, encoder_channels=(4, 8, 16)).eval()


def test_a_saved_network(net, tmp_path):
    net.save_pretrained(tmp_path / "saved")
    bundle = unetzoo.load(tmp_path / "saved")
    image = torch.rand(1, 3, 16, 16)
    assert isinstance(bundle, ModelBundle) and not bundle.model.training
    assert torch.equal(bundle.model(image), net(image))


@pytest.mark.parametrize(
    ("name", "hint"),
    [("weights.pth", "from_foreign"), ("missing", "check the path"), ("notes.txt", "one of these"), ("empty", None)],
)
def test_what_cannot_be_loaded(tmp_path, name, hint):
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
