import json
import shlex

import pytest
import torch
from recipe_trials import trials
from refusals import refused

from unetzoo import RECIPES, LabelSpec
from unetzoo.errors import ConfigError, UnknownKeywordError, UnknownNameError
from unetzoo.training.recipe import Recipe, load
from unetzoo.training.run import make_metrics

BASE = """
[model]
name = "bnunet"
classes = 1
encoder_channels = [4, 8, 16]

[data]
name = "composites"
size = 32
channels = 3

[data.train]
length = 4

[loss]
dice = 0.5
bce = { weight = 1.0, pos_weight = 2.0 }
"""


def write(tmp_path, text=BASE):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", RECIPES.names())
def test_every_recipe_we_ship_is_valid(name):
    recipe = load(name, [] if name == "demo" else ["data.root=somewhere"])
    assert sum(stage.epochs for stage in recipe.train.stages) if recipe.train.stages else recipe.train.epochs >= 1


def test_sections_resolve_per_split(tmp_path):
    recipe = load(write(tmp_path), ["transform.normalize=standard", "transform.train.hflip=0.5"])
    assert recipe.data.of("train") == {"split": "train", "size": 32, "channels": 3, "length": 4}
    assert recipe.data.of("val") == {"split": "val", "size": 32, "channels": 3}
    assert recipe.transform.of("train") == {"normalize": "standard", "hflip": 0.5}
    assert recipe.loss_heads() == {"mask": {"dice": 0.5, "bce": {"weight": 1.0, "pos_weight": 2.0}}}


def test_set_takes_toml_values_and_bare_texts(tmp_path):
    sets = ["optimizer.lr=1e-3", "model.encoder_channels=[2, 4, 8]", "train.precision=bf16", "optimizer.name=sgd"]
    recipe = load(write(tmp_path), sets)
    assert recipe.optimizer.options == {"lr": 1e-3}
    assert recipe.model.options["encoder_channels"] == [2, 4, 8]
    assert (recipe.train.precision, recipe.optimizer.name) == ("bf16", "sgd")


def test_a_head_may_have_several_metrics(tmp_path):
    sets = ['metrics.mask=[{name = "segmentation"}, {name = "segmentation", ignore_index = 0}]']
    recipe = load(write(tmp_path), sets)
    assert [metric.options for metric in recipe.metrics_of("mask")] == [{}, {"ignore_index": 0}]
    assert Recipe.model_validate(recipe.to_dict()) == recipe
    metric = make_metrics(recipe, LabelSpec(("background", "cell")))["mask"]
    metric.update(torch.tensor([[[1, 1], [0, 1]]]), torch.tensor([[[1, 1], [0, 0]]]))
    scores = metric.compute()
    assert scores["pixel_accuracy"] == 0.75 and scores["pixel_accuracy_2"] == 1.0
    with pytest.raises(UnknownKeywordError) as caught:
        load(write(tmp_path), ['metrics.mask=[{name = "segmentation"}, {name = "segmentation", ignored = 0}]'])
    assert "ignore_index" in caught.value.hint


def test_a_list_that_lost_its_quotes_to_the_shell_is_refused_with_the_cause(tmp_path):
    for lost in ("[background]", "[background, cell]", "{mean: 1}"):
        with pytest.raises(ConfigError) as caught:
            load(write(tmp_path), [f"data.names={lost}"])
        assert caught.value.subject == "data.names" and "--set 'data.names=[" in caught.value.hint


def test_the_resolved_recipe_can_be_read_back(tmp_path):
    recipe = load(write(tmp_path), ["train.epochs=3", "scheduler.name=cosine"])
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    assert load(tmp_path) == recipe


