"""A stopped and resumed run equals an uninterrupted one, bit by bit."""

import os
import signal
import time

import pytest
import torch
from refusals import refused
from small_runs import At, Augmented, Small, fingerprint, fit, make_small
from test_trainer import Squares

from unetzoo.errors import CheckpointMismatchError, ConfigError
from unetzoo.training import Trainer
from unetzoo.training.checkpoint import RunFolder
from unetzoo.training.schedule import Schedule


class CrashError(Exception):
    """Simulates a power cut."""


def crash(batch):
    raise CrashError


def stop(batch):
    os.kill(os.getpid(), signal.SIGTERM)


# batches of an epoch: 5, optimizer steps: 3; the rehearsal takes the first
CONFIGS = {
    "mid-epoch": {"at": 8},
    "first step": {"at": 4},
    "epoch edge": {"at": 12},
    "workers": {"at": 9, "workers": 2},
    "edge, workers": {"at": 12, "workers": 2},
    "sgd, plateau": {"at": 8, "optimizer": "sgd", "options": {"momentum": 0.9}, "schedule": ["plateau"]},
    "multistep": {"at": 13, "optimizer": "rmsprop", "schedule": ["multistep", {"milestones": [1, 2]}]},
    "onecycle": {"at": 8, "schedule": ["onecycle"]},
    "channels_last, bf16": {"at": 8, "channels_last": True, "precision": "bf16"},
    "steps": {"at": 14, "steps": 8},
}


CASES = [*((name, stop) for name in CONFIGS), ("mid-epoch", crash), ("epoch edge", crash)]


@pytest.mark.parametrize(("name", "action"), CASES, ids=[f"{name} {action.__name__}" for name, action in CASES])
def test_a_resumed_run_is_bit_identical(tmp_path, name, action):
    config = dict(CONFIGS[name])
    at, schedule = config.pop("at"), config.pop("schedule", None)

    def make(out, batch_transform):
        made = schedule and Schedule(schedule[0], warmup=2, **(schedule[1] if len(schedule) > 1 else {}))
        return make_small(tmp_path / out, **config, schedule=made, checkpoint_steps=1, batch_transform=batch_transform)

    whole = make("whole", lambda batch: batch)
    fit(whole)
    with pytest.raises((CrashError, SystemExit)) as stopped:
        fit(make("parts", At(at, action)))
    assert action is crash or stopped.value.code == 143
    torch.rand(7)  # another process, another stream
    resumed = make("parts", lambda batch: batch)
    fit(resumed, resume=True)
    assert fingerprint(tmp_path / "parts") == fingerprint(tmp_path / "whole")
    assert resumed.steps == whole.steps > 0


def test_rows_after_the_checkpoint_are_cut(tmp_path):
    trainer = make_small(tmp_path, epochs=5, checkpoint_epochs=2, batch_transform=At(1 + 3 * 5 + 2, crash))
    with pytest.raises(CrashError):
        fit(trainer)
    log = tmp_path / "metrics.jsonl"
    assert len(log.read_text().splitlines()) == 3  # the checkpoint holds two epochs
    seen = []
    resumed = make_small(tmp_path, epochs=5, checkpoint_epochs=2, batch_transform=lambda b: seen.append(1) or b)
    fit(resumed, resume=True)
    assert len(log.read_text().splitlines()) == 5
    assert len(seen) == 1 + 3 * 5


