"""`--fast`: every shipped recipe in minutes on a CPU, here for a few steps on its twin."""

import json
import shlex
import tomllib

import pytest
from test_cli import unetzoo
from test_shipped_recipes import TWINS

from unetzoo import MODELS, RECIPES
from unetzoo.errors import CheckpointMismatchError, ConfigError
from unetzoo.training import load_recipe, train
from unetzoo.training.resume import flat
from unetzoo.twins import write

FEW = {
    "eva-mask-depth": ["data.train.length=8", "data.val.length=2"],  # it has stages; others get two steps
    "nuclei": ["train.steps=2", "transform.train.crop=64"],  # images of its twin are small
}
OFTEN = ("helen", "eva-mask-depth")
NAMES = [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in RECIPES.names()]
LENGTHS = ("train.epochs", "train.steps", "train.stages")

RECIPE = """
model = { name = "bnunet", encoder_channels = [4, 8, 16] }
data = { name = "composites", size = 32, channels = 3, train = { length = 4 }, val = { length = 2 } }
transform = { normalize = { mean = 0.5, std = 0.2 } }
loss = { bce = 1.0 }
train = { epochs = 7, batch_size = 2 }

[fast]
"""


def recipe(tmp_path, fast="train.steps = 1\ntransform.normalize.std = 0.1"):
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE + fast)
    return path


def root_of(name, tmp_path):
    return [f"data.root={write(TWINS[name], tmp_path / 'data')}"] if name in TWINS else []


@pytest.mark.parametrize("name", NAMES)
def test_a_fast_recipe_trains_on_its_twin(name, tmp_path):
    sets = [*root_of(name, tmp_path), *FEW.get(name, ["train.steps=2"])]
    result = train(name, sets, out=tmp_path / "run", fast=True, progress=False)
    ran = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert 0 <= result.scores[ran["train"]["monitor"]] <= 1
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("name", RECIPES.names())
def test_the_resolved_recipe_contains_the_changes_of_fast(name):
    written = tomllib.loads(RECIPES.get(name).read_text())
    changes = flat(written.pop("fast"))
    root = [] if name == "demo" else ["data.root=somewhere"]
    fast, full = (load_recipe(name, root, fast=wanted).to_dict() for wanted in (True, False))
    assert fast.pop("fast") is True and "fast" not in full
    before, after = flat(full), flat(fast)
    for key in LENGTHS:  # one of them takes the place of the others
        before.pop(key, None)
        assert (after.pop(key, None) or None) == changes.pop(key, None)
    assert after == before | changes
    options = {key: value for key, value in fast["model"].items() if key != "name"}
    net = MODELS.build(fast["model"]["name"], **options)
    assert sum(parameter.numel() for parameter in net.parameters()) < 1e6  # on a CPU


def test_it_is_applied_before_set_and_keeps_its_mark(tmp_path):
    fast = load_recipe(recipe(tmp_path), ["train.epochs=2", "optimizer.lr=1e-3"], fast=True)
    assert (fast.train.epochs, fast.train.steps) == (2, None)
    assert fast.transform.of("train")["normalize"] == {"mean": 0.5, "std": 0.1}
    (tmp_path / "recipe.json").write_text(json.dumps(fast.to_dict()))
    assert load_recipe(tmp_path) == load_recipe(tmp_path, fast=True) == fast
    assert load_recipe(recipe(tmp_path)).train.epochs == 7


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("", "no fast variant"),
        ("train.step = 1", "did you mean 'steps'"),
        ("trian.steps = 1", "did you mean 'train'"),
        ("train.steps = 'few'", r"train\.steps"),
        ("train = 3", "train"),
        ("train.steps = 1\ntrain.epochs = 2", "leave one out"),
        ("model.clases = 3", "did you mean 'classes'"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path, table, says):
    with pytest.raises(ConfigError, match=says):
        load_recipe(recipe(tmp_path, table), fast=True)


@pytest.mark.parametrize("value", ["true", "3", "[1]"])
def test_it_is_a_table(tmp_path, value):
    path = tmp_path / "mine.toml"
    path.write_text(f"fast = {value}\n{RECIPE.removesuffix('[fast]' + chr(10))}")
    for wanted in (True, False):
        with pytest.raises(ConfigError, match=r"wrong \[fast\]"):
            load_recipe(path, fast=wanted)


def test_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = unetzoo("train", recipe(tmp_path), "--fast", "--quiet")
    assert "runs/mine-fast" in text
    assert "train mine.toml --fast" in (tmp_path / "runs/mine-fast/report.html").read_text().replace(f"{tmp_path}/", "")
    unetzoo("train", "runs/mine-fast", "--resume", "--quiet")  # its own recipe holds the changes
    with pytest.raises(CheckpointMismatchError, match="fast"):
        train(recipe(tmp_path), out="runs/mine-fast", resume=True, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["isbi2012", "carvana-hq", "composites"])
def test_the_command_suggested_by_twin_works(tmp_path, monkeypatch, layout):
    monkeypatch.chdir(tmp_path)
    advice = unetzoo("twin", layout, "drawn").splitlines()[-1]
    assert advice.startswith("try it: unetzoo train ") and " --fast " in advice
    unetzoo(*shlex.split(advice)[3:], "--set", "train.steps=2", "--quiet")
