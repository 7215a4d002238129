"""`unetzoo plan DATA`, `unetzoo train DATA`, and the meaning of a source on the command line."""

import json

import pytest
from planned import LAPTOP, draw

from unetzoo import cli, planning
from unetzoo.cli.sources import kind_of
from unetzoo.errors import ConfigError, DataError, UnknownNameError
from unetzoo.training.recipe import load


def run(*args, code=0):
    with pytest.raises(SystemExit) as ended:
        cli.main([str(arg) for arg in args])
    assert (ended.value.code or 0) == code


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(planning.machine, "SIDES", (16, 32))
    return tmp_path


def test_plan_prints_a_recipe_or_writes_it(place, capsys):
    draw(place / "cells", size=(64, 64))
    (place / "timing.json").write_text(json.dumps(LAPTOP.to_dict()))
    run("plan", "cells", "--minutes", 2, "--timing", "timing.json", "--quiet")
    printed = capsys.readouterr().out
    run("plan", "cells", "--minutes", 2, "--timing", "timing.json", "--out", "recipes/cells.toml")
    assert (place / "recipes/cells.toml").read_text() == printed
    assert load(place / "recipes/cells.toml").data.name == "folder"
    run("doctor", "recipes/cells.toml")


def test_train_on_a_folder_plans_and_trains_and_resumes(place):
    draw(place / "cells", 6, size=(64, 64))
    quick = ["--set", "model.encoder_channels=[4, 8, 16]", "--set", "train.epochs=1", "--set", "data.repeat=1"]
    run("train", "cells", "--minutes", 0.05, "--quiet", *quick)
    folder = place / "runs/cells"
    assert {"plan.toml", "recipe.json", "best", "report.html"} <= {path.name for path in folder.iterdir()}
    plan = (folder / "plan.toml").read_bytes()
    run("train", "runs/cells", "--resume", "--quiet", "--set", "train.epochs=2")
    assert (folder / "plan.toml").read_bytes() == plan
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2
    run("train", "cells", "--minutes", 0.05, "--quiet", *quick)
    assert (place / "runs/cells-2/best").is_dir()


def test_data_arguments_and_faults(place, capsys):
    draw(place / "cells", size=(64, 64))
    run("plan", "cells", "--set", 'names=["soil", "leaf"]', "--set", "ids=[0, 7]", code=3)
    assert "doctor" in capsys.readouterr().err
    run("plan", "demo", code=2)
    run("plan", "cells", "--minutes", 0, code=2)
    run("plan", "cells", "--timing", "missing.json", code=2)
    run("train", "demo", "--minutes", 3, code=2)


def test_kinds_of_sources(place):
    for name in ("cells", "run", "demo"):
        (place / name).mkdir()
    (place / "run/recipe.json").write_text("{}")
    (place / "one.toml").write_text("")
    (place / "recipe.json").write_text('{"model": {}}')
    (place / "annotations.json").write_text('{"images": []}')
    expected = {"cells": "data", "run": "run", "isbi2012": "recipe", "unetzoo:demo": "recipe", "./demo": "data",
                "one.toml": "recipe", "recipe.json": "recipe", "annotations.json": "data"}  # fmt: skip
    assert {source: kind_of(source) for source in expected} == expected


@pytest.mark.parametrize(
    ("source", "error", "hint"),
    [("demo", ConfigError, "./demo"), ("deno", UnknownNameError, "demo"), ("no/such/folder", DataError, "path")],
)
def test_unclear_sources(place, source, error, hint):
    (place / "demo").mkdir()
    with pytest.raises(error) as caught:
        kind_of(source)
    assert hint in caught.value.hint
