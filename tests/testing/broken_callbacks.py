"""A callback that meets the contract, and one per check that violates only that check."""

import torch

from unetzoo.testing import Case
from unetzoo.training.callbacks import Callback


class Good(Callback):
    """Keeps the loss of each epoch of the last run."""

    def __init__(self):
        self.losses = []

    def on_begin(self, trainer):
        self.losses = []

    def on_epoch(self, trainer, row, better):
        self.losses.append(row["train/loss"])


class WithoutBase:
    """Has the one method that it needs, but no base class for the others."""

    every_process = False

    def on_epoch(self, trainer, row, better):
        pass


class DrawsNoise(Good):
    """Draws from the generator that dropout draws from."""

    def on_step(self, trainer, samples):
        torch.rand(1)


class WorksOnce(Good):
    """Deletes at the end what only its constructor creates."""

    def on_begin(self, trainer):
        self.losses.clear()

    def on_end(self, trainer):
        del self.losses


GOOD = [Case("callback", Good)]
CASES = [
    ("callback", "methods", Case("callback", WithoutBase)),
    ("callback", "changes-no-result", Case("callback", DrawsNoise)),
    ("callback", "may-be-used-again", Case("callback", WorksOnce)),
]
