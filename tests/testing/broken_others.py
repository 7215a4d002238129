"""Encoders and recipes that meet the contract, and one per check that violates only that check."""

from torch import nn

from unetzoo.models.blocks import ConvUnit, Encoder
from unetzoo.testing import Case


def unit(inputs, outputs, level):
    return ConvUnit(inputs, outputs, hidden_act={"type": "elu"})


def good(in_channels: int = 3, depth: int = 5, output_stride: int = 32):
    return Encoder(in_channels, (4,) * (depth + 1), unit)


def liar(in_channels: int = 3, depth: int = 5, output_stride: int = 32):
    encoder = good(in_channels, depth)
    encoder._out_channels = [8] * (depth + 1)
    return encoder


class Plain(nn.Module):
    def __init__(self, in_channels, depth):
        super().__init__()
        self.inner = good(in_channels, depth)
        self.out_channels, self.output_stride = self.inner.out_channels, 32

    def forward(self, x):
        return self.inner(x)


def plain(in_channels: int = 3, depth: int = 5, output_stride: int = 32):
    return Plain(in_channels, depth)


def unused(in_channels: int = 3, depth: int = 5, output_stride: int = 32):
    encoder = good(in_channels, depth)
    encoder.left_over = nn.Conv2d(4, 4, 1)
    return encoder


RECIPE = """
[model]
name = "bnunet"
in_channels = 6
encoder_channels = [4, 4, 4]
classes = 1
[data]
name = "composites"
size = 24
[data.train]
length = 4
[data.val]
length = 4
[loss]
dice = 1.0
[train]
epochs = 1
batch_size = 2
"""
SAME_SPLIT = RECIPE.replace("[data.val]\n", '[data.val]\nsplit = "train"\n')

GOOD = [Case("encoder", good), Case("recipe", RECIPE, name="good")]
CASES = [
    ("encoder", "pyramid", Case("encoder", liar)),
    ("encoder", "smp-decoder", Case("encoder", plain)),
    ("encoder", "gradients", Case("encoder", unused)),
    ("recipe", "loads", Case("recipe", RECIPE.replace("bnunet", "bmunet"), name="misspelt")),
    (
        "recipe",
        "portable",
        Case("recipe", RECIPE + 'monitor = "/home/me/miou"\n', {"train.monitor": "miou"}, name="home"),
    ),
    ("recipe", "trains", Case("recipe", RECIPE.replace("classes = 1", "classes = 5"), name="five")),
    ("recipe", "monitor", Case("recipe", RECIPE + 'monitor = "miouu"\n', name="miouu")),
    ("recipe", "held-out", Case("recipe", SAME_SPLIT, name="same")),
]
