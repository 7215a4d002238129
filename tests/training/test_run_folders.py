"""Run folders: damaged recipes, refused starts, and interruption by a signal."""

import shutil
import warnings
from pathlib import Path

import pytest
from small_runs import At, fit, make_small

from unetzoo.errors import CheckpointCorruptError, ConfigError, UnetzooError
from unetzoo.report.runs import read_run
from unetzoo.training import load_recipe, load_run, train
from unetzoo.training.baseline import baseline_scores
from unetzoo.training.recipe import saved_recipe
from unetzoo.training.run import make_dataset, make_metrics

SETS = ["data.size=32", "data.train.length=4", "data.val.length=2", "train.batch_size=2",
        "model.encoder_channels=[4, 8, 8]"]  # fmt: skip


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


DAMAGED = {"empty": b"", "half": b"{", "list": b"[1]", "text": b'"x"', "nested": b"[" * 99999, "flip": None}


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    sets = [*SETS, "train.epochs=1"]
    return train("demo", sets, out=tmp_path_factory.mktemp("finished") / "run", progress=False).out


def copied(run, folder):
    return Path(shutil.copytree(run, folder / "run"))


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_recipe_is_taken_from_the_checkpoint(finished_run, tmp_path, damage):
    content, run = DAMAGED[damage], copied(finished_run, tmp_path)
    path = run / "recipe.json"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"epochs": 1', b'"epochs": 3') if content is None else content)
    with pytest.warns(UserWarning, match="checkpoint"):
        assert load_recipe(run).train.epochs == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert load_run(run).labels is not None
        assert read_run(run).planned == 1
        if damage == "half":
            assert train(run, resume=True, progress=False).out == run
            assert path.read_bytes() == whole  # written again
    for file in (run / "checkpoints").rglob("*"):
        file.is_file() and file.unlink()
    path.write_bytes(content or whole[:-3] + b"  }")
    with pytest.raises((CheckpointCorruptError, ConfigError)):
        saved_recipe(run)


def test_a_start_that_changes_nothing_writes_no_run_file(finished_run, tmp_path):
    run = copied(finished_run, tmp_path)
    names = ("recipe.json", "labels.json", "environment.json", "manifest.json")
    before = {name: (run / name).stat().st_mtime_ns for name in names}
    train(run, resume=True, progress=False)
    assert {name: (run / name).stat().st_mtime_ns for name in names} == before


def test_a_refused_start_leaves_no_folder(tmp_path):
    with pytest.raises(UnetzooError):
        train("demo", [*SETS, "train.monitor=nothing"], out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_signal_reports_the_checkpoint_and_how_to_resume(tmp_path, capsys):
    import os
    import signal

    stop = At(6, lambda batch: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(SystemExit):
        fit(make_small(tmp_path, batch_transform=stop, progress=True))
    assert "resume=True" in capsys.readouterr().err


def test_a_baseline_is_scored_by_metrics_that_need_logits():
    small = ["data.size=32", "data.length=3"]
    recipes = [load_recipe("demo", [*small, *more]) for more in
               ([], ['metrics.mask=[{name="segmentation"}, {name="sweep"}]'])]  # fmt: skip
    data = make_dataset(recipes[0], "val", progress=False)
    plain, swept = (baseline_scores(data, make_metrics(recipe, data.labels)["mask"], 1) for recipe in recipes)
    assert plain["miou"] == swept["miou"] and swept["best_f1"] == pytest.approx(plain["f1/foreground"])
