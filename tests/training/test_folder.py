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
from unetzoo.training.folder import RunFolder


def network(value):
    net = tiny("bnunet", in_channels=1, classes=2, encoder_channels=(4, 8, 8))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(value)
    return net


def value_of(path):
    return next(unetzoo.from_pretrained(path).parameters()).flatten()[0].item()


@pytest.mark.parametrize("failing", range(8))
def test_a_full_disk_leaves_a_whole_best_network(tmp_path, monkeypatch, failing):
    run = RunFolder(tmp_path, keep=2)
    run.save_best(network(1.0))
    disk = Tracing(failing, OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr(io, "DISK", disk)
    try:
        run.save_best(network(2.0))
    except CheckpointWriteError as error:
        assert "No space left" in str(error)
    assert len(disk.trace) <= 8
    assert value_of(tmp_path / "best") in (1.0, 2.0)
    assert not list(tmp_path.glob(".tmp-*"))


def test_the_log_is_replaced_as_a_whole(tmp_path, monkeypatch):
    run = RunFolder(tmp_path, keep=2)
    run.write_log([{"epoch": 1.0}])
    monkeypatch.setattr(io, "DISK", Tracing(2, OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(CheckpointWriteError, match="cannot write the log"):
        run.write_log([{"epoch": 1.0}, {"epoch": 2.0}])
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [{"epoch": 1.0}]
    assert not list(tmp_path.glob(".tmp-*"))


def test_debris_of_a_killed_writer_goes_at_the_next_start(tmp_path):
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
