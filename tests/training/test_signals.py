"""Signals: a checkpoint at the next step's edge, then 143 or 130; the second one ends everything at once."""

import os
import signal
import sys
import time

import pytest
from launch import start, wait_for
from small_runs import At, Augmented, fingerprint, fit, make_small

from unetzoo.training import checkpoint


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_at_a_steps_edge(tmp_path, number, code):
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    trainer = make_small(tmp_path, batch_transform=At(6, lambda batch: os.kill(os.getpid(), number)))
    with pytest.raises(SystemExit) as stopped:
        fit(trainer)
    assert stopped.value.code == code
    (only,) = checkpoint.found(tmp_path / "checkpoints")
    assert checkpoint.load(only).state["steps"] == trainer.steps
    assert {n: signal.getsignal(n) for n in before} == before


def test_a_signal_during_evaluation_does_not_wait_for_its_end(tmp_path):
    class Slow(Augmented):
        left = 3  # the rehearsal takes the first

        def __getitem__(self, index):
            Slow.left -= 1
            if Slow.left == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            assert Slow.left > -3, "the evaluation went on"
            return super().__getitem__(index)

    fit(make_small(tmp_path / "whole", epochs=1))
    with pytest.raises(SystemExit):
        make_small(tmp_path / "parts", epochs=1).fit(Augmented(), Slow(4, seed=1))
    fit(make_small(tmp_path / "parts", epochs=1), resume=True)
    assert fingerprint(tmp_path / "parts") == fingerprint(tmp_path / "whole")


def test_without_a_run_folder_signals_are_the_callers():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs inherit an ignored SIGINT
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(make_small(batch_transform=At(3, lambda batch: os.kill(os.getpid(), signal.SIGINT))))
    finally:
        signal.signal(signal.SIGINT, before)


SCRIPT = """
import sys, time, pathlib
from small_runs import make_small, fit
folder, seconds = pathlib.Path(sys.argv[1]), float(sys.argv[2])
def slow(batch):
    (folder / f"started-{trainer.accelerator.process_index}").touch()
    time.sleep(seconds)
    return batch
trainer = make_small(folder / "run", epochs=1000, batch_transform=slow)
fit(trainer)
"""


def launch(folder, seconds, processes=1):
    script = folder / "script.py"
    script.write_text(SCRIPT)
    started = start([sys.executable, str(script), str(folder), str(seconds)], folder, processes)
    wait_for(lambda: len(list(folder.glob("started-*"))) == processes, folder, started)
    return started


def test_two_processes_stop_at_the_same_step_though_one_heard(tmp_path):
    processes = launch(tmp_path, 0.02, processes=2)
    processes[1].send_signal(signal.SIGTERM)
    assert [process.wait(120) for process in processes] == [143, 143], (tmp_path / "stderr-0").read_text()[-2000:]
    state = checkpoint.latest(tmp_path / "run" / "checkpoints").state
    assert state["steps"] >= 1 and len(state["processes"]) == 2


def test_the_second_signal_ends_the_process_at_once(tmp_path):
    (process,) = launch(tmp_path, 3600.0)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None  # the step is not at its edge yet
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 143
    assert not checkpoint.found(tmp_path / "run" / "checkpoints")


def test_loader_workers_outlive_a_signal_to_their_group_and_end_with_the_run(tmp_path):
    import multiprocessing

    children = []

    def group(batch):
        children.extend(multiprocessing.active_children())
        assert len(children) >= 2
        for child in children:
            os.kill(child.pid, signal.SIGTERM)
            os.kill(child.pid, signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)

    trainer = make_small(tmp_path, workers=2, batch_transform=At(3, group))
    with pytest.raises(SystemExit) as stopped:
        fit(trainer)
    assert stopped.value.code == 143 and trainer.steps >= 1
    for child in children:
        child.join(60)
    assert not any(child.is_alive() for child in children)
    trainer.evaluate(Augmented(4))
    assert not multiprocessing.active_children()