def test_checkpoints_that_take_long_are_written_less_often(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(RunFolder, "save", lambda self, step, content: written.append(step) or time.sleep(0.2))
    fit(make_small(tmp_path / "default", epochs=3, checkpoint_epochs=None))
    assert written == [3, 9]
    fit(make_small(tmp_path / "every", epochs=3, checkpoint_epochs=1))
    assert written == [3, 9, 3, 6, 9]


def test_a_longer_run_resumes_and_a_shorter_one_is_refused(tmp_path):
    fit(make_small(tmp_path / "a", steps=4))
    fit(make_small(tmp_path / "a", steps=7), resume=True)
    rows = [line for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert [row.partition(",")[0] for row in rows] == ['{"epoch": 1.0', '{"epoch": 2.0', '{"epoch": 3.0']
    with pytest.raises(CheckpointMismatchError, match="longer"):
        fit(make_small(tmp_path / "a", steps=3), resume=True)


def test_a_longer_cosine_takes_the_rates_of_its_new_length(tmp_path):
    fit(make_small(tmp_path, epochs=2))
    longer = make_small(tmp_path, epochs=4)
    fit(longer, resume=True)
    other = make_small(epochs=4)
    rates = [row["lr"] for row in fit(other)]
    assert [row["lr"] for row in longer.history[2:]] == pytest.approx(rates[2:])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"batch_size": 4}, r"train\.batch_size: 2 → 4"),
        ({"accumulate": 1}, r"train\.accumulate: 2 → 1"),
        ({"seed": 1}, r"train\.seed: 0 → 1"),
        ({"ema": None}, r"train\.ema: 0\.9 → nothing"),
        ({"precision": "bf16"}, r'train\.precision: "auto" → "bf16"'),
        ({"optimizer": "adam"}, 'optimizer: "AdamW" → "Adam"'),
        ({"drop_last": True}, r"train\.drop_last: false → true"),
        ({"schedule": Schedule("step", step_size=1)}, 'scheduler: "CosineAnnealingLR" → "StepLR"'),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_differing_settings_are_named(tmp_path, change, says):
    fit(make_small(tmp_path, epochs=1))
    other = make_small(tmp_path, epochs=2, **change)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    with pytest.raises(CheckpointMismatchError, match=says):
        fit(other, resume=True)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before  # nothing was written


def test_other_data_and_another_network_are_refused(tmp_path):
    fit(make_small(tmp_path, epochs=1))
    with refused(CheckpointMismatchError, found="samples: 10 → 12"):
        fit(make_small(tmp_path, epochs=2), resume=True, length=12)
    with pytest.raises(CheckpointMismatchError, match="another network"):
        fit(make_small(tmp_path, net=Small(width=5), epochs=2), resume=True)


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    fit(make_small(tmp_path, epochs=1))
    with pytest.raises(ConfigError, match="holds a run"):
        fit(make_small(tmp_path, epochs=1))


def test_a_resumed_run_that_is_done_trains_no_step(tmp_path):
    fit(make_small(tmp_path))
    done = make_small(tmp_path)
    before = fingerprint(tmp_path)
    assert len(fit(done, resume=True)) == 3
    assert fingerprint(tmp_path) == before


def test_the_loss_of_a_run_has_its_parameters_in_the_checkpoint(tmp_path):
    class Learned(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.log_variance = torch.nn.Parameter(torch.zeros(()))

        def forward(self, output, target, *, weight=None):
            return torch.nn.functional.cross_entropy(output, target) * (-self.log_variance).exp() + self.log_variance

    def trainer(out, transform=lambda batch: batch):
        torch.manual_seed(0)
        return Trainer(
            Small(), Learned(), epochs=2, batch_size=4, out=tmp_path / out, batch_transform=transform, progress=False
        )

    whole = trainer("whole")
    whole.fit(Augmented())
    assert whole.loss.log_variance.item() != 0
    with pytest.raises(SystemExit):
        trainer("parts", At(3, stop)).fit(Augmented())
    resumed = trainer("parts")
    resumed.fit(Augmented(), resume=True)
    assert torch.equal(resumed.loss.log_variance, whole.loss.log_variance)
    assert fingerprint(tmp_path / "parts") == fingerprint(tmp_path / "whole")
    with pytest.raises(ConfigError, match="the loss has parameters"):
        net = Small()
        Trainer(net, Learned(), optimizer=torch.optim.SGD(net.parameters(), 0.1))


def test_same_seed_same_run_three_times():
    def run():
        trainer = make_small(epochs=1)
        trainer.fit(Squares(8, 16))
        return {k: v.clone() for k, v in trainer.net.state_dict().items()}

    first, *others = run(), run(), run()
    assert all(torch.equal(first[k], other[k]) for other in others for k in first)
