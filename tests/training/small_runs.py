"""A small run with all the state that a resumed run must restore, and the comparison of two runs."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from test_trainer import Squares
from torch import nn

from unetzoo import LOSSES, METRICS, LabelSpec, Trainer
from unetzoo.training import Schedule, make_optimizer


class Small(nn.Module):
    """Batch norm, dropout and two classes."""

    def __init__(self, width=6):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.rest = nn.Sequential(nn.Dropout2d(0.3), nn.Conv2d(width, 2, 3, padding=1))

    def forward(self, x):
        return self.rest(self.encoder(x))


class Augmented(Squares):
    """Squares whose transform draws from the sample's own stream."""

    labels = LabelSpec(("background", "square"))

    def __init__(self, length=10, size=16, seed=0):
        super().__init__(length, size, seed)
        self.transform = shift

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        return sample if self.transform is None else self.transform(sample, np.random.default_rng(0))


def shift(sample, rng):
    columns = int(rng.integers(8))
    return {**sample, **{k: sample[k].roll(columns, -1) for k in ("image", "mask", "depth")}}


def make_small(out=None, *, net=None, optimizer="adamw", schedule=None, options=None, **settings):
    torch.manual_seed(0)
    net, loss = net or Small(), LOSSES.build("ce")
    settings = {
        "epochs": 3,
        "batch_size": 2,
        "accumulate": 2,
        "ema": 0.9,
        "clip": 1.0,
        "progress": False,
        "checkpoint_epochs": 1,
    } | settings
    if "steps" in settings or "stages" in settings:
        settings.pop("epochs")
    return Trainer(
        net,
        loss,
        metrics=METRICS.build("segmentation", labels=Squares.labels),
        optimizer=make_optimizer(net, optimizer, **{"lr": 1e-2} | (options or {})),
        scheduler=schedule or Schedule("cosine", unit="step", warmup=2),
        out=out,
        **settings,
    )


def fit(trainer, resume=False, length=10):
    return trainer.fit(Augmented(length), Augmented(4, seed=1), resume=resume)


def without_time(value):
    """A JSON value without times."""
    if isinstance(value, dict):
        return {k: without_time(v) for k, v in value.items() if k != "seconds"}
    return [without_time(v) for v in value] if isinstance(value, list) else value


def fingerprint(out):
    """SHA-256 of the newest checkpoint's tensors, its state, and the log."""
    from unetzoo.training import checkpoint

    newest = checkpoint.found(Path(out) / "checkpoints")[-1]
    prints = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in newest.glob("*.safetensors")}
    state = without_time(json.loads((newest / "state.json").read_text()))
    state.pop("record")
    prints["state"] = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
    rows = [without_time(json.loads(line)) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]
    prints["log"] = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    return prints


class At:
    """A batch transform that does something when it meets its n-th batch."""

    def __init__(self, batch, action):
        self.left, self.action = batch, action

    def __call__(self, batch):
        self.left -= 1
        return (self.action(batch) or batch) if self.left == 0 else batch
