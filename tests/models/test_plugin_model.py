"""A plugin's network on our base class: the contract, saved and loaded by its own name."""

import pytest
import torch

import unetzoo
from unetzoo.errors import CheckpointError, InputShapeError, PluginError, UnknownKeywordError
from unetzoo.models import SegmentationModel
from unetzoo.registry import MODELS

SOURCE = """
from torch import nn
from unetzoo.models.base import SegmentationModel, segmentation_head
from unetzoo.models.blocks import ConvUnit, Encoder

class Last(nn.Module):
    def forward(self, features):
        return features[0]

class make(SegmentationModel):
    def __init__(self, in_channels=3, classes=1, width=4):
        super().__init__()
        self.encoder = Encoder(in_channels, (width, width, width), lambda i, o, _: ConvUnit(i, o))
        self.decoder = Last()
        self.segmentation_head = segmentation_head(width, classes, None)
        self.classification_head = None
        self.in_channels, self.name = in_channels, "tiny"
        self.initialize()
"""


def test_it_is_saved_under_its_name_and_comes_back(install, tmp_path):
    install("acme-nets", ["tinynet"], SOURCE)
    net = unetzoo.build("tinynet", classes=2, width=6).eval()
    assert isinstance(net, SegmentationModel)
    net.save_pretrained(tmp_path / "saved")
    again = unetzoo.from_pretrained(tmp_path / "saved")
    x = torch.randn(1, 3, 9, 7)  # a network that states no geometry takes what it takes
    assert torch.equal(net(x), again(x))
    assert unetzoo.predict(net, x[0]).shape == (2, 9, 7)
    with pytest.raises(UnknownKeywordError, match="did you mean 'width'"):
        type(net)(widht=3)
    with pytest.raises(InputShapeError):
        net(x[:, :2])


def test_without_its_package_the_error_names_it(install, tmp_path, monkeypatch):
    install("gone-nets", ["gonenet"], SOURCE)
    unetzoo.build("gonenet").save_pretrained(tmp_path / "saved")
    monkeypatch.undo()
    MODELS.refresh()
    with pytest.raises(PluginError, match="install gone-nets"):
        unetzoo.from_pretrained(tmp_path / "saved")


def test_a_class_that_no_registry_names_says_how_to_load_it(tmp_path):
    class Mine(unetzoo.models.UNet):
        pass

    Mine(encoder_channels=(2, 2, 2)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"Mine\.from_pretrained"):
        unetzoo.from_pretrained(tmp_path)
    assert type(Mine.from_pretrained(tmp_path)) is Mine