@pytest.mark.parametrize(
    ("sets", "error", "says"),
    [
        (["trian.epochs=3"], ConfigError, "did you mean 'train'"),
        (["train.epoch=3"], ConfigError, "did you mean 'epochs'"),
        (["train.epochs=many"], ConfigError, "train.epochs"),
        (["train.epochs=0"], ConfigError, "train.epochs"),
        (["model.name=bnunett"], UnknownNameError, "did you mean 'bnunet'"),
        (["model.clases=2"], UnknownKeywordError, "did you mean 'classes'"),
        (["data.name=composite"], UnknownNameError, "did you mean 'composites'"),
        (["data.sise=3"], UnknownKeywordError, "did you mean 'size'"),
        (["data.name=folder", "data.size=3"], UnknownKeywordError, "'size'"),
        (["transform.train.hflop=1"], UnknownKeywordError, "did you mean 'hflip'"),
        (["loss.dise=1.0"], UnknownNameError, "did you mean 'dice'"),
        (["loss.mask.dise=1.0"], UnknownNameError, "did you mean 'dice'"),
        (["loss.mask.dice=1.0"], ConfigError, "two tables"),
        (["optimizer.name=adan"], UnknownNameError, "did you mean 'adam'"),
        (["optimizer.learning_rate=1"], UnknownKeywordError, "keyword"),
        (["scheduler.name=cosin"], UnknownNameError, "did you mean 'cosine'"),
        (["metrics.mask.name=segmentatio"], UnknownNameError, "did you mean 'segmentation'"),
        (["metrics.mask={name = 'segmentation', empti = 1}"], UnknownKeywordError, "keyword"),
        (["nonsense"], ConfigError, "section.key=value"),
        (["train.epochs.more=1"], ConfigError, "train.epochs"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_mistakes_are_named_before_any_work(tmp_path, sets, error, says):
    with pytest.raises(error, match=says):
        load(write(tmp_path, BASE + "\n[train]\nepochs = 1\n" if "epochs.more" in sets[0] else BASE), sets)


@pytest.mark.parametrize(
    ("exchanged", "whole", "others"),
    [
        ("optimizer.name=adam", '{name = "adam", lr = 0.002}', []),
        ("optimizer.name=adam", '{name = "adam", lr = 0.01, amsgrad = true}',
         ["optimizer.lr=1e-2", "optimizer.amsgrad=true"]),
        ("scheduler.name=cosine", '{name = "cosine", warmup = 3}', []),
        ("model.name=smp-fpn", '{name = "smp-fpn", classes = 1}', []),
        ("data.name=folder", '{name = "folder", channels = 3, root = ".", classes = 2}',
         ["data.root=.", "data.classes=2"]),
        ("metrics.mask.name=rand", '{name = "rand", foreground = 1}', ["metrics.mask.foreground=1"]),
    ],
    ids=str,
)  # fmt: skip
def test_replacing_only_the_name_of_a_component_names_the_whole_override(tmp_path, exchanged, whole, others):
    path = write(tmp_path, BASE + """
        [optimizer]
        name = "sgd"
        lr = 2e-3
        momentum = 0.99
        [scheduler]
        name = "polynomial"
        power = 0.9
        warmup = 3
        [metrics]
        mask = { name = "segmentation", per_image = true }
    """)  # fmt: skip
    section = exchanged.partition(".name=")[0]
    with pytest.raises(UnknownKeywordError) as caught:
        load(path, [exchanged, *others])
    command = shlex.split(caught.value.hint)
    assert command[command.index("--set") + 1] == f"{section}={whole}"
    assert getattr(load(path, [f"{section}={whole}"]), section.partition(".")[0]) is not None


@pytest.mark.parametrize(("sets", "says"), [
    (["optimizer.name=adam", "optimizer.momentun=1"], "choose a keyword from: amsgrad"),
    (["optimizer.lrr=1"], "did you mean 'lr'"),
    (["transform.name=rand"], "choose a keyword from"),
    (["optimizer.name=sgd", "model.clases=1"], "did you mean 'classes'"),
])  # fmt: skip
def test_a_given_keyword_keeps_its_hint(tmp_path, sets, says):
    with pytest.raises(UnknownKeywordError, match=says):
        load(write(tmp_path), sets)


def test_unreadable_recipes(tmp_path):
    with refused(UnknownNameError, hint="did you mean 'demo'"):
        load("deno")
    with pytest.raises(ConfigError, match="cannot read"):
        load(tmp_path / "missing.toml")
    with pytest.raises(ConfigError, match="cannot read"):
        load(write(tmp_path, "[model\n"))
    with pytest.raises(ConfigError, match="cannot read"):
        (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
        load(tmp_path / "binary.toml")
    with pytest.raises(ConfigError, match="not a run folder"):
        load(tmp_path)
    with refused(ConfigError, hint="--set data.root"):
        load("isbi2012")
    with pytest.raises(ConfigError, match="no loss"):
        load(write(tmp_path, BASE.partition("[loss]")[0] + "[loss]\n"))


def test_broken_recipes_give_our_errors(tmp_path):
    findings, outcomes = trials(tmp_path, 150, seed=0, models_every=5)
    assert findings == []
    assert outcomes["error"] > 50 and outcomes["recipe"] > 5


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        (["train.epochs=3", "train.steps=4"], "leave one out"),
        (["train.stages=[{size = 16, epochs = 2}]", "train.steps=4"], "leave epochs and steps out"),
        (["train.stages=[{size = 16, epochs = 0}]"], "epochs"),
        (["train.stages=[{sise = 16, epochs = 1}]"], "did you mean 'size'"),
        (["train.stages=[{size = 16, epochs = 1}]", "transform.crop=32"], "smaller than the crop"),
        (["train.stages=[{size = 'big', epochs = 1}]"], "size"),
        (["train.stages=[{size = -3, epochs = 1}]"], "size"),
        (["train.ema=1.5"], r"train\.ema"),
        (["train.precision=fp61"], r"train\.precision"),
        (["optimizer.lr=-1"], r"\[optimizer\]|optimizer 'adamw'"),
        (["scheduler.name=warm_restarts"], "T_0"),
        (["scheduler.name=cosine", "scheduler.warmup=-1"], "warmup"),
        (["scheduler.name=cosine", "scheduler.unit=day"], "'epoch' or 'step'"),
        (["loss.dice.smooth=x"], "loss"),
    ],
    ids=str,
)
def test_impossible_combinations_are_named(tmp_path, sets, says):
    with pytest.raises(ConfigError, match=says):
        load(write(tmp_path), sets)


def test_an_overridden_length_takes_the_place_of_the_recipes_own(tmp_path):
    text = BASE + "\n[train]\nepochs = 7\n"
    assert load(write(tmp_path, text), ["train.steps=5"]).train.epochs is None
    staged = load(write(tmp_path, text), ["train.stages=[{size = 16, epochs = 2}, {size = 32, epochs = 1}]"])
    assert [stage.size for stage in staged.train.stages] == [16, 32] and staged.train.epochs is None
    assert staged.at_stage(staged.train.stages[0]).transform.of("train")["size"] == 16
    assert load(write(tmp_path), []).train.epochs == 10


def test_a_warm_up_needs_no_scheduler(tmp_path):
    recipe = load(write(tmp_path), ["scheduler.warmup=4"])
    assert (recipe.schedule().name, recipe.schedule().warmup) == (None, 4)
    with pytest.raises(ConfigError, match="without a name"):
        load(write(tmp_path), ["scheduler.T_max=4"])


def test_a_recipe_file_that_is_not_there(tmp_path):
    with refused(ConfigError, subject="mine.toml", hint="`unetzoo list --kind recipes`"):
        load(tmp_path / "mine.toml")
