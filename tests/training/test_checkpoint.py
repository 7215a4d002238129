import errno
import json
import random

import pytest
import torch

from unetzoo.errors import CheckpointCorruptError, CheckpointError, CheckpointWriteError
from unetzoo.training import checkpoint
from unetzoo.training.checkpoint import Checkpoint


def content(value=1.0):
    model = {"w": torch.full((2, 3, 4, 4), value).to(memory_format=torch.channels_last), "n": torch.tensor(3)}
    return Checkpoint({"model": model, "optimizer": {"0.step": torch.tensor(1.0)}}, {"epoch": 1, "text": "é"})


def test_round_trip_and_pruning(tmp_path):
    for step in (1, 2, 30):
        path = checkpoint.save(tmp_path, step, content(step), keep=2)
    assert [p.name for p in checkpoint.found(tmp_path)] == ["step-000002", "step-000030"]
    loaded = checkpoint.load(path)
    assert torch.equal(loaded.tensors["model"]["w"], torch.full((2, 3, 4, 4), 30.0))
    assert loaded.state == {"epoch": 1, "text": "é"}
    assert checkpoint.latest(tmp_path).tensors["model"]["w"].max() == 30


def test_every_changed_byte_is_detected(tmp_path):
    path = checkpoint.save(tmp_path, 1, content())
    draw = random.Random(0)
    files = sorted(path.iterdir())
    for trial in range(200):
        file = files[trial % len(files)]
        original = file.read_bytes()
        spoiled = bytearray(original)
        if trial % 3:
            place = draw.randrange(len(spoiled))
            spoiled[place] ^= 1 << draw.randrange(8)
        else:
            spoiled = spoiled[: draw.randrange(len(spoiled))]
        file.write_bytes(spoiled)
        try:
            loaded = checkpoint.load(path)
        except CheckpointError:
            pass
        else:  # a flip inside the manifest's white space changes nothing that is read
            assert file.name == "manifest.json"
            assert torch.equal(loaded.tensors["model"]["w"], content().tensors["model"]["w"])
        file.write_bytes(original)
    files[0].unlink()
    with pytest.raises(CheckpointCorruptError):
        checkpoint.load(path)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path):
    checkpoint.save(tmp_path, 1, content(1))
    newest = checkpoint.save(tmp_path, 2, content(2))
    (newest / "model.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match="falling back"):
        assert checkpoint.latest(tmp_path).tensors["model"]["w"].max() == 1
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint.latest(tmp_path / "none")


@pytest.mark.parametrize("failing", range(6))
def test_a_full_disk_leaves_the_last_checkpoint_and_no_debris(tmp_path, monkeypatch, failing):
    checkpoint.save(tmp_path, 1, content(1))
    calls = 0

    def fail(path, *_):
        nonlocal calls
        calls += 1
        if calls > failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, *_)

    write = checkpoint._write
    monkeypatch.setattr(checkpoint, "_write", fail)
    if failing < 4:
        with pytest.raises(CheckpointWriteError, match="No space left"):
            checkpoint.save(tmp_path, 2, content(2))
        assert [p.name for p in tmp_path.iterdir()] == ["step-000001"]
        assert checkpoint.latest(tmp_path).tensors["model"]["w"].max() == 1
    else:  # all four files were written
        checkpoint.save(tmp_path, 2, content(2))
        assert checkpoint.latest(tmp_path).tensors["model"]["w"].max() == 2


def test_files_are_synced_before_the_rename(tmp_path, monkeypatch):
    events = []
    real = checkpoint.os.fsync
    monkeypatch.setattr(checkpoint.os, "fsync", lambda fd: (events.append("sync"), real(fd))[1])
    rename = checkpoint.Path.rename
    monkeypatch.setattr(checkpoint.Path, "rename", lambda a, b: (events.append("rename"), rename(a, b))[1])
    checkpoint.save(tmp_path, 1, content())
    assert events == ["sync"] * 5 + ["rename", "sync"]  # four files and their folder; then the parent


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
    saved = checkpoint.pack_rng()
    drawn = torch.rand(3)
    checkpoint.unpack_rng(json.loads(json.dumps(saved)))
    assert torch.equal(torch.rand(3), drawn)
