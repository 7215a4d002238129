"""Recipes that start from weights, and pretrained encoders in recipes."""

import pytest
import torch

import unetzoo
from unetzoo.errors import CheckpointError, ConfigError
from unetzoo.training.optim import make_optimizer
from unetzoo.training.recipe import load

TINY = ["data.size=32", "data.train.length=8", "data.val.length=4", "train.epochs=1", "train.batch_size=4"]
NET = "model.encoder_channels=[4, 8, 8]"


def test_a_run_starts_from_another_run_and_says_what_was_taken(tmp_path):
    first = unetzoo.train("demo", [*TINY, NET], out=tmp_path / "first", progress=False)
    said = []
    second = unetzoo.train(
        "demo", [*TINY, NET, f"model.start={first.out}", "optimizer.lr=1e-12"], out=tmp_path / "second",
        progress=False, say=said.append,
    )  # fmt: skip
    assert any("taken" in text for text in said)
    a, b = (unetzoo.load(run.out).model for run in (first, second))
    for name, tensor in a.named_parameters():
        torch.testing.assert_close(tensor, b.get_parameter(name), rtol=1e-6, atol=1e-8)


def test_a_resumed_run_does_not_need_the_weights_again(tmp_path):
    source = unetzoo.build("dualunet", encoder_channels=(4, 8, 8))
    torch.save(source.state_dict(), tmp_path / "start.pth")
    sets = [*TINY, NET, f"model.start={tmp_path / 'start.pth'}"]
    unetzoo.train("demo", sets, out=tmp_path / "run", progress=False)
    (tmp_path / "start.pth").unlink()
    unetzoo.train(tmp_path / "run", ["train.epochs=2"], resume=True, progress=False)
    unetzoo.evaluate(tmp_path / "run", progress=False)
    with pytest.raises(CheckpointError):
        unetzoo.train("demo", sets, out=tmp_path / "other", progress=False)


def test_unrelated_weights_are_refused_before_a_run_folder_is_made(tmp_path):
    torch.save(unetzoo.build("unet", encoder_channels=(5, 6, 7)).state_dict(), tmp_path / "start.pth")
    with pytest.raises(CheckpointError) as caught:
        unetzoo.train(
            "demo", [*TINY, NET, f"model.start={tmp_path / 'start.pth'}"], out=tmp_path / "run", progress=False
        )
    assert "taken" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_the_encoder_learns_at_its_own_rate():
    net = unetzoo.build("bnunet", encoder_channels=(4, 8, 16))
    optimizer = make_optimizer(net, "adamw", lr=1e-2, encoder_lr=0.1, weight_decay=0.5)
    inside = {id(parameter) for parameter in net.encoder.parameters()}
    seen = 0
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["lr"] == pytest.approx(1e-3 if id(parameter) in inside else 1e-2)
            assert group["weight_decay"] == (0.5 if parameter.ndim > 1 else 0)
            seen += 1
    assert seen == len([*net.parameters()])


@pytest.mark.parametrize("factor", [0, -1, "slow", float("inf"), True])
def test_wrong_rates_of_the_encoder(factor):
    with pytest.raises(ConfigError):
        make_optimizer(unetzoo.build("bnunet", encoder_channels=(4, 8, 16)), "adamw", encoder_lr=factor)
    with pytest.raises(ConfigError):
        make_optimizer(torch.nn.Linear(1, 1), "adamw", encoder_lr=0.1)


def test_normalize_as_the_encoder_was_pretrained():
    model = 'model={name = "smp-unet", encoder_name = "resnet18", classes = 1}'
    base = [model, "transform.normalize=encoder", "data.root=."]
    recipe = load("carvana", base)
    assert recipe.transform.of("val")["normalize"]["mean"] == [0.485, 0.456, 0.406]
    gray = load("carvana", [base[0].replace("classes = 1", "classes = 1, in_channels = 1"), *base[1:]])
    assert gray.transform.of("val")["normalize"]["mean"] == [pytest.approx(0.449)]
    with pytest.raises(ConfigError):
        load("carvana", base[1:])
    with pytest.raises(ConfigError):
        load("carvana", [base[0].replace("classes = 1", "classes = 1, in_channels = 5"), *base[1:]])


def test_a_pretrained_encoder_with_other_normalization_is_a_warning(tmp_path):
    encoder = unetzoo.build("smp-unet", encoder_name="resnet18").encoder
    torch.save(encoder.state_dict(), tmp_path / "resnet18.pth")
    model = f'model={{name = "smp-unet", encoder_name = "resnet18", encoder_weights = "{tmp_path}/resnet18.pth"}}'
    data = unetzoo.DATASETS.build("composites", length=4)
    plain, fitting = (
        load("carvana", [model, f"transform.normalize={how}", "data.root=."]) for how in ("unit", "encoder")
    )
    with pytest.warns(UserWarning, match="encoder"):
        unetzoo.training.run.make_trainer(plain, data.labels, progress=False)
    unetzoo.training.run.make_trainer(fitting, data.labels, progress=False)
