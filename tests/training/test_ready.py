"""Batches on their way into the network: stacked, finished on the device, in their memory layout."""

import numpy as np
import pytest
import torch
from refusals import refused
from test_trainer import Squares, make

from unetzoo.datasets import BatchTransform, Transform
from unetzoo.errors import ConfigError, DataError, SizeMismatchError
from unetzoo.training.batches import stack
from unetzoo.training.data import make_loader


class Raw(Squares):
    """Squares as a dataset returns them before its transform, optionally on images of growing size."""

    def __init__(self, length=4, grow=0, transform=None):
        super().__init__(length)
        self.grow, self.transform, self.split = grow, transform, "train"

    def load(self, index):
        side = 16 + self.grow * index
        image = np.random.default_rng(index).integers(0, 255, (side, side, 1)).astype(np.uint8)
        return {"image": image, "mask": (image[..., 0] > 128).astype(np.uint8), "id": f"s{index}"}

    def __getitem__(self, index):
        sample = self.load(index)
        return sample if self.transform is None else self.transform(sample, np.random.default_rng(index))


MOVE = Transform(crop=12, hflip=0.5, on="device")


def test_three_channels_lie_innermost_after_the_batch_transform():
    seen = []
    net = torch.nn.Conv2d(3, 2, 3, padding=1)
    net.register_forward_pre_hook(lambda net, args: seen.append(args[0].stride()))
    trainer = make(net, metrics={}, channels_last=True, epochs=1, batch_size=2)
    trainer.batch_transform = lambda batch: {**batch, "image": batch["image"].expand(-1, 3, -1, -1).contiguous()}
    trainer.fit(Squares(4))
    assert set(seen[1:]) == {(3 * 32 * 32, 1, 3 * 32, 3)}


def test_augmentations_that_nothing_applies_are_errors():
    with refused(ConfigError, hint="BatchTransform"):
        make(epochs=1).fit(Raw(transform=MOVE))
    finished = make(epochs=1, batch_transform=BatchTransform(MOVE))
    with pytest.raises(ConfigError, match=r"validation data Transform\(train=False"):
        finished.fit(Raw(transform=MOVE), Raw(2, transform=Transform(train=False, on="device")))
    assert finished.steps == 0
    with pytest.raises(ConfigError, match="BatchTransform"):
        make().evaluate(Raw(transform=MOVE))


def test_the_error_for_different_sizes_names_a_fix():
    def batches(data):
        return list(make_loader(data, batch_size=4, seed=0, workers=0, rank=0, world=1, train=True))

    with pytest.raises(SizeMismatchError, match=r'data\.cache=true, or transform\.train\.on="loader"'):
        batches(Raw(grow=2, transform=MOVE))
    with pytest.raises(SizeMismatchError, match=r"transform\.size or transform\.crop"):
        batches(Raw(grow=2, transform=Transform()))
    assert batches(Raw(grow=2, transform=Transform(size=16)))


@pytest.mark.parametrize("order", [1, -1])
def test_samples_of_different_planes_are_not_stacked(order):
    whole, lacking = ({"image": torch.zeros(1, 4, 4), "mask": torch.zeros(4, 4), "id": "a"} for _ in range(2))
    del lacking["mask"]
    with refused(DataError, found="['id', 'image', 'mask']"):
        stack([whole, lacking][::order])
    with refused(DataError, subject="['a', 'a']", hint="image's height and width"):
        stack([whole, {**whole, "mask": torch.zeros(4, 5)}])
