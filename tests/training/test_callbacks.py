"""What accompanies a run: called at the right moments, by the right processes, from Python and from recipes."""

import json
import math

import pytest
import torch
from small_runs import At, Augmented, fit, make_small
from test_trainer import Squares, make

from unetzoo import training
from unetzoo.errors import PluginContractError, UnknownKeywordError, UnknownNameError
from unetzoo.registry import CALLBACKS
from unetzoo.training import Callback, checkpoint, load_recipe
from unetzoo.training.callbacks import CollapseMonitor

SMALL = ["data.size=32", "data.train.length=4", "data.val.length=2", "train.epochs=1", "train.batch_size=2",
         "model.encoder_channels=[4, 8, 8]"]  # fmt: skip


class Notes(Callback):
    def __init__(self):
        self.calls = []

    def on_begin(self, trainer):
        self.calls.append(("begin", trainer.steps))

    def on_step(self, trainer, samples):
        self.calls.append(("step", trainer.steps, samples))

    def on_evaluate(self, trainer, output, batch):
        self.calls.append(("evaluate", len(batch["image"])))

    def on_epoch(self, trainer, row, better):
        self.calls.append(("epoch", int(row["epoch"]), better, trainer.ended))

    def on_message(self, trainer, event, text):
        self.calls.append(("message", event))

    def on_end(self, trainer):
        self.calls.append(("end", trainer.finished))


def test_they_are_called_at_their_moments():
    notes = Notes()
    trainer = make_small(epochs=2, accumulate=1, batch_size=2, callbacks=[notes], monitor="train/loss", mode="max")
    trainer.evaluator.scores = lambda net, data, seen, split: seen(None, {"image": [0, 0]}) or {"miou": 0.5}
    trainer.callbacks.all = [
        callback for callback in trainer.callbacks.all if not isinstance(callback, CollapseMonitor)
    ]
    trainer.fit(Augmented(4), Augmented(2))
    first, second = [("step", 1, 2), ("step", 2, 2)], [("step", 3, 2), ("step", 4, 2)]
    better = [call for call in notes.calls if call[0] == "epoch"]
    assert notes.calls == [
        ("begin", 0), *first, ("evaluate", 2), better[0], *second, ("evaluate", 2), better[1], ("end", True)
    ]  # fmt: skip
    assert [call[1] for call in better] == [1, 2] and [call[3] for call in better] == [False, True]
    assert better[0][2] is True


def test_the_end_is_called_after_an_error_and_a_resumed_run_begins_at_its_step(tmp_path):
    def crash(batch):
        raise RuntimeError("odd")

    notes = Notes()
    with pytest.raises(RuntimeError):
        fit(make_small(tmp_path, checkpoint_steps=1, batch_transform=At(8, crash), callbacks=[notes]))
    assert notes.calls[-1] == ("end", False)
    steps = checkpoint.latest(tmp_path / "checkpoints").state["steps"]
    again = Notes()
    fit(make_small(tmp_path, checkpoint_steps=1, callbacks=[again]), resume=True)
    assert again.calls[0] == ("begin", steps) and again.calls[-1] == ("end", True)


def test_one_that_logs_changes_nothing():
    def weights(callbacks):
        trainer = make_small(epochs=1, callbacks=callbacks)
        fit(trainer)
        return trainer.net.state_dict()

    plain, logged = weights([]), weights([Notes()])
    assert all(torch.equal(plain[name], logged[name]) for name in plain)


def test_the_mean_loss_is_that_of_the_epoch_so_far():
    seen = []

    class Losses(Callback):
        def on_step(self, trainer, samples):
            seen.append(trainer.mean_loss())

    trainer = make(epochs=1, callbacks=[Losses()])
    row = trainer.fit(Squares(8))[0]
    assert seen[-1] == pytest.approx(row["train/loss"]) and math.isfinite(seen[0])


def test_a_recipe_names_them(tmp_path, install):
    code = """
from pathlib import Path
from unetzoo.registry import CALLBACKS
from unetzoo.training import Callback

class Touch(Callback):
    def __init__(self, name: str = "touched"):
        self.name = name

    def on_end(self, trainer):
        Path(trainer.out, self.name).touch()

def make(name: str = "touched"):
    return Touch(name)

def number(name: str = ""):
    return 3
"""
    install("touch-dist", [], code)
    points = tmp_path / "touch_dist-1.2.dist-info" / "entry_points.txt"
    points.write_text("[unetzoo.callbacks]\ntouch = touch_dist:make\nthree = touch_dist:number\n")
    CALLBACKS.refresh()
    sets = [*SMALL, 'train.callbacks=["touch", {name="touch", name_="x"}]']
    with pytest.raises(UnknownKeywordError):
        load_recipe("demo", sets)
    with pytest.raises(UnknownNameError) as caught:
        load_recipe("demo", ['train.callbacks=["touhc"]'])
    assert "touch" in caught.value.hint
    run = training.train("demo", [*SMALL, 'train.callbacks=["touch"]'], out=tmp_path / "run", progress=False)
    assert (run.out / "touched").exists()
    assert json.loads((run.out / "recipe.json").read_text())["train"]["callbacks"] == ["touch"]
    with pytest.raises(PluginContractError):
        training.train("demo", [*SMALL, 'train.callbacks=["three"]'], out=tmp_path / "three", progress=False)
    assert "tensorboard" in CALLBACKS.names()
