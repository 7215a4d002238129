"""Predictions that are the same everywhere: reported once, with the causes, and never for a healthy run."""

import io
import json
import math

import numpy as np
import pytest
import torch
from conftest import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from test_trainer import Squares, make
from torch import nn

from unetzoo import LOSSES, METRICS
from unetzoo.training import collapse
from unetzoo.training.collapse import Circumstances, Collapse, CollapseTracker, Spread, causes, class_collapse

ROAD = Collapse("'road'", 0.9)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.lists(st.integers(0, 3000), min_size=4, max_size=4), min_size=4, max_size=4), st.integers(0, 3))
def test_a_single_class_is_recognized_from_predicted_pixels(rows, dominant):
    counts = np.array(rows)
    counts[:, [c for c in range(4) if c != dominant]] //= 500
    found = class_collapse(torch.from_numpy(counts), "abcd")
    predicted, true = counts.sum(0), counts.sum(1)
    most = int(predicted.argmax())
    others = counts.sum() - true[most]
    if others and (counts.sum() - predicted[most]) / others < 0.005:
        assert found == Collapse(repr("abcd"[most]), true[most] / counts.sum())
    else:
        assert found is None


def test_useful_predictions_are_no_collapse():
    assert class_collapse(torch.zeros(3, 3, dtype=torch.int64), "abc") is None  # nothing was counted
    assert class_collapse(torch.tensor([[50, 0], [0, 0]]), "ab") is None  # the truth has a single class
    rare = torch.tensor([[9990, 0], [9, 1]])  # one pixel in a thousand, a tenth of them found
    assert class_collapse(rare, "ab") is None
    assert class_collapse(torch.tensor([[9990, 0], [10, 0]]), "ab") == Collapse("'a'", 0.999)


def test_labels_that_are_never_or_always_given():
    never = torch.tensor([[[90, 0], [10, 0]], [[80, 0], [20, 0]]])
    found = class_collapse(never, ("x", "y"))
    assert found is not None and found.what == "no label at all"
    found = class_collapse(never.flip(2), ("x", "y"))
    assert found is not None and found.what == "every label" and found.share == pytest.approx(0.15)
    assert class_collapse(torch.tensor([[[90, 0], [10, 0]], [[80, 0], [0, 20]]]), ("x", "y")) is None


@pytest.mark.parametrize("noise", [0.0, 0.002, 0.02])
def test_one_value_by_its_spread_against_numpy(noise):
    rng = np.random.default_rng(0)
    true = rng.random((3, 1, 5, 7)).astype(np.float32)
    predicted = (0.5 + noise * rng.standard_normal(true.shape)).astype(np.float32)
    valid = rng.random((3, 5, 7)) > 0.3
    true[0, 0][~valid[0]] = np.nan
    batches = zip(*(torch.from_numpy(a).split(2) for a in (predicted, true, valid)), strict=True)
    spread = sum((Spread.of(*batch) for batch in batches), Spread(torch.zeros(5, dtype=torch.float64)))
    kept = valid[:, None]
    ratio = predicted[kept].astype(float).std() / true[kept].astype(float).std()
    assert (spread.collapse() is not None) == (ratio < 0.01)
    count, total, square, *_ = spread.sums.tolist()
    assert count == kept.sum() and math.sqrt(square / count - (total / count) ** 2) == pytest.approx(
        predicted[kept].astype(float).std(), abs=1e-9
    )


def test_a_constant_truth_is_no_collapse():
    same = torch.full((1, 1, 4, 4), 0.5)
    assert Spread.of(same, same).collapse() is None
    assert Spread.of(same, same, torch.zeros(1, 4, 4)).collapse() is None


def test_it_warns_once_per_change_and_not_while_batch_norm_warms_up():
    follower = CollapseTracker()
    assert follower.changes({"mask": ROAD}, 10) == {}
    assert follower.changes({"mask": ROAD}, 20) == {}  # twice in a row, but too early
    assert follower.changes({"mask": ROAD}, collapse.STEPS) == {"mask": ROAD}
    assert follower.changes({"mask": ROAD}, 200) == {}
    car = Collapse("'car'", 0.1)
    assert follower.changes({"mask": car}, 300) == {}
    assert follower.changes({"mask": car}, 400) == {"mask": car}
    assert follower.changes({"mask": None}, 500) == {"mask": None}
    assert follower.changes({"mask": None}, 600) == {}
    assert follower.changes({"mask": ROAD}, 700) == {}  # a single evaluation may be chance
    assert follower.changes({"mask": None}, 800) == {}
    assert CollapseTracker().changes({"mask": ROAD}, 10, last=True) == {"mask": ROAD}  # there will be no second one
    values = [Collapse("0.51"), Collapse("0.52"), Collapse("0.53")]
    follower = CollapseTracker()
    assert [len(follower.changes({"depth": value}, 500)) for value in values] == [0, 1, 0]  # the value may wander


def at(**changed):
    return Circumstances(**{"rate": 0.01, "steps": 1000, "mean": 0.4, "deviation": 0.25, "run": "runs/x"} | changed)


