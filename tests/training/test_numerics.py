"""NaN and infinity never reach weights, batch norm, optimizer, running mean or files."""

import itertools
import json
import math

import pytest
import torch
from accelerate import Accelerator
from small_runs import At, Augmented, Small, fit, make_small
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from unetzoo.errors import NonFiniteError
from unetzoo.training import checkpoint
from unetzoo.training.evaluate import Objective
from unetzoo.training.optim import OPTIMIZERS, make_optimizer
from unetzoo.training.schedule import Schedule
from unetzoo.training.state import TrainState
from unetzoo.training.step import SKIPS, Flags, NonFiniteMonitor, TrainStep


def poison_input(trainer, value):
    trainer.batch_transform = At(6, lambda batch: batch["image"][0, 0, 0, 0].fill_(value) and None)


def poison_loss(trainer, value):
    calls = [0]
    inner = trainer.objective.loss

    class Poisoned(nn.Module):
        def forward(self, output, target, *, weight=None):
            calls[0] += 1
            return inner(output, target) + (value if calls[0] == 7 else 0.0)

    trainer.objective.loss = Poisoned()


def poison_gradient(trainer, value):
    calls = [0]

    def hook(gradient):
        calls[0] += 1
        return torch.full_like(gradient, value) if calls[0] == 4 else None

    trainer.net.rest[1].bias.register_hook(hook)


def all_finite(trainer):
    states = [trainer.net.state_dict(), trainer.ema.net.state_dict(), checkpoint.pack_optimizer(trainer.optimizer)[0]]
    return all(bool(torch.isfinite(value).all()) for state in states for value in state.values())


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("poison", [poison_input, poison_loss, poison_gradient])
def test_nonfinite_values_never_reach_the_weights(tmp_path, poison, value):
    trainer = make_small(tmp_path, checkpoint_steps=1)
    poison(trainer, value)
    with pytest.raises(NonFiniteError) as caught:
        fit(trainer)
    assert "['s" in caught.value.subject
    assert all_finite(trainer)
    report = json.loads((tmp_path / "nonfinite.json").read_text())
    assert report["processes"][0]["process"] == 0 and report["processes"][0]["samples"][0].startswith("s")
    saved = checkpoint.latest(tmp_path / "checkpoints")
    assert saved.state["steps"] <= report["step"]  # the last checkpoint is from before the fault


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_optimizer_is_spoiled(name):
    trainer = make_small(optimizer=name, ema=0.5)
    poison_gradient(trainer, math.nan)
    with pytest.raises(NonFiniteError) as caught:
        fit(trainer)
    assert caught.value.what == "the gradient is not finite"
    assert all_finite(trainer)


def test_batch_norm_that_overflows_is_noticed_though_the_loss_is_finite():
    trainer = make_small()
    trainer.batch_transform = At(6, lambda batch: {**batch, "image": batch["image"] * 1e25})
    with pytest.raises(NonFiniteError):
        fit(trainer)
    assert all_finite(trainer)


def test_weights_that_overflow_are_never_saved(tmp_path):
    trainer = make_small(tmp_path, optimizer="sgd", options={"lr": 1e38}, clip=None, ema=None, epochs=1)
    with pytest.raises(NonFiniteError):
        fit(trainer)
    for path in checkpoint.found(tmp_path / "checkpoints"):
        assert all(bool(torch.isfinite(v).all()) for v in checkpoint.load(path).tensors["model"].values())


def step_of(net, scaler=None, **options):
    """A step of plain descent."""
    loss, optimizer = nn.CrossEntropyLoss(), make_optimizer(net, "sgd", lr=1.0)
    schedule = Schedule()
    schedule.build(optimizer, epochs=1, steps=1)
    state = TrainState(net, loss, optimizer, schedule, scaler or torch.amp.GradScaler("cpu", enabled=False))
    step = TrainStep(
        Objective(net, loss),
        state,
        Accelerator(cpu=True),
        ready=lambda batch: batch,
        reduce=lambda flags: flags,
        **options,
    )
    return step, state


def batch_of(samples=2):
    return {"image": torch.rand(samples, 1, 8, 8), "mask": torch.zeros(samples, 8, 8, dtype=torch.int64)}


def monitor(scaled):
    _, state = step_of(Small(), torch.amp.GradScaler("cpu", enabled=scaled))
    return NonFiniteMonitor(state, lambda name, content: None)


def test_a_scalers_skip_is_no_fault_but_its_loss_is():
    scaled = monitor(True)
    skip = Flags(loss=False, gradient=True, buffers=False, sigterm=False, sigint=False)
    fine = skip._replace(gradient=False)
    assert [scaled.fault(flags) for flags in (skip, skip, fine)] == [None, None, None]
    assert scaled.state.skipped == 2
    assert scaled.fault(skip._replace(loss=True)) == "loss"
    scaled = monitor(True)
    assert [scaled.fault(skip) for _ in range(SKIPS)][-1] == "gradient"
    assert monitor(False).fault(skip) == "gradient"


def test_a_scaled_step_is_skipped_by_the_scaler_and_the_buffers_stay_updated():
    net, scaler = Small(), torch.amp.GradScaler("cpu")
    step, _ = step_of(net, scaler)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net.rest[1].bias.register_hook(lambda gradient: torch.full_like(gradient, math.inf))
    step.begin_epoch(None, batch_of)
    assert step([batch_of()]) is None
    assert step.flush() == Flags(False, True, False, False, False)
    after = net.state_dict()
    assert all(torch.equal(before[name], after[name]) for name, _ in net.named_parameters())
    assert not torch.equal(before["encoder.1.running_mean"], after["encoder.1.running_mean"])
    assert scaler.get_scale() == 2.0**15


def test_clipping_bounds_the_norm():
    net = Small()
    step, _ = step_of(net, clip=0.01)
    step.begin_epoch(None, batch_of)
    step([batch_of()])
    assert nn.utils.get_total_norm([p.grad for p in net.parameters()]).item() == pytest.approx(0.01, rel=1e-3)


class Reads(TorchDispatchMode):
    """Counts how often the host reads a device's number."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_host_waits_for_no_step(optimizer):
    def reads(samples):
        trainer = make_small(epochs=1, optimizer=optimizer)
        trainer.loss.forward = lambda output, target, *, weight=None: nn.functional.cross_entropy(output, target)
        with Reads() as mode:
            trainer.fit(Augmented(samples))
        assert trainer.steps == -(-samples // 4)
        return mode.count

    assert reads(40) == reads(8) <= 2  # an iterator's own


def test_findings_of_an_aborted_run_do_not_end_the_next():
    class CrashError(Exception):
        pass

    batches = itertools.count(1)

    def spoil(batch):
        number = next(batches)
        if number == 4:
            raise CrashError
        return {**batch, "image": batch["image"] * math.nan} if number == 3 else batch  # the rehearsal's is the first

    trainer = make_small(epochs=1, accumulate=1, batch_transform=spoil)
    with pytest.raises(CrashError):
        fit(trainer)
    trainer.batch_transform = None
    assert math.isfinite(fit(trainer)[-1]["train/loss"])
