"""`batch_size = "auto"`: from the network and the free memory; measured once per run."""

import json

import pytest
import torch
from torch import nn

import unetzoo
from unetzoo import training
from unetzoo.errors import ConfigError, MemoryExhaustedError
from unetzoo.training import batch_size
from unetzoo.training.batch_size import bytes_per_pixel, fitting

CPU = torch.device("cpu")
SMALL = ["data.size=32", "data.train.length=6", "data.val.length=2", "train.epochs=1",
         "model.encoder_channels=[4, 8, 8]", 'train.batch_size="auto"']  # fmt: skip


def test_bytes_are_those_that_the_backward_pass_needs():
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 2, 1))
    image = torch.zeros(1, 3, 512, 256)
    assert bytes_per_pixel(net, image) == 4 * (3 + 5)  # input, and one map for ReLU and the convolution after it


def test_memory_processor_and_samples_limit_the_batch(monkeypatch):
    net, image = unetzoo.build("bnunet", encoder_channels=(4, 8, 8)), torch.zeros(1, 3, 128, 128)
    each = 2 * bytes_per_pixel(net, image) * 128**2
    assert fitting(net, image, CPU, 1000) == 2**17 // 128**2  # fills the processor
    assert fitting(net, image, CPU, 3) == 3
    monkeypatch.setattr(batch_size, "free_memory", lambda device: 2.5 * each / batch_size.SHARE + 1e6)
    assert fitting(net, image, CPU, 1000) == 2
    monkeypatch.setattr(batch_size, "free_memory", lambda device: each)
    with pytest.raises(MemoryExhaustedError) as caught:
        fitting(net, image, CPU, 1000)
    assert "crop" in caught.value.hint


def test_a_run_measures_once(tmp_path, monkeypatch):
    said = []
    training.train("demo", SMALL, out=tmp_path / "run", progress=False, say=said.append)
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["train"]["batch_size"] == 6
    assert any("batch size 6" in line for line in said)
    monkeypatch.setattr(batch_size, "fitting", None)  # not called again
    training.train("demo", [*SMALL, "train.epochs=2"], out=tmp_path / "run", progress=False, resume=True)
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def test_only_recipes_measure():
    with pytest.raises(ConfigError):
        training.load_recipe("demo", ['train.batch_size="many"'])
    with pytest.raises(ConfigError):
        unetzoo.Trainer(nn.Conv2d(3, 1, 1), unetzoo.LOSSES.build("bce"), batch_size="auto")
