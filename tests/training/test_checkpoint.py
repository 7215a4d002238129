import contextlib
import errno
import hashlib
import json
import os
import pickle
import random

import numpy as np
import pytest
import torch
from disasters import Evil, Tracing, content, crash_points, survivors_of_a_crash, undetected_mutants

from unetzoo import io
from unetzoo.errors import CheckpointCorruptError, CheckpointError, CheckpointWriteError
from unetzoo.training import checkpoint, rng


def test_round_trip_and_pruning(tmp_path):
    for step in (1, 2, 30):
        path = checkpoint.save(tmp_path, step, content(step), keep=2)
    assert [p.name for p in checkpoint.found(tmp_path)] == ["step-000002", "step-000030"]
    loaded = checkpoint.load(path)
    assert torch.equal(loaded.tensors["model"]["w"], torch.full((2, 3, 4, 4), 30.0))
    assert loaded.state == {"epoch": 1, "text": "é"}
    assert checkpoint.latest(tmp_path).tensors["model"]["w"].max() == 30


def test_saving_a_step_twice_keeps_the_first_checkpoint(tmp_path):
    first = checkpoint.save(tmp_path, 7, content(1))
    second = checkpoint.save(tmp_path, 7, content(2))
    assert [p.name for p in checkpoint.found(tmp_path)] == ["step-000007", "step-000007-1"]
    assert [checkpoint.load(p).tensors["model"]["w"].max() for p in (first, second)] == [1, 2]


def test_no_mutant_is_taken_for_a_checkpoint(tmp_path):
    assert undetected_mutants(tmp_path, 300, seed=0) == []


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path):
    checkpoint.save(tmp_path, 1, content(1))
    newest = checkpoint.save(tmp_path, 2, content(2))
    (newest / "model.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match="falling back"):
        assert checkpoint.latest(tmp_path).tensors["model"]["w"].max() == 1
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint.latest(tmp_path / "none")


STEPS = 16  # of one save of two groups: 4 × (write, sync), sync, rename, sync; then the oldest is dropped


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("failing", range(STEPS))
def test_a_full_or_broken_disk_keeps_the_last_checkpoint_and_leaves_no_partial_files(tmp_path, failing, code):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, content(step))
    disk = Tracing(failing, OSError(code, os.strerror(code)))
    with contextlib.ExitStack() as stack:
        if failing < 11:
            stack.enter_context(pytest.raises(CheckpointWriteError, match=os.strerror(code)))
        elif failing < STEPS:
            stack.enter_context(pytest.warns(UserWarning, match="cannot remove the old checkpoint"))
        checkpoint.save(tmp_path, 3, content(3), disk=disk)
    assert checkpoint.latest(tmp_path).tensors["model"]["w"].max() in ((2,) if failing < 10 else (2, 3))
    checkpoint.clean(tmp_path)
    assert not list(tmp_path.glob(".tmp-*"))


def test_the_order_on_the_disk(tmp_path):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, content(step))
    disk = Tracing()
    checkpoint.save(tmp_path, 3, content(3), disk=disk)
    files = ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]
    written = [f"{what} {name}" for name in files for what in ("write", "sync")]
    names = sorted(files)
    dropped = ["rename step-000001", *(f"unlink {name}" for name in names)]
    assert disk.trace == [*written, "sync .tmp", "rename .tmp", f"sync {tmp_path.name}", *dropped]
    assert len(disk.trace) == STEPS


@pytest.mark.parametrize("crash", crash_points(STEPS)[::3])
def test_a_crash_at_any_point_loses_no_finished_checkpoint(tmp_path, crash):
    assert survivors_of_a_crash(tmp_path, *crash)


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "manifest.json"])
def test_a_hostile_checkpoint_runs_no_code(tmp_path, name):
    """Pickles in the place of each file, with hashes that agree."""
    canary = tmp_path / "canary"
    path = checkpoint.save(tmp_path / "c", 1, content())
    evil = pickle.dumps(Evil(str(canary)))
    (path / name).write_bytes(evil)
    if name != "manifest.json":
        listed = checkpoint._read_manifest(path)
        listed["files"][name] = {"size": len(evil), "sha256": hashlib.sha256(evil).hexdigest()}
        (path / "manifest.json").write_bytes(io.seal(listed))
    with pytest.raises(CheckpointCorruptError):
        checkpoint.load(path)
    assert not canary.exists()
    pickle.loads(evil)
    assert canary.exists()  # the pickle would have done it


def test_debris_of_a_killed_writer_is_removed(tmp_path):
    (tmp_path / ".tmp-dead").mkdir()
    checkpoint.clean(tmp_path)
    assert not list(tmp_path.iterdir())


def test_optimizers_round_trip():
    for make in (
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
        lambda p: torch.optim.AdamW(p, 0.1, betas=(0.8, 0.9)),
    ):
        first, second = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
        second.load_state_dict(first.state_dict())
        a, b = make(first.parameters()), make(second.parameters())
        first(torch.ones(1, 3)).sum().backward()
        a.step()
        tensors, plain = checkpoint.pack_optimizer(a)
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
        checkpoint.unpack_optimizer(b, tensors, json.loads(json.dumps(plain)))
        second.load_state_dict(first.state_dict())
        for net, optimizer in ((first, a), (second, b)):
            optimizer.zero_grad()
            net(torch.full((1, 3), 2.0)).square().sum().backward()
            optimizer.step()
        assert torch.equal(first.weight, second.weight)


def test_random_state_round_trip():
    saved = rng.pack(rng.take())
    drawn = torch.rand(3), random.random(), np.random.rand(2)
    rng.give(rng.unpack(json.loads(json.dumps(saved))))
    again = torch.rand(3), random.random(), np.random.rand(2)
    assert torch.equal(drawn[0], again[0]) and drawn[1] == again[1] and (drawn[2] == again[2]).all()


def test_optimizer_state_takes_the_layout_of_its_parameters():
    conv = torch.nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
    adam = torch.optim.Adam(conv.parameters())
    conv(torch.rand(1, 4, 5, 5)).sum().backward()
    adam.step()
    tensors, plain = checkpoint.pack_optimizer(adam)
    saved = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    checkpoint.unpack_optimizer(adam, saved, json.loads(json.dumps(plain)))
    moment = adam.state[conv.weight]["exp_avg"]
    assert moment.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moment, saved["0.exp_avg"])
