"""Effects of the Trainer's settings, against a loop written by hand."""

import copy
import math

import numpy as np
import pytest
import torch
from conftest import tiny
from small_runs import Augmented, Small, fit, make_small
from test_trainer import Squares, make
from torch import nn

import unetzoo
from unetzoo import LOSSES, Trainer
from unetzoo.datasets import sample_rng
from unetzoo.errors import ConfigError
from unetzoo.training import Schedule, make_optimizer
from unetzoo.training.schedule import Stage


def batches_of(data, seed, epoch, size):
    """The batches of an epoch, from the contract: a permutation by (seed, epoch), a stream by (seed, epoch, index)."""
    order = np.random.default_rng(np.random.SeedSequence([seed, epoch])).permutation(len(data))
    raw = copy.copy(data)
    raw.transform = None
    samples = [data.transform(raw[i], sample_rng(seed, epoch, int(i))) for i in order]
    for start in range(0, len(samples), size):
        chosen = samples[start : start + size]
        yield {key: torch.stack([sample[key] for sample in chosen]) for key in ("image", "mask")}


def plain(width=4):
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 2, 3, padding=1))


def test_accumulation_clipping_and_ema_equal_a_loop_by_hand():
    """Ten samples in batches of 3, two batches a step: groups of 6 and 4 samples, each averaged over its samples."""
    data, epochs, decay, clip = Augmented(10), 2, 0.9, 0.05
    net = plain()
    trainer = Trainer(
        net, LOSSES.build("ce"), optimizer=torch.optim.SGD(net.parameters(), 0.5, momentum=0.9),
        epochs=epochs, batch_size=3, accumulate=2, clip=clip, ema=decay, seed=5, progress=False,
    )  # fmt: skip
    trainer.fit(data)
    hand, step = plain(), 0
    mean = copy.deepcopy(hand)
    sgd = torch.optim.SGD(hand.parameters(), 0.5, momentum=0.9)
    for epoch in range(epochs):
        batches = list(batches_of(data, 5, epoch, 3))
        for group in (batches[:2], batches[2:]):
            sgd.zero_grad()
            images, masks = (torch.cat([batch[key] for batch in group]) for key in ("image", "mask"))
            nn.functional.cross_entropy(hand(images), masks).backward()
            assert nn.utils.clip_grad_norm_(hand.parameters(), clip) > clip
            sgd.step()
            step += 1
            kept = min(decay, (1 + step) / (10 + step))
            for m, p in zip(mean.parameters(), hand.parameters(), strict=True):
                m.data.mul_(kept).add_(p.data, alpha=1 - kept)
    for ours, theirs in ((trainer.net, hand), (trainer.network, mean)):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a.detach(), b.detach(), rtol=2e-5, atol=1e-7)


def test_the_running_mean_is_evaluated_and_saved(tmp_path):
    trainer = make(out=tmp_path, ema=0.5, epochs=1)
    row = trainer.fit(Squares(), Squares(4, seed=1))[0]
    saved = unetzoo.from_pretrained(tmp_path / "best").state_dict()
    assert all(torch.equal(value, trainer.ema.net.state_dict()[name]) for name, value in saved.items())
    assert any(not torch.equal(value, saved[name]) for name, value in trainer.net.state_dict().items())
    assert make(net=unetzoo.from_pretrained(tmp_path / "best")).evaluate(Squares(4, seed=1))["miou"] == row["miou"]


def test_a_run_of_steps_ends_at_its_step():
    trainer = make_small(steps=8)
    assert [row["epoch"] for row in fit(trainer)] == [1, 2, 3]
    assert trainer.steps == 8


def test_growing_images():
    def to(size):
        def transform(sample, rng):
            return {k: v[..., :size, :size] if isinstance(v, torch.Tensor) else v for k, v in sample.items()}

        return transform

    seen = []

    def look(batch):
        seen.append(tuple(batch["image"].shape))
        return batch

    stages = [Stage(1, batch_size=4, transform=to(16)), Stage(2, transform=to(24))]
    trainer = make_small(stages=stages, accumulate=1, batch_transform=look)
    trainer.fit(Squares(8, 32), Squares(2, 32))
    assert seen == [(2, 1, 16, 16), (2, 1, 24, 24)] + 2 * [(4, 1, 16, 16)] + 2 * 4 * [(2, 1, 24, 24)]
    assert len(trainer.history) == 3 and trainer.steps == 2 + 2 * 4


