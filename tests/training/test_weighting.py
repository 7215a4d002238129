"""`[loss] weighting = "uncertainty"`: how much each head counts is learned, logged, kept and resumed."""

import json
import math

import pytest
import torch
from small_runs import At, fingerprint

from unetzoo.errors import ConfigError, UnknownNameError
from unetzoo.training import checkpoint, load_recipe, train
from unetzoo.training.run import make_dataset, make_trainer

RECIPE = """
[model]
name = "dualunet"
encoder_channels = [4, 8, 8]

[data]
name = "composites"
size = 16
train = { length = 6 }
val = { length = 2 }

[loss]
weighting = "uncertainty"
mask = { bce = 1.0 }
depth = { l1 = 1.0 }

[metrics]
mask = { name = "segmentation" }
depth = { name = "depth" }

[optimizer]
name = "sgd"
lr = 0.1

[train]
epochs = 2
batch_size = 2
"""


def recipe(tmp_path, text=RECIPE):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


def test_the_weights_follow_their_gradient_and_do_not_decay(tmp_path):
    """SGD's first step from s = 0: ∂/∂s (exp(−s)·L + s/2) = 1/2 − L, independent of weight decay."""
    loaded = load_recipe(recipe(tmp_path), ["train.steps=1", "train.batch_size=6", "optimizer.weight_decay=0.5"])
    data = make_dataset(loaded, "train", progress=False)
    trainer = make_trainer(loaded, data.labels, progress=False)
    row = trainer.fit(data)[-1]
    losses = torch.tensor([row["train/mask/bce"], row["train/depth/l1"]])
    torch.testing.assert_close(trainer.loss.log_variance.detach(), -0.1 * (0.5 - losses))
    groups = trainer.optimizer.param_groups
    held = [group for group in groups if any(p is trainer.loss.log_variance for p in group["params"])]
    assert [group["weight_decay"] for group in held] == [0.0]


def test_they_are_logged_kept_and_resumed(tmp_path):
    loaded = load_recipe(recipe(tmp_path), ["train.checkpoint_steps=1"])
    data, val = (make_dataset(loaded, split, progress=False) for split in ("train", "val"))

    class CrashError(Exception):
        pass

    def crash(batch):
        raise CrashError

    whole = make_trainer(loaded, data.labels, out=tmp_path / "whole", progress=False)
    rows = whole.fit(data, val)
    assert {"train/mask/uncertainty", "train/depth/uncertainty", "val/depth/uncertainty"} <= set(rows[-1])
    terms = [value for name, value in rows[-1].items() if name.startswith("train/") and name != "train/loss"]
    assert rows[-1]["train/loss"] == pytest.approx(math.fsum(terms))
    final = checkpoint.latest(tmp_path / "whole" / "checkpoints").tensors["loss"]["log_variance"]
    assert torch.equal(final, whole.loss.log_variance.detach()) and final.abs().min() > 0
    assert rows[-1]["val/mask/uncertainty"] == pytest.approx(final[0].item() / 2)

    parts = make_trainer(loaded, data.labels, out=tmp_path / "parts", progress=False)
    parts.batch_transform = At(6, crash)  # the rehearsal's is the first
    with pytest.raises(CrashError):
        parts.fit(data, val)
    make_trainer(loaded, data.labels, out=tmp_path / "parts", progress=False).fit(data, val, resume=True)
    assert fingerprint(tmp_path / "parts") == fingerprint(tmp_path / "whole")


def test_only_weighted_runs_record_the_weighting(tmp_path):
    train(recipe(tmp_path), ["train.steps=1"], out=tmp_path / "run", progress=False)
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["loss"]["weighting"] == "uncertainty"
    assert "weighting" not in load_recipe("demo").to_dict()["loss"]


@pytest.mark.parametrize(
    ("old", "new", "error", "says"),
    [
        ("depth = { l1 = 1.0 }", "", ConfigError, "two heads or more"),
        ("depth = { l1 = 1.0 }", "depth = { l1 = 0.0 }", ConfigError, "'depth' with only weights of 0"),
        ("bce = 1.0", "bce = 1.0, boundary = 0.01", ConfigError, ".*'mask' with 'boundary'"),
        ('"uncertainty"', '"learned"', ConfigError, r"loss\.weighting"),
        ("weighting", "weightings", UnknownNameError, "did you mean 'weighting'"),
        ("weighting", "bce = 1.0\nweighting", ConfigError, "two tables"),
        ("mask = { bce = 1.0 }\ndepth = { l1 = 1.0 }", "", ConfigError, "no loss"),
    ],
)
def test_losses_that_cannot_be_weighted_are_refused(tmp_path, old, new, error, says):
    assert old in RECIPE
    with pytest.raises(error, match=says):
        load_recipe(recipe(tmp_path, RECIPE.replace(old, new, 1)))
