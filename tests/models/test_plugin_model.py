"""A plugin's network on our base class: the contract, saved and loaded by its own name."""

import re
from pathlib import Path

import pytest
import torch

import unetzoo
from unetzoo.errors import CheckpointError, InputShapeError, PluginError, UnknownKeywordError
from unetzoo.models import SegmentationModel, base, card
from unetzoo.registry import MODELS

PLUGINS = Path(__file__).parents[2] / "plugins"

SOURCE = """
from torch import nn
from unetzoo.models import SegmentationModel, segmentation_head
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


def test_the_parts_needed_to_write_a_network_are_public():
    parts = {base: ("classification_head", "segmentation_head"), card: ("Card", "Deviation", "Fact")}
    for module, names in parts.items():
        for name in names:
            assert getattr(unetzoo.models, name) is getattr(module, name) and name in unetzoo.models.__all__


@pytest.mark.parametrize("path", sorted(PLUGINS.glob("*/src/**/*.py")), ids=lambda path: path.name)
def test_our_plugins_import_the_public_face_alone(path):
    assert not re.findall(r"(?:from|import) unetzoo\.\w+\.\w.*", path.read_text(encoding="utf-8"))


def test_it_is_saved_under_its_name_and_loaded(install, tmp_path):
    install("acme-nets", ["tinynet"], SOURCE)
    net = unetzoo.build("tinynet", classes=2, width=6).eval()
    assert isinstance(net, SegmentationModel)
    net.save_pretrained(tmp_path / "saved")
    again = unetzoo.from_pretrained(tmp_path / "saved")
    x = torch.randn(1, 3, 9, 7)  # a network without a geometry declares no legal sizes
    assert torch.equal(net(x), again(x))
    assert unetzoo.predict(net, x[0]).shape == (2, 9, 7)
    with pytest.raises(UnknownKeywordError) as error:
        type(net)(widht=3)
    assert "'width'" in error.value.hint
    with pytest.raises(InputShapeError):
        net(x[:, :2])


def test_without_its_package_the_error_names_it(install, tmp_path, monkeypatch):
    install("gone-nets", ["gonenet"], SOURCE)
    unetzoo.build("gonenet").save_pretrained(tmp_path / "saved")
    monkeypatch.undo()
    MODELS.refresh()
    with pytest.raises(PluginError) as error:
        unetzoo.from_pretrained(tmp_path / "saved")
    assert "gone-nets" in error.value.hint


def test_a_class_that_no_registry_names_says_how_to_load_it(tmp_path):
    class Mine(unetzoo.models.UNet):
        pass

    Mine(encoder_channels=(2, 2, 2)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError) as error:
        unetzoo.from_pretrained(tmp_path)
    assert "Mine.from_pretrained" in error.value.hint
    assert type(Mine.from_pretrained(tmp_path)) is Mine