def test_a_size_that_the_network_cannot_take_is_found_before_the_first_step():
    net = tiny("unet", in_channels=1, classes=2, encoder_channels=(4, 8, 8), dropout=0.0)
    legal = net.geometry.fit(48)

    def small(sample, rng):
        return {k: v[..., :8, :8] if isinstance(v, torch.Tensor) else v for k, v in sample.items()}

    trainer = make(net, epochs=None, stages=[Stage(5), Stage(1, transform=small)])
    with pytest.raises(unetzoo.errors.InputShapeError):
        trainer.fit(Squares(4, legal))
    assert trainer.steps == 0


def test_a_frozen_encoder_thaws():
    net = tiny("bnunet", in_channels=1, classes=2, encoder_channels=(4, 8, 8))
    start = {k: v.clone() for k, v in net.encoder.state_dict().items()}
    moved = []

    class Watch(Squares):
        def __getitem__(self, index):
            if index == 0:
                now = net.encoder.state_dict()
                moved.append(any(not torch.equal(start[k], now[k]) for k in start))
            return super().__getitem__(index)

    trainer = make(net, optimizer=make_optimizer(net, "adamw", lr=1e-2), epochs=3, freeze_encoder=2)
    trainer.fit(Squares(), Watch(2))
    assert moved[1:] == [False, False, True]  # the first is the rehearsal
    assert all(p.requires_grad for p in net.parameters())
    with pytest.raises(ConfigError) as caught:
        Trainer(plain(), LOSSES.build("ce"), freeze_encoder=1)
    assert caught.value.subject == "freeze_encoder"


def test_patience():
    scores = iter([0.1, 0.5, 0.4, 0.5, 0.9])
    trainer = make(epochs=9, patience=2, monitor="miou")
    trainer.evaluator.scores = lambda *given, **named: {"miou": next(scores), "val/loss": 0.0}
    assert [row["miou"] for row in trainer.fit(Squares(4), Squares(1))] == [0.1, 0.5, 0.4, 0.5]


@pytest.mark.parametrize(("monitor", "best"), [("val/loss", 1), ("miou", 0)])
def test_of_a_loss_the_smaller_is_better(monitor, best, tmp_path):
    trainer = make(epochs=2, monitor=monitor, out=tmp_path)
    rows = iter([{"miou": 0.9, "val/loss": 0.7}, {"miou": 0.8, "val/loss": 0.6}])
    trainer.evaluator.scores = lambda *given, **named: next(rows)
    trainer.fit(Squares(4), Squares(1))
    assert trainer.best.epoch == best + 1


def test_two_trainers_of_different_precision_in_one_process():
    half, full = make(precision="bf16", epochs=1), make(epochs=1)
    for trainer in (half, full, half):
        seen = []
        handle = trainer.net.register_forward_hook(lambda net, args, output, seen=seen: seen.append(output.dtype))
        trainer.fit(Squares(4), Squares(1))
        handle.remove()
        assert set(seen) == {torch.bfloat16 if trainer is half else torch.float32}
        assert "forward" not in vars(trainer.net)


def test_channels_last():
    seen = []
    trainer = make(channels_last=True, epochs=1, batch_size=2)
    trainer.net.register_forward_pre_hook(
        lambda net, args: seen.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    trainer.fit(Squares(4, channels=1), Squares(2))
    assert all(seen)
    assert trainer.net.encoder.state_dict()  # still loads as any other
    weight = next(p for p in trainer.net.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[-1] > 1)
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_the_compiled_forward_is_the_one_that_trains(monkeypatch):
    calls = []

    def fake(function):
        return lambda x: calls.append(tuple(x.shape)) or function(x)

    monkeypatch.setattr(torch, "compile", fake)
    trainer = make(compile=True, epochs=1)
    trainer.fit(Squares(8), Squares(3))
    assert calls == [(4, 1, 32, 32)] * 2  # only training


def test_a_batch_transform_is_used_only_in_training():
    trainer = make_small(epochs=1, batch_transform=lambda batch: {**batch, "mask": torch.zeros_like(batch["mask"])})
    fit(trainer)
    assert trainer.metrics["mask"].confusion.sum(1)[1] > 0  # validation still holds squares


def test_weights_decay_and_vectors_do_not():
    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2, 2))

    net, loss = Small(), Loss()
    optimizer = make_optimizer(net, "adamw", loss=loss, weight_decay=0.3)
    by_decay = {group["weight_decay"]: {id(p) for p in group["params"]} for group in optimizer.param_groups}
    assert by_decay[0.3] == {id(net.encoder[0].weight), id(net.rest[1].weight)}
    assert by_decay[0.0] == {id(p) for p in (*net.parameters(), loss.scale)} - by_decay[0.3]
    assert optimizer.defaults["fused"]
    assert not make_optimizer(net, "adamw", foreach=True).defaults["fused"]


