"""Trackers: the real packages, offline; what a run sends, how it goes on, and what happens if one fails."""

import contextlib
import json
import sqlite3
import time

import pytest
from test_trainer import Squares, make

from unetzoo import trackers, training
from unetzoo.errors import ConfigError, UnknownNameError
from unetzoo.trackers import Tracker
from unetzoo.training import Callback

SMALL = ["data.size=32", "data.train.length=4", "data.val.length=2", "train.epochs=1", "train.batch_size=2",
         "model.encoder_channels=[4, 8, 8]"]  # fmt: skip


class Fake(Tracker):
    """Keeps what it is given; `broken` names a method that raises."""

    name, package = "fake", "json"

    def __init__(self, broken=""):
        super().__init__()
        self.broken, self.calls = broken, []

    def _call(self, method, *given):
        self.calls.append((method, *given))
        if method == self.broken:
            raise ConnectionError("no [network]")

    def start(self, trainer, known):
        self._call("start", known, trainer.record.get("model", {}).get("name"))
        return "run-7"

    def scores(self, scores, step):
        self._call("scores", step, sorted(scores))

    def images(self, images, step):
        self._call("images", step, {name: image.shape[2] for name, image in images.items()})

    def message(self, event, text, step):
        self._call("message", event)

    def results(self, folder):
        self._call("results", sorted(p.name for p in folder.iterdir()))

    def stop(self, *, finished):
        self._call("stop", finished)


def fit(callbacks, out, **options):
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    trainer = make(out=out, callbacks=callbacks, record={"model": {"name": "bnunet"}}, **options)
    return trainer.fit(Squares(), Squares(2, seed=1), resume=out.exists())


def test_a_run_sends_its_scores_images_recipe_and_results(tmp_path, monkeypatch):
    fake = Fake()
    monkeypatch.setattr(training.run, "make_callbacks", lambda recipe, key: [fake] if key == "log" else [])
    training.train("demo", SMALL, out=tmp_path / "run", progress=False)
    calls = {call[0]: call[1:] for call in fake.calls if call[0] != "message"}
    assert list(calls) == ["start", "scores", "images", "results", "stop"]
    assert calls["start"] == (None, "dualunet") and calls["stop"] == (True,)
    step, names = calls["scores"]
    assert step == 2 and {"train/loss", "iou/foreground"} <= set(names)
    assert len(calls["images"][1]) == 2 and set(calls["images"][1].values()) == {3}
    assert {"best", "report.html", "curves.png"} <= set(calls["results"][0])
    assert json.loads((tmp_path / "run" / "trackers.json").read_text()) == {"fake": {"run": "run-7", "step": 2}}


def test_a_resumed_run_continues_the_run_of_the_tracker(tmp_path):
    fit(Fake(), tmp_path / "run", epochs=1)
    again = Fake()
    fit(again, tmp_path / "run", epochs=2)
    assert again.calls[0] == ("start", "run-7", "bnunet")
    assert [call[1] for call in again.calls if call[0] == "scores"] == [4]


def test_an_epoch_that_a_resumed_run_repeats_is_not_logged_again(tmp_path):
    class Killed(Callback):
        def on_epoch(self, trainer, row, better):
            if trainer.steps == 4:
                raise KeyboardInterrupt

    first, again = Fake(), Fake()
    with pytest.raises(KeyboardInterrupt):
        fit([first, Killed()], tmp_path / "run", epochs=3)
    fit(again, tmp_path / "run", epochs=3)
    logged = [[call[1] for call in fake.calls if call[0] == "scores"] for fake in (first, again)]
    assert logged == [[2, 4], [6]]


@pytest.mark.parametrize("broken", ["scores", "images", "results", "stop"])
def test_a_tracker_that_raises_is_reported_once_and_training_goes_on(tmp_path, broken):
    fake = Fake(broken)
    assert len(fit(fake, tmp_path / "run", epochs=2)) == 2
    assert [call[0] for call in fake.calls].count(broken) == 1 and fake.calls[-1][0] == "stop"
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events].count("tracker") == 1


def test_a_tracker_that_cannot_start_stops_the_run_before_training(tmp_path):
    fake = Fake("start")
    with pytest.raises(ConfigError) as caught:
        fit(fake, tmp_path / "run", epochs=1)
    assert "no [network]" in str(caught.value) and "log" in caught.value.hint
    assert [call[0] for call in fake.calls] == ["start"]


def test_names_in_recipes(monkeypatch):
    with pytest.raises(UnknownNameError) as caught:
        training.load_recipe("demo", ['train.log=["mlfow"]'])
    assert "mlflow" in caught.value.hint
    with pytest.raises(ConfigError, match="log = "):
        training.load_recipe("demo", ["train.tensorboard=true"])
    monkeypatch.setattr(trackers.base, "find_spec", lambda name: None)
    for kind in (trackers.MLflow, trackers.WandB, trackers.Trackio):
        with pytest.raises(ConfigError) as caught:
            kind()
        assert f"pip install {kind.package}" in caught.value.hint


def test_mlflow(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database needs sqlalchemy
    uri = f"file:{tmp_path / 'store'}"
    for epochs in (1, 2):
        fit(trackers.MLflow(uri, run="one"), tmp_path / "run", epochs=epochs)
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("unetzoo").experiment_id])
    assert run.info.run_name == "one" and run.info.status == "FINISHED"
    assert run.data.params["model.name"] == "bnunet" and "train/loss" in run.data.metrics
    assert [point.step for point in client.get_metric_history(run.info.run_id, "iou/square")] == [2, 4]
    assert {"best", "samples"} <= {file.path for file in client.list_artifacts(run.info.run_id)}


def test_wandb(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    fit(trackers.WandB(mode="offline"), tmp_path / "run", epochs=1)
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    (file,) = folder.glob("*.wandb")
    for _ in range(50):  # its service may still be writing
        if b"iou/square" in file.read_bytes():
            break
        time.sleep(0.2)
    assert b"iou/square" in file.read_bytes() and list((folder / "files" / "media" / "images").rglob("*.png"))
    assert folder.name.endswith(json.loads((tmp_path / "run" / "trackers.json").read_text())["wandb"]["run"])


def test_trackio(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    fit(trackers.Trackio(), tmp_path / "run", epochs=1)
    (store,) = (tmp_path / "trackio").rglob("*.db")
    with contextlib.closing(sqlite3.connect(store)) as rows:
        assert "iou/square" in str(rows.execute("select metrics from metrics").fetchall())
    assert not capsys.readouterr().out
