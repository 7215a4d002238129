"""Helpers for tests of exported files."""

import json

import numpy as np
import torch
from PIL import Image
from predicting import knowing

import unetzoo
from unetzoo.inference import Predictor, Preprocess
from unetzoo.inference.images import in_channels_of
from unetzoo.labels import LabelSpec
from unetzoo.training import load_recipe


def warmed(name, size=64, **config):
    """A network of ours or SMP's with outputs like those of a trained one.

    Its batch norms have seen images; otherwise its outputs may be in the thousands. Without batch norms its biases are
    raised; otherwise narrow layers are dead, and all classes equal up to rounding.
    """
    torch.manual_seed(0)
    net = unetzoo.build(name, **config).train()
    if not any(isinstance(part, torch.nn.BatchNorm2d) for part in net.modules()):
        for key, value in net.named_parameters():
            if key.endswith("bias"):
                torch.nn.init.uniform_(value, 0, 0.5)
    if hasattr(net, "geometry"):
        size = net.geometry.fit(size)
    with torch.no_grad():
        for _ in range(3):
            net(torch.rand(3, in_channels_of(net) or 3, size, size))
    return knowing(net.eval())


def pixels(height, width, channels=3, seed=0):
    """A smooth uint8 image with some noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    planes = np.asarray(coarse).astype(np.int64) + rng.integers(-9, 10, (height, width, 3))
    image = np.clip(planes, 0, 255).astype(np.uint8)
    return np.concatenate([image, 255 - image], axis=2)[..., :channels]


def expected(net, image, labels=None, preprocess=None, **options):
    """The output of `Predictor` for an array, under the names of an exported file."""
    answer = Predictor(net, labels, preprocess or Preprocess(), **options)
    image, logits, depth = answer._run(image)
    found = answer._decided(image, logits, depth)
    heads = {} if found.depth is None else {"depth": found.depth[None]}
    return {"labels": found.label_map, "probabilities": found.probabilities.numpy()} | heads


def assert_same(answers, reference, tolerance=1e-4):
    """Heads to a tolerance, labels in 99.99 % of the pixels."""
    assert answers.keys() == reference.keys()
    assert answers["labels"].dtype == np.uint8
    for name in answers.keys() - {"labels"}:
        assert answers[name].shape == reference[name].shape, name
        assert np.abs(answers[name] - reference[name]).max() <= tolerance, name
    assert answers["labels"].shape == reference["labels"].shape
    assert (answers["labels"] == reference["labels"]).mean() >= 0.9999


def run_folder(folder, net, *sets, labels=None):
    """A run as `unetzoo train` leaves it, as far as predictions read it."""
    config = [f"model.{key}={json.dumps(value)}" for key, value in net.config.items() if value is not None]
    recipe = load_recipe("demo", [f"model.name={net.name}", *config, *sets])
    labels = labels or LabelSpec(("background", "foreground"))
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    (folder / "labels.json").write_text(json.dumps(labels.to_dict()))
    net.save_pretrained(folder / "best")
    return folder


SPEC = LabelSpec(("sky", "road", "car"), palette=((0, 0, 0), (9, 8, 7), (200, 0, 0)))


class Plain(torch.nn.Module):
    """Returns its input, or a function of it."""

    def __init__(self, answer=lambda x: x, channels=3):
        super().__init__()
        self.answer, self.in_channels = answer, channels
        knowing(self)

    def forward(self, x):
        return self.answer(x)
