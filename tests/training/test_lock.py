"""One run folder, one writer."""

import os
import signal
import subprocess
import sys
import time

import pytest

from unetzoo.errors import ConfigError, RunLockedError
from unetzoo.training.lock import RunLock


def start_together(folder, count):
    """Fork processes that try at the same moment; gives (pid, outcome pipe)."""
    go_read, go_write = os.pipe()
    children = []
    for _ in range(count):
        out_read, out_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(go_write)
            os.read(go_read, 1)  # returns for all when the parent closes the other end
            try:
                with RunLock(folder):
                    os.write(out_write, b"won")
                    time.sleep(60)
            except RunLockedError:
                os.write(out_write, b"locked")
            os._exit(0)
        os.close(out_write)
        children.append((pid, out_read))
    os.close(go_write)
    os.close(go_read)
    return children


def test_of_twenty_that_start_together_one_wins(tmp_path):
    children = start_together(tmp_path, 20)
    outcomes = {pid: os.read(pipe, 10) for pid, pipe in children}
    assert sorted(outcomes.values()) == [b"locked"] * 19 + [b"won"]
    (winner,) = [pid for pid, outcome in outcomes.items() if outcome == b"won"]
    with pytest.raises(RunLockedError, match="another process") as caught, RunLock(tmp_path):
        pass
    assert caught.value.exit_code == 75
    os.kill(winner, signal.SIGKILL)
    for pid, pipe in children:
        os.waitpid(pid, 0)
        os.close(pipe)
    with RunLock(tmp_path):  # the dead hold nothing
        pass


def test_a_process_may_hold_its_own_folder_twice(tmp_path):
    with RunLock(tmp_path), RunLock(tmp_path):
        pass
    with RunLock(tmp_path):
        pass


def test_a_child_that_outlives_the_holder_does_not_hold_the_lock(tmp_path):
    """Loader workers are forked while the lock is held."""
    script = (
        "import os, sys, time, pathlib\n"
        "from unetzoo.training.lock import RunLock\n"
        "with RunLock(pathlib.Path(sys.argv[1])):\n"
        "    if os.fork() == 0:\n"
        "        time.sleep(20); os._exit(0)\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "ready\n"
        with pytest.raises(RunLockedError), RunLock(tmp_path):
            pass
        holder.kill()
        holder.wait()
        with RunLock(tmp_path):
            pass


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot make the run folder"):
        RunLock(tmp_path / "file" / "run")
