"""Resume at every batch of a run, in every configuration; counts of 1…50 samples over 1…4 processes."""

import json

import pytest
import scenarios
from launch import run_scenarios
from small_runs import At, fingerprint, fit, make_small
from test_resume import CONFIGS, CrashError, crash, stop

from unetzoo.training.schedule import Schedule

pytestmark = pytest.mark.soak


@pytest.mark.parametrize("name", CONFIGS)
def test_resume_from_every_batch(tmp_path, name):
    config = {key: value for key, value in CONFIGS[name].items() if key != "at"}
    schedule = config.pop("schedule", None)

    def make(out, batch_transform=lambda batch: batch):
        made = schedule and Schedule(schedule[0], warmup=2, **(schedule[1] if len(schedule) > 1 else {}))
        return make_small(tmp_path / out, **config, schedule=made, checkpoint_steps=1, batch_transform=batch_transform)

    fit(make("whole"))
    expected = fingerprint(tmp_path / "whole")
    batches = 14 if "steps" in config else 15
    for at in range(4, 2 + batches):  # the rehearsal takes the first; before the fourth nothing is saved
        for action in (crash, stop):
            out = f"{action.__name__}-{at}"
            try:
                fit(make(out, At(at, action)))
            except (CrashError, SystemExit):
                fit(make(out), resume=True)
            assert fingerprint(tmp_path / out) == expected, out


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_counts_over_processes(tmp_path, processes):
    shares = run_scenarios(tmp_path, ["counts"], processes, most=50)
    alone = json.loads(json.dumps(scenarios.counts(tmp_path)))
    assert all(share["counts"] == alone for share in shares)


@pytest.mark.parametrize("processes", [2, 3])
def test_interrupted_and_poisoned_over_processes(tmp_path, processes):
    shares = run_scenarios(tmp_path, ["poisoned", "interrupted"], processes)
    assert all(share["poisoned"] == shares[0]["poisoned"] and share["poisoned"]["bad"] == [] for share in shares)
    assert fingerprint(tmp_path / "parts") == fingerprint(tmp_path / "whole")
