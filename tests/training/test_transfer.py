"""Batches reach the device unchanged, on a GPU in a separate stream."""

from contextlib import contextmanager

import pytest
import torch

from unetzoo.training import batches
from unetzoo.training.batches import transferred

GPU = torch.device("cuda", 0)


class Stream:
    """A stream that records its calls."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def record_event(self):
        self.log.append(("event", self.name))
        return "copied"

    def wait_event(self, event):
        self.log.append(("wait", self.name, event))


class Pinned(torch.Tensor):
    """A tensor of the host whose copy is noted with the stream that makes it."""

    def to(self, device, non_blocking=False):
        assert non_blocking
        self.log.append(("copy", self.current[-1].name, device))
        return self

    def record_stream(self, stream):
        self.log.append(("used by", stream.name))


@pytest.fixture
def gpu(monkeypatch):
    """A make-believe GPU: the log of its streams, and what makes a tensor for it."""
    log, current = [], []
    side, working = Stream("side", log), Stream("working", log)
    current.append(working)

    @contextmanager
    def stream(chosen):
        current.append(chosen)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: side)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current[-1])
    batches._side_stream.cache_clear()

    def tensor(numbers):
        made = torch.tensor(numbers).as_subclass(Pinned)
        made.log, made.current = log, current
        return made

    yield log, tensor
    batches._side_stream.cache_clear()


def test_copies_overlap_with_work_that_waits_only_for_its_own(gpu):
    log, tensor = gpu
    batch = {"image": tensor([1.0]), "id": ["a"]}
    assert transferred(batch, GPU)["id"] == ["a"]
    assert log[:2] == [("copy", "side", GPU), ("event", "side")]
    assert log[2:] == [("wait", "working", "copied"), ("used by", "working")]
    assert set(batch) == {"image", "id"}


def test_all_tensors_of_a_batch_share_one_wait(gpu):
    log, tensor = gpu
    transferred({"image": tensor([1.0]), "mask": tensor([1])}, GPU)
    assert [entry[0] for entry in log] == ["copy", "copy", "event", "wait", "used by", "used by"]


def test_tensors_already_on_the_gpu_stay_on_the_working_stream(gpu):
    log, tensor = gpu
    made_there = type("Made", (Pinned,), {"device": GPU})
    image = tensor([1.0]).as_subclass(made_there)
    image.log, image.current = log, tensor([1.0]).current
    transferred({"image": image}, GPU)
    assert log == [("copy", "working", GPU)]


def test_without_a_gpu_nothing_is_copied():
    batch = {"image": torch.ones(2), "id": ["a"]}
    answer = transferred(batch, torch.device("cpu"))
    assert answer["image"] is batch["image"] and answer["id"] is batch["id"] and answer is not batch


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_arrive_complete_while_the_gpu_works():
    batches = [{"image": torch.full((1 << 20,), float(n)).pin_memory()} for n in range(50)]
    weight, sums = torch.rand(2048, 2048, device=GPU), []
    for batch in batches:
        image = transferred(batch, GPU)["image"]
        for _ in range(5):
            weight = torch.tanh(weight @ weight)
        sums.append(image.sum())
        del image
    assert torch.stack(sums).tolist() == [n * 2.0**20 for n in range(50)]
