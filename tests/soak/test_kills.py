"""Two hundred SIGKILLs, half of them inside saves: no finished checkpoint is lost, and the run comes out the same."""

import os
import random
import select
import signal
import time
import warnings

import pytest
from disasters import crash_points, survivors_of_a_crash
from small_runs import fingerprint, fit, make_small

from unetzoo.errors import RunLockedError
from unetzoo.io import Disk
from unetzoo.training import checkpoint
from unetzoo.training.lock import RunLock
from unetzoo.training.schedule import Schedule

pytestmark = pytest.mark.soak
KILLS = 200
STEPS = 16


class Told(Disk):
    """A slow disk that reports when a save begins and when a checkpoint has its final name."""

    def __init__(self, pipe):
        self.pipe = pipe

    def write(self, path, data):
        if path.name == "model.safetensors":
            os.write(self.pipe, b"begun\n")
        time.sleep(0.002)
        return super().write(path, data)

    def rename(self, source, target):
        super().rename(source, target)
        if target.name.startswith("step-"):
            self.named = target.name

    def sync(self, path, descriptor=None):
        super().sync(path, descriptor)
        if path.name == "checkpoints":  # the last thing before older ones are dropped
            os.write(self.pipe, f"{self.named}\n".encode())


def make(out, steps, **more):
    return make_small(out, steps=steps, schedule=Schedule("exponential", gamma=0.99), checkpoint_steps=1, **more)


def life(out, resume, pipe):
    """A process that trains until it is killed."""
    checkpoint.save.__kwdefaults__["disk"] = Told(pipe)
    os.close(2)
    fit(make(out, 10**6), resume=resume)


def test_kills(tmp_path):
    draw, out = random.Random(0), tmp_path / "run"
    finished = within = 0
    for kill in range(KILLS):
        before = checkpoint.found(out / "checkpoints")
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                life(out, bool(before), write)
            finally:
                os._exit(1)
        os.close(write)
        said = wait(read, pid)
        if kill % 2:  # inside a save, however many come before it
            saves = draw.randrange(1, 6)
            while said.count(b"begun") < saves:
                said += wait(read, pid)
            time.sleep(draw.uniform(0.0, 0.012))
        else:
            time.sleep(draw.uniform(0.0, 0.2))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        while rest := os.read(read, 4096):
            said += rest
        os.close(read)
        lines = said.decode().split()
        names = [line for line in lines if line != "begun"]
        within += lines.count("begun") > len(names)
        finished += len(names)
        with RunLock(out):
            pass  # freed
        newest = checkpoint.found(out / "checkpoints")
        known = [place(path.name) for path in before] + [place(name) for name in names]
        assert not known or place(newest[-1].name) >= max(known), f"kill {kill}: a checkpoint was lost"
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # each that has a name is whole
            for path in newest:
                checkpoint.load(path)
    steps = place(newest[-1].name)[0] + 3
    fit(make(out, steps), resume=True)
    assert not list(out.rglob(".tmp-*"))
    fit(make(tmp_path / "whole", steps))
    assert fingerprint(out) == fingerprint(tmp_path / "whole")
    print(f"{KILLS} kills, {within} inside a save, {finished} checkpoints finished, 0 lost; equal after {steps} steps")
    assert within >= KILLS // 3


def place(name):
    """The path of a checkpoint in its run."""
    match = checkpoint.NAME.fullmatch(name)
    return int(match[1]), int(match[2] or 0)


def wait(pipe, pid):
    ready, _, _ = select.select([pipe], [], [], 60)
    assert ready, "the process hangs"
    said = os.read(pipe, 4096)
    assert said, f"the process ended by itself: {os.waitpid(pid, os.WNOHANG)}"
    return said


@pytest.mark.parametrize("crash", crash_points(STEPS))
def test_every_crash_point(tmp_path, crash):
    assert survivors_of_a_crash(tmp_path, *crash)


def test_signals_at_random_steps(tmp_path):
    draw = random.Random(1)
    for trial in range(40):
        out, code = tmp_path / str(trial), draw.choice((signal.SIGTERM, signal.SIGINT))
        pid = os.fork()
        if pid == 0:
            try:
                os.close(2)
                fit(make(out, 10**6))
            except SystemExit as stopped:
                os._exit(stopped.code)
            finally:
                os._exit(1)
        deadline = time.monotonic() + 60
        while not checkpoint.found(out / "checkpoints") and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.3))
        os.kill(pid, code)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 128 + code
        steps = checkpoint.latest(out / "checkpoints").state["steps"] + 2
        if trial % 8 == 0:
            fit(make(out, steps), resume=True)
            fit(make(tmp_path / f"whole-{trial}", steps))
            assert fingerprint(out) == fingerprint(tmp_path / f"whole-{trial}")


def test_one_writer_of_twenty_again_and_again(tmp_path):
    from test_lock import start_together

    for round_ in range(20):
        children = start_together(tmp_path / str(round_), 20)
        outcomes = {pid: os.read(pipe, 10) for pid, pipe in children}
        winners = [pid for pid, outcome in outcomes.items() if outcome == b"won"]
        assert len(winners) == 1 and list(outcomes.values()).count(b"locked") == 19
        os.kill(winners[0], signal.SIGKILL)
        for pid, pipe in children:
            os.waitpid(pid, 0)
            os.close(pipe)
        try:
            with RunLock(tmp_path / str(round_)):
                pass
        except RunLockedError:
            pytest.fail("the dead holder's lock did not free")