def rates(schedule, epochs, steps_an_epoch, lr=1.0, scores=None):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)
    schedule.build(optimizer, epochs=epochs, steps=epochs * steps_an_epoch, mode="max")
    seen = []
    for epoch in range(epochs):
        for step in range(steps_an_epoch):
            with schedule.rates(epoch * steps_an_epoch + step):
                seen.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
        schedule.after_epoch(scores[epoch] if scores else 0.0)
    return seen


def test_schedules_against_their_formulas():
    cosine = rates(Schedule("cosine", unit="step"), 2, 5)
    assert cosine == pytest.approx([(1 + math.cos(math.pi * t / 10)) / 2 for t in range(10)])
    poly = rates(Schedule("polynomial", power=0.9), 4, 2)
    assert poly == pytest.approx([(1 - epoch / 4) ** 0.9 for epoch in range(4) for _ in range(2)])
    warm = rates(Schedule("polynomial", unit="step", power=1.0, warmup=4), 1, 8)
    assert warm == pytest.approx([min(1, (t + 1) / 4) * (1 - t / 8) for t in range(8)])
    assert rates(Schedule(warmup=2), 1, 4) == [0.5, 1.0, 1.0, 1.0]
    restarts = rates(Schedule("warm_restarts", T_0=2), 4, 1)
    assert restarts == pytest.approx([1.0, 0.5, 1.0, 0.5])
    plateau = rates(Schedule("plateau", patience=0, factor=0.5), 4, 1, scores=[0.5, 0.6, 0.6, 0.6])
    assert plateau == [1.0, 1.0, 1.0, 0.5]
    cycle = rates(Schedule("onecycle"), 5, 4)
    assert max(cycle) == pytest.approx(1.0, rel=1e-2) and cycle[0] == pytest.approx(1 / 25) and cycle[-1] < 1e-3


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"epochs": 2, "steps": 3}, "leave one out"),
        ({"epochs": 2, "stages": [Stage(1)]}, "leave one out"),
        ({"precision": "fp16"}, "fp16 needs a GPU"),
        ({"sync_bn": True}, "sync_bn needs GPUs"),
        ({"accumulate": 0}, "accumulate"),
        ({"ema": 1.0}, "ema"),
        ({"clip": float("nan")}, "clip"),
        ({"keep": 1}, "keep"),
        ({"patience": 0}, "patience"),
        ({"seed": -1}, "seed"),
        ({"tile": "big"}, "tile"),
        ({"monitor": 3}, "monitor"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_settings_that_cannot_be_are_refused(wrong, says):
    net = plain()
    if says == "fp16 needs a GPU" and torch.accelerator.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match=says):
        Trainer(net, LOSSES.build("ce"), progress=False, **wrong)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("cosin", {}, "did you mean 'cosine'"),
        ("cosine", {"T": 3}, "keyword"),
        ("warm_restarts", {}, "T_0"),
        ("warm_restarts", {"T_0": 0}, "refuses"),
        ("plateau", {"factor": 2.0}, "refuses"),
        ("plateau", {"unit": "step"}, "waits for a score"),
        ("cosine", {"unit": "hour"}, "'epoch' or 'step'"),
        ("cosine", {"warmup": -1}, "warmup"),
        ("cosine", {"optimizer": 3}, "leave it out"),
        (None, {"T_max": 3}, "without a name"),
    ],
)
def test_schedules_that_cannot_be_are_refused(name, options, says):
    with pytest.raises(ConfigError, match=says):
        Schedule(name, **options)


@pytest.mark.parametrize(
    ("name", "options"), [("adam", {"lr": -1}), ("sgd", {"momentum": "x"}), ("adam", {"params": 1})]
)
def test_optimizers_that_cannot_be_are_refused(name, options):
    with pytest.raises(ConfigError):
        make_optimizer(plain(), name, **options)


def test_contradictions_are_found_before_the_first_step(tmp_path):
    with pytest.raises(ConfigError) as caught:
        make_small(tmp_path, monitor="val/los").fit(Augmented(), Augmented(2))
    assert "val/loss" in caught.value.hint
    trainer = make_small(tmp_path)
    trainer.metrics["mask"] = unetzoo.METRICS.build("segmentation", num_classes=5)
    with pytest.raises(unetzoo.errors.UnetzooError):
        fit(trainer)
    assert not list(tmp_path.iterdir())
    frozen = plain().requires_grad_(False)
    with pytest.raises(ConfigError):
        Trainer(frozen, LOSSES.build("ce"), optimizer=torch.optim.SGD(frozen.parameters(), 0.1))
