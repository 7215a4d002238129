"""Starts a script in one or several processes that find each other by gloo."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ENV = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (HERE, HERE.parent))), "OMP_NUM_THREADS": "1"}


def start(command, folder, processes=1):
    """The started processes; their stderr goes to `folder/stderr-<rank>`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for rank in range(processes):
        env = {**ENV, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        with open(folder / f"stderr-{rank}", "wb") as stderr:
            started.append(subprocess.Popen(command, env=env if processes > 1 else ENV, stderr=stderr))
    return started


def wait_for(condition, folder, started, seconds=200):
    """Wait until something holds, as long as the processes live."""
    deadline = time.monotonic() + seconds
    while not condition():
        dead = [rank for rank, process in enumerate(started) if process.poll() is not None]
        assert not dead, (folder / f"stderr-{dead[0]}").read_text()[-3000:]
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.02)


def run_scenarios(folder, names, processes, most=0):
    """The findings of each process."""
    (folder / "scenarios").write_text(" ".join(names))
    (folder / "most").write_text(str(most))
    started = start([sys.executable, str(HERE / "scenarios.py"), str(folder)], folder, processes)
    codes = [process.wait(300) for process in started]
    assert codes == [0] * processes, (folder / f"stderr-{codes.index(max(codes))}").read_text()[-3000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(processes)]
