"""A training step never makes the host wait for the device."""

from collections import Counter

import pytest
from small_runs import fit, make_small
from torch.utils._python_dispatch import TorchDispatchMode

from unetzoo.losses import CELoss, fused

# Operations that return a number, or a shape, that is on the device.
WAITING = {
    "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "unique_dim", "bincount",
}  # fmt: skip


class Waits(TorchDispatchMode):
    """Counts them."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in WAITING:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def labels_checked_as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(fused, "wrong_labels", lambda faults, *_: faults > 0)


def waits(length, **options):
    # torch's Adam reads its step count, which is always on the CPU; plain descent has none
    trainer = make_small(optimizer="sgd", epochs=1, **options)
    with Waits() as counted:
        fit(trainer, length=length)
    return trainer.steps, counted.counts


@pytest.mark.parametrize(
    "options", [{}, {"ema": None, "clip": None}, {"accumulate": 1, "channels_last": True}], ids=str
)
def test_no_step_waits_for_the_device(options):
    few, before = waits(8, **options)
    many, after = waits(24, **options)
    assert many == 3 * few > 0
    assert sum(before.values()) > 0  # evaluation has to
    assert after == before


def test_a_loss_that_waits_is_seen(monkeypatch):
    forward = CELoss.forward

    def waiting(self, output, target, *, weight=None):
        value = forward(self, output, target, weight=weight)
        assert value.item() >= 0
        return value

    monkeypatch.setattr(CELoss, "forward", waiting)
    few, before = waits(8)
    many, after = waits(24)
    assert sum(after.values()) - sum(before.values()) >= many - few
