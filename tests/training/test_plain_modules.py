"""A plain module, which cannot save itself, is kept as weights and built again from the run's recipe."""

import json

import pytest
import torch

import unetzoo
from unetzoo import training
from unetzoo.errors import CheckpointCorruptError, CheckpointError, UnknownNameError
from unetzoo.registry import DATASETS
from unetzoo.training import load_run

PLAIN = """
from torch import nn

def make(in_channels: int = 3, classes: int = 1, width: int = 4):
    return nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, classes, 1))
"""
SETS = ['model={name="plain", in_channels=6}', "data.size=32", "data.train.length=6", "data.val.length=5",
        "train.epochs=2", "train.batch_size=3", 'loss={bce=1.0}', 'metrics={mask={name="segmentation"}}']  # fmt: skip


def test_its_run_is_evaluated_and_used_again(tmp_path, install):
    install("plain-dist", ["plain"], PLAIN)
    run = training.train("demo", SETS, out=tmp_path / "run", progress=False)
    best = tmp_path / "run" / "best"
    assert {file.name for file in best.iterdir()} == {"model.safetensors", "preprocess.json", "manifest.json"}
    assert training.evaluate(run.out, progress=False) == pytest.approx(dict(run.scores), nan_ok=True)
    kept = max(json.loads(line)["miou"] for line in (run.out / "metrics.jsonl").read_text().splitlines())
    assert run.scores["miou"] == pytest.approx(kept)
    net = load_run(run.out).model
    assert not net.training and net(torch.zeros(1, 6, 8, 8)).shape == (1, 1, 8, 8)
    with pytest.raises(CheckpointError) as caught:
        unetzoo.from_pretrained(best)
    assert "from_foreign" in caught.value.hint
    other = unetzoo.build("plain", in_channels=6)
    unetzoo.from_foreign(best / "model.safetensors", into=other)
    assert all(torch.equal(*pair) for pair in zip(net.parameters(), other.parameters(), strict=True))
    (best / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(CheckpointCorruptError) as caught:
        load_run(run.out)
    assert "LFS" in caught.value.found and "git lfs pull" in caught.value.hint
    (best / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError):
        load_run(run.out)


@pytest.mark.parametrize("name", ["plain", "unet"])
def test_a_run_without_its_manifest_is_not_loaded(tmp_path, install, name):
    install("plain-dist", ["plain"], PLAIN)
    small = [] if name == "plain" else ['model={name="bnunet", in_channels=6, encoder_channels=[4, 8, 8]}']
    run = training.train("demo", [*SETS, "train.epochs=1", *small], out=tmp_path / "run", progress=False)
    manifest = run.out / "best" / "manifest.json"
    manifest.unlink()
    with pytest.raises(CheckpointCorruptError) as caught:
        load_run(run.out)
    assert caught.value.subject == manifest


def test_prediction_needs_the_network_but_not_the_dataset(tmp_path, install, monkeypatch):
    install("plain-dist", ["plain"], PLAIN)
    run = training.train("demo", [*SETS, "train.epochs=1"], out=tmp_path / "run", progress=False)
    entry = DATASETS.entry

    def gone(name, *rest):
        if name == "composites":
            raise UnknownNameError("unknown dataset", subject=name)
        return entry(name, *rest)

    monkeypatch.setattr(DATASETS, "entry", gone)
    with pytest.raises(UnknownNameError):
        training.load_recipe(run.out)
    assert load_run(run.out).model(torch.zeros(1, 6, 8, 8)).shape == (1, 1, 8, 8)
