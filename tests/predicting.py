"""Helpers for tests of predicted files."""

import numpy as np
import torch
from PIL import Image

import unetzoo
from unetzoo.bundle import ModelBundle
from unetzoo.labels import LabelSpec

SPEC = LabelSpec(
    ("background", "left", "right"), swap_pairs=((1, 2),), side="viewer", palette=((0, 0, 0), (200, 0, 0), (0, 0, 200))
)


def knowing(net, preprocess=None):
    """A network that carries its preprocessing, by default division by 255, as a trained one does."""
    ModelBundle.of(net)._replace(preprocess=preprocess or unetzoo.Preprocess()).attach()
    return net


class Channels(torch.nn.Module):
    """Returns its input: the brightest channel is the class."""

    def __init__(self, in_channels=3):
        super().__init__()
        self.in_channels = in_channels
        knowing(self)

    def forward(self, x):
        return x


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def read(path):
    with Image.open(path) as image:
        image.load()
    return image


def dual(**config):
    torch.manual_seed(0)
    return knowing(unetzoo.build("dualunet", encoder_channels=(4, 4, 4), **config).eval())
