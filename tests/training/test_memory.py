"""Out of memory: the same step in smaller parts, with everything that the failed try touched put back."""

import json

import pytest
import torch
from small_runs import At, Augmented, Small, make_small

from unetzoo import LOSSES, Trainer
from unetzoo.errors import ConfigError, MemoryExhaustedError
from unetzoo.training import checkpoint


class Card(torch.autograd.Function):
    """A device with memory for a given number of samples, in forward or backward."""

    limit: int | None = None
    where = "forward"
    failures = 0

    @staticmethod
    def forward(ctx, x):
        Card.check(x, "forward")
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        Card.check(gradient, "backward")
        return gradient

    @staticmethod
    def check(x, where):
        if where == Card.where and Card.limit is not None and len(x) > Card.limit:
            Card.failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")


class Limited(Small):
    def forward(self, x):
        return Card.apply(super().forward(x)) if self.training or Card.where == "evaluation" else super().forward(x)


class NoNorm(torch.nn.Module):
    """Without batch norm and dropout, parts give the very gradients of the whole."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, x):
        return Card.apply(self.conv(x))


@pytest.fixture(autouse=True)
def card():
    Card.limit, Card.where, Card.failures = None, "forward", 0
    yield
    Card.limit = None


def run(net, limit=None, at=None, **settings):
    torch.manual_seed(0)

    def fill(batch):
        Card.limit = limit

    trainer = make_small(net=net, epochs=1, batch_size=4, accumulate=2, batch_transform=At(at or 1, fill), **settings)
    trainer.fit(Augmented(16))
    return trainer


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_the_effective_batch_is_kept(where, tmp_path):
    torch.manual_seed(0)
    first = NoNorm()
    whole = run(first)
    torch.manual_seed(0)
    Card.where = where
    parts = run(NoNorm(), limit=1, at=4, out=tmp_path)
    assert Card.failures == 2 and parts.state.micro_batches == 4
    for a, b in zip(whole.net.parameters(), parts.net.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert parts.history[0]["train/loss"] == pytest.approx(whole.history[0]["train/loss"], rel=1e-5)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event["parts"] for event in events] == [2, 4]
    assert "batch norm 1" in events[-1]["said"] and "1 sample at a time" in events[-1]["said"]


def test_batch_norm_and_random_streams_are_put_back_before_the_retry(monkeypatch):
    torch.manual_seed(0)
    failed = run(Limited(), limit=2, at=4)
    assert Card.failures == 1
    Card.limit, Card.failures = None, 0

    def halved_from_the_start(trainer=None):
        torch.manual_seed(0)
        trainer = make_small(net=Limited(), epochs=1, batch_size=4, accumulate=2, batch_transform=At(0, None))
        step = trainer.train_step

        def counted(group, received=0):
            if trainer.steps == 1:  # the step in which the card filled up
                trainer.state.micro_batches = 2
            return step(group, received)

        for name in ("begin_epoch", "flush", "close", "buffers"):
            setattr(counted, name, getattr(step, name))
        trainer.train_step = counted
        torch.manual_seed(0)
        trainer.fit(Augmented(16))
        return trainer

    expected = halved_from_the_start()
    assert Card.failures == 0
    for (name, a), b in zip(failed.net.state_dict().items(), expected.net.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_the_parts_are_remembered_over_a_resume(tmp_path):
    torch.manual_seed(0)
    run(Limited(), limit=2, at=3, out=tmp_path)
    Card.limit = None
    resumed = make_small(tmp_path, net=Limited(), epochs=2, batch_size=4, accumulate=2)
    resumed.fit(Augmented(16), resume=True)
    assert resumed.state.micro_batches == 2


def test_not_one_sample_fits():
    with pytest.raises(MemoryExhaustedError) as caught:
        run(Limited(), limit=0)
    assert "at one sample" in caught.value.what and "2.00 GiB" in caught.value.found
    Card.limit = None
    with pytest.raises(MemoryExhaustedError):

        def exhaust(batch):
            raise torch.OutOfMemoryError("CUDA out of memory")

        make_small(batch_transform=exhaust).fit(Augmented())


def test_processes_shrink_their_batches_together(tmp_path):
    trainer = make_small(tmp_path, net=Limited(), epochs=2, batch_size=4, accumulate=1, batch_transform=At(7, fill_up))
    trainer.world, trainer.train_step.several = 2, True
    trainer._summed = trainer.train_step.reduce = lambda part: part
    trainer.accelerator.prepare_model = lambda model: model
    with pytest.raises(MemoryExhaustedError) as caught:
        trainer.fit(Augmented(16))
    assert "batch_size=2 and twice the train.accumulate" in caught.value.hint
    assert checkpoint.latest(tmp_path / "checkpoints").state["steps"] == 4


def fill_up(batch):
    Card.limit = 2


def test_evaluation_in_parts_gives_the_same_scores():
    Card.where = "evaluation"
    trainer = make_small(net=Limited(), batch_size=8)
    data = Augmented(11, seed=3)
    expected = trainer.evaluate(data)
    counts = trainer.metrics["mask"].confusion

    def check(x, where):
        if len(x) > 3:
            Card.failures += 1
            raise torch.OutOfMemoryError("out of memory")

    original, Card.check = Card.check, staticmethod(check)
    try:
        scores = trainer.evaluate(data)
        assert Card.failures == 3  # 8, then its halves of 4; the next batch comes in parts of 2
        assert torch.equal(trainer.metrics["mask"].confusion, counts)
        assert scores == pytest.approx(expected, rel=1e-6)
        Card.check = staticmethod(lambda x, where: (_ for _ in ()).throw(torch.OutOfMemoryError("out of memory")))
        with pytest.raises(MemoryExhaustedError) as caught:
            trainer.evaluate(data)
        assert "train.tile" in caught.value.hint
    finally:
        Card.check = original


def test_a_metric_that_ran_out_of_memory_counts_nothing_twice():
    trainer = make_small(batch_size=8)
    metric, data = trainer.metrics["mask"], Augmented(8)
    trainer.evaluate(data)
    counts, update, calls = metric.confusion, metric.update, []

    def twice(output, target):
        update(output, target)
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("out of memory")

    metric.update = twice
    trainer.evaluate(data)
    assert torch.equal(metric.confusion, counts) and len(calls) == 3


def test_other_errors_are_not_taken_for_it():
    class Odd(Small):
        def forward(self, x):
            if self.training:
                raise RuntimeError("odd")
            return super().forward(x)

    with pytest.raises(ConfigError) as caught:
        Trainer(Odd(), LOSSES.build("ce"), epochs=1, progress=False).fit(Augmented())
    assert isinstance(caught.value.__cause__, RuntimeError) and "odd" in caught.value.found
