"""The best network and the log are the old ones or the new ones at any moment."""

import errno
import json

import pytest
import torch
from conftest import tiny
from disasters import Tracing
from small_runs import fit, make_small

import unetzoo
from unetzoo import io
from unetzoo.errors import CheckpointWriteError, ConfigError
from unetzoo.training.checkpoint import RunFolder


def network(value):
    net = tiny("bnunet", in_channels=1, classes=2, encoder_channels=(4, 8, 8))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(value)
    return net


def value_of(path):
    return next(unetzoo.from_pretrained(path).parameters()).flatten()[0].item()


class Killed(BaseException):
    """Nobody tidies up after it."""


STEPS = 22  # operations of replacing the best network


@pytest.mark.parametrize("end", [OSError(errno.ENOSPC, "No space left on device"), Killed()], ids=["full", "killed"])
@pytest.mark.parametrize("failing", range(STEPS))
def test_the_best_network_is_whole_at_any_moment(tmp_path, monkeypatch, failing, end):
    run = RunFolder(tmp_path, keep=2)
    run.save_best(network(1.0))
    disk = Tracing(failing, end)
    with monkeypatch.context() as patch:
        patch.setattr(io, "DISK", disk)
        with pytest.raises((CheckpointWriteError, Killed)):
            run.save_best(network(2.0))
    assert len(disk.trace) == failing + 1
    assert value_of(tmp_path / "best") in (1.0, 2.0)
    assert isinstance(end, Killed) or not list(tmp_path.glob(".tmp-*"))
    run.save_best(network(3.0))
    assert value_of(tmp_path / "best") == 3.0
    assert {file.name for file in (tmp_path / "best").iterdir() if not file.name.startswith(".")} == {
        "README.md", "config.json", "manifest.json", "model.safetensors"}  # fmt: skip


def test_the_number_of_steps_to_replace_the_best_network(tmp_path, monkeypatch):
    run = RunFolder(tmp_path, keep=2)
    run.save_best(network(1.0))
    disk = Tracing(-1, OSError())
    monkeypatch.setattr(io, "DISK", disk)
    run.save_best(network(2.0))
    assert len(disk.trace) == STEPS


def test_the_log_is_replaced_atomically(tmp_path, monkeypatch):
    run = RunFolder(tmp_path, keep=2)
    run.write_log([{"epoch": 1.0}])
    monkeypatch.setattr(io, "DISK", Tracing(2, OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(CheckpointWriteError, match="cannot write the log"):
        run.write_log([{"epoch": 1.0}, {"epoch": 2.0}])
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [{"epoch": 1.0}]
    assert not list(tmp_path.glob(".tmp-*"))


def test_partial_files_of_a_killed_writer_are_removed_at_the_next_start(tmp_path):
    (tmp_path / "checkpoints" / ".tmp-a").mkdir(parents=True)
    (tmp_path / ".tmp-b").mkdir()
    (tmp_path / ".tmp-c").write_text("")
    fit(make_small(tmp_path, epochs=1))
    assert not list(tmp_path.rglob(".tmp-*"))


def test_without_a_folder_nothing_is_written_and_nothing_resumed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(make_small(epochs=1))
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="without a run folder"):
        fit(make_small(epochs=1), resume=True)