def test_the_most_likely_cause_comes_first():
    assert causes(ROAD, at())[0].startswith("class imbalance ('road' is 90.0 % of the true pixels)")
    even = Collapse("'road'", 0.4)
    assert causes(even, at(steps=20))[0].startswith("the learning rate (0.01): --set optimizer.lr=0.001")
    assert causes(even, at(mean=117.0, deviation=60.0))[0].startswith("images that are not normalized (here mean 117")
    assert causes(Collapse("'car'", 0.0), at())[0].endswith("unetzoo doctor runs/x")
    assert len(causes(even, at())) == 4
    assert not any("imbalance" in cause for cause in causes(Collapse("0.5"), at()))


def test_the_advice_exists():
    text = causes(ROAD, at())[0]
    for loss in ("dice", "jaccard", "lovasz", "focal", "ce"):
        assert loss in text and loss in LOSSES.names()
    LOSSES.build("ce", class_weights=[1.0, 2.0])
    from unetzoo.datasets import Transform

    Transform(normalize="standard")


class Specks(Squares):
    """Noise, and a mask of one pixel in a thousand that no network can know of."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        sample["image"] = sample["image"] - sample["mask"]
        sample["mask"] = torch.zeros_like(sample["mask"])
        sample["mask"][index % 32, index // 32] = 1
        return sample


def events(folder):
    path = folder / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_collapsed_run_on_rare_pixels_names_the_cause(tmp_path):
    net = tiny("bnunet", in_channels=1, classes=2, encoder_channels=(4, 4, 4))
    trainer = make(net, out=tmp_path, epochs=4, batch_size=1, optimizer=torch.optim.Adam(net.parameters(), 1e-2))
    text = io.StringIO()
    trainer.callbacks.all[0].console = Console(file=text, width=80)
    trainer.fit(Specks(40), Specks(4, seed=1))
    (event,) = events(tmp_path)
    assert (event["event"], event["head"], event["state"]) == ("collapse", "mask", "'background'")
    assert event["epoch"] == 3 and event["step"] == 120  # the first after 100 steps
    assert "to one class: 'background'" in event["said"] and "99.90 %" in event["said"]
    assert "imbalance" in event["causes"][0]
    assert text.getvalue().count("have collapsed") == 1 and text.getvalue().count("likely cause: ") == 4


def test_healthy_runs_raise_no_alarm_even_in_their_first_epochs(tmp_path):
    for place, (epochs, size) in enumerate([(28, 4), (3, 40)]):  # many short ones, few long ones
        history = make(out=tmp_path / str(place), epochs=epochs, batch_size=1, checkpoint_epochs=99).fit(
            Squares(size), Squares(4, seed=1)
        )
        assert epochs * size > collapse.STEPS
        assert history[-1]["miou"] > 0.8
        assert events(tmp_path / str(place)) == []


class Scripted(nn.Module):
    """Predicts class 0 everywhere in the evaluations of these epochs, and the truth of `Squares` in the others."""

    def __init__(self, collapsed):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.collapsed, self.evaluations = collapsed, 0

    def train(self, mode=True):
        self.evaluations += self.training and not mode
        return super().train(mode)

    def forward(self, images):
        square = (images > 1) * 2.0 - 1
        if not self.training and self.evaluations - 1 in self.collapsed:  # the first is the rehearsal's
            square = torch.full_like(square, -1)
        return torch.cat([-square, square], 1) * self.scale


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(collapse, "STEPS", 0)


def fit(folder, collapsed, epochs, resume=False):
    net = Scripted(collapsed)
    trainer = make(net, out=folder, epochs=epochs, optimizer=torch.optim.SGD(net.parameters(), 1e-3))
    trainer.fit(Squares(4), Squares(2, seed=1), resume=resume)
    return [(event["event"], event["epoch"]) for event in events(folder)]


def test_collapse_and_recovery(tmp_path, at_once):
    said = fit(tmp_path, collapsed={2, 3, 4, 6}, epochs=7)
    assert said == [("collapse", 3), ("recovered", 5)]


def test_a_collapse_in_the_last_epoch_is_reported(tmp_path, at_once):
    assert fit(tmp_path, collapsed={3}, epochs=3) == [("collapse", 3)]


def test_a_resumed_run_does_not_repeat_the_warning(tmp_path, at_once):
    everywhere = set(range(20))
    assert fit(tmp_path, everywhere, epochs=3) == [("collapse", 2)]
    assert fit(tmp_path, everywhere, epochs=5, resume=True) == [("collapse", 2)]
    assert fit(tmp_path, set(), epochs=6, resume=True) == [("collapse", 2), ("recovered", 6)]


def test_a_depth_that_is_the_same_everywhere(tmp_path, at_once):
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.level = nn.Parameter(torch.tensor(0.4))

        def forward(self, images):
            from unetzoo.models import MaskDepth

            return MaskDepth((images > 1) * 8.0 - 4 + 0 * self.level, self.level.expand_as(images))

    net = Flat()
    metrics = {"mask": METRICS.build("segmentation", labels=Squares.labels), "depth": METRICS.build("depth")}
    loss = LOSSES.build("multitask", heads={"mask": {"bce": 1.0}, "depth": {"l1": 1.0}})
    trainer = make(net, loss, metrics, out=tmp_path, epochs=3, optimizer=torch.optim.SGD(net.parameters(), 1e-3))
    trainer.fit(Squares(4), Squares(2, seed=1))
    (event,) = events(tmp_path)
    assert event["head"] == "depth" and "the predicted depth has collapsed to one value, 0.39" in event["said"]


def test_without_validation_data_there_is_no_warning(tmp_path, at_once):
    make(out=tmp_path).fit(Squares())
    assert events(tmp_path) == []
