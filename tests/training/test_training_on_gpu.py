"""What training does on a GPU, on one that is not there (see `fake_gpu`) or with another device in its place."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from fake_gpu import GPU, fake_gpu, moved
from small_runs import Small

import unetzoo
from unetzoo.datasets import BatchTransform, Transform
from unetzoo.labels import LabelSpec
from unetzoo.modules import is_out_of_memory
from unetzoo.training import trainer
from unetzoo.training.collapse import Spread
from unetzoo.training.evaluate import Objective
from unetzoo.training.optim import OPTIMIZERS, follow, make_optimizer
from unetzoo.training.schedule import Schedule
from unetzoo.training.state import EMA, TrainState
from unetzoo.training.step import TrainStep

SIDES = LabelSpec(("background", "left", "right"), swap_pairs=((1, 2),), side="subject")
STATISTICS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}


class Event:
    def record(self):
        pass

    def synchronize(self):
        pass


@pytest.mark.parametrize("clip", [None, 1.0])
def test_code_around_a_step_does_not_synchronize(clip, monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Event)
    net = unetzoo.build("bnunet", encoder_channels=(4, 8, 8))
    mean, accelerator = EMA(net, 0.9), Accelerator(cpu=True)
    with fake_gpu() as waiting:
        moved(net), moved(mean.net)
        mean._means, mean._values = list(mean.net.parameters()), list(net.parameters())
        parameters = list(net.parameters())
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        optimizer, scaler = torch.optim.SGD(parameters, 0.1), torch.amp.GradScaler("cpu", enabled=False)
        state = TrainState(net, None, optimizer, Schedule(), scaler)
        step = TrainStep(
            Objective(net, max), state, accelerator, ready=lambda batch: batch, reduce=lambda flags: flags, clip=clip
        )
        for _ in range(2):
            step._remember()
            step._late = None  # a fake value cannot be read
            step._check(torch.empty((), device=GPU))
        mean.update(step=3)
        plane = torch.empty(2, 1, 8, 8, device=GPU)
        assert Spread.of(plane, plane, plane > 0).sums.device == GPU
        assert not waiting.seen


@pytest.mark.parametrize(
    "options",
    [
        {"normalize": "minmax"},
        {"normalize": "standard", "rotate": 20, "scale": (0.8, 1.2)},
        {"normalize": STATISTICS, "brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 10},
        {"hflip": 0.5, "labels": SIDES, "size": (20, 24), "crop": 16},
        {"elastic": 3.0},
    ],
    ids=str,
)
def test_augmentation_on_the_device_does_not_wait(options):
    move = Transform(on="device", **options)
    sample = {
        "image": np.zeros((20, 30, 3), np.uint8), "mask": np.zeros((20, 30), np.uint8),
        "depth": np.zeros((20, 30), np.float32), "valid": np.ones((20, 30), bool), "id": "a",
    }  # fmt: skip
    batch = torch.utils.data.default_collate([move(sample, np.random.default_rng(n)) for n in (0, 1)])
    with fake_gpu() as waiting:
        pinned = torch.empty(batch["moves"]["numbers"].shape).pin_memory()
        planes = [name for name in sample if name != "id"]
        there = {name: torch.empty(batch[name].shape, dtype=batch[name].dtype, device=GPU) for name in planes}
        sizes = batch["moves"]["sizes"].tolist()  # the host's; a fake tensor has no numbers
        answer = BatchTransform(move)({**there, "moves": {"numbers": pinned, "sizes": sizes}})
        assert {answer[name].device for name in planes} == {GPU} and not waiting.seen


@pytest.mark.parametrize("options", [{}, {"foreach": True}], ids=str)
def test_state_that_was_made_beforehand_follows_its_parameters(options):
    optimizer = make_optimizer(Small().to("meta"), "adagrad", **options)
    for held in optimizer.state.values():  # as `net.to(device)` leaves it
        held |= {name: torch.zeros(value.shape) for name, value in held.items()}
    follow(optimizer)
    assert {held["sum"].device.type for held in optimizer.state.values()} == {"meta"}
    steps = {held["step"].device.type for held in optimizer.state.values()}
    assert steps == ({"cpu"} if options else {"meta"})  # the fused one wants it beside


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_state_on_the_right_device_is_not_moved(name):
    net = Small()
    optimizer = make_optimizer(net, name)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    groups, kept = optimizer.param_groups, [list(held.values()) for held in optimizer.state.values()]
    follow(optimizer)
    assert optimizer.param_groups is groups
    for held, values in zip(optimizer.state.values(), kept, strict=True):
        assert all(one is other for one, other in zip(held.values(), values, strict=True))


def test_a_trainer_keeps_the_state_of_a_given_optimizer(monkeypatch):
    followed = []
    monkeypatch.setattr(trainer, "follow", followed.append)
    made = unetzoo.Trainer(Small(), unetzoo.LOSSES.build("ce"), steps=1, progress=False)
    assert followed == [made.optimizer]


@pytest.mark.parametrize(
    ("said", "exhausted"),
    [
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported", True),
        ("Triton Error [CUDA]: out of memory", True),
        ("CUDA error: an illegal memory access was encountered", False),
        ("Triton Error [CUDA]: an illegal memory access was encountered", False),
    ],
)
def test_memory_runs_out_in_other_words_too(said, exhausted):
    assert is_out_of_memory(RuntimeError(said)) == exhausted
