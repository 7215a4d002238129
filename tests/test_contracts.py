"""Plugins whose factories return another kind of object are refused by name before training."""

import plugin_layout
import pytest

import unetzoo
from unetzoo.contracts import CONTRACTS, check_built
from unetzoo.errors import PluginContractError
from unetzoo.registry import DATASETS, LOSSES, METRICS, MODELS, Registry
from unetzoo.training import train

laid_out = plugin_layout.laid_out

RECIPE = """
[model]
name = "{model}"

[data]
name = "{dataset}"

[loss]
{loss} = 1.0

[metrics.mask]
name = "{metric}"

[train]
steps = 1
batch_size = 2
"""

SOURCE = """
import torch
from unetzoo import LabelSpec

def number():
    return 3

def nothing():
    return None

class Half:
    labels = ["background", "cell"]
    transform = None
    def __len__(self):
        return 4
    def __getitem__(self, index):
        raise IndexError
    def update(self, output, target):
        pass

def half():
    return Half()

def itself():
    return Half

class Pixels(Half):
    labels = LabelSpec(("background", "cell"))
    def __getitem__(self, index):
        image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(index))
        sample = {"image": image.permute(1, 2, 0).mul(255).byte().numpy(), "id": str(index),
                  "mask": image[0].round().byte().numpy()}
        return sample if self.transform is None else self.transform(sample)

def pixels():
    return Pixels()

def net():
    return torch.nn.Conv2d(3, 1, 1)

def loss():
    return lambda output, target, *, weight=None: (output[:, 0].sigmoid() - target).abs().mean()

class Error:
    def reset(self):
        self.sum = self.count = 0
    __init__ = reset
    def update(self, output, target):
        self.sum += float(((output[:, 0] > 0) != target).float().mean())
        self.count += 1
    def compute(self):
        return {"error": self.sum / max(self.count, 1)}

def metric():
    return Error()
"""
RIGHT = {"model": "net", "dataset": "pixels", "loss": "absolute", "metric": "error"}
POINTS = {
    kind: {f"odd-{target}": target for target in ("number", "nothing", "half", "itself")} | {name: target}
    for kind, name, target in (
        ("models", "net", "net"),
        ("datasets", "pixels", "pixels"),
        ("losses", "absolute", "loss"),
        ("metrics", "error", "metric"),
    )
}
WRONG = [
    ("model", "number", "int"),
    ("model", "half", "Half"),
    ("model", "itself", "the class Half itself"),
    ("loss", "number", "int"),
    ("loss", "nothing", "NoneType"),
    ("metric", "number", "int without update, compute, reset"),
    ("metric", "half", "Half without compute, reset"),
    ("metric", "itself", "the class Half itself"),
    ("dataset", "number", "int without __len__, __getitem__, transform, labels"),
    ("dataset", "half", "Half whose labels are of type list"),
    ("dataset", "itself", "the class Half itself"),
]


@pytest.fixture
def recipe(laid_out, tmp_path):
    laid_out("acme-odd", POINTS, SOURCE)

    def write(**named):
        path = tmp_path / "odd.toml"
        path.write_text(RECIPE.format(**{**RIGHT, **named}))
        return path

    return write


@pytest.mark.parametrize(("kind", "target", "found"), WRONG)
def test_objects_of_another_kind_are_errors_before_any_work(recipe, tmp_path, kind, target, found):
    with pytest.raises(PluginContractError) as caught:
        train(recipe(**{kind: f"odd-{target}"}), out=tmp_path / "run", progress=False)
    error = caught.value
    assert (error.subject, error.expected) == (f"acme-odd 1.2 (acme_odd:{target})", CONTRACTS[kind])
    assert error.found == found and "'acme-odd'" in error.hint
    assert not (tmp_path / "run").exists()


def test_on_the_command_line_it_is_one_line_and_code_5(recipe, tmp_path, capsys):
    plugin_layout.io_of("train", str(recipe(loss="odd-number")), "--out", str(tmp_path / "run"), code=5)
    said = capsys.readouterr().err
    assert "'odd-number'" in said.replace("\n", " ") and "Traceback" not in said


def test_duck_types_of_a_plugin_are_trained(recipe, tmp_path):
    result = train(recipe(), out=tmp_path / "run", progress=False)
    assert 0 <= result.scores["error"] <= 1


def test_correct_names_are_not_looked_up(monkeypatch):
    made = {
        (LOSSES, "dice"): LOSSES.build("dice", mode="binary"),
        (METRICS, "segmentation"): METRICS.build("segmentation", num_classes=2),
        (DATASETS, "composites"): DATASETS.build("composites", size=16, length=1),
        (MODELS, "bnunet"): unetzoo.build("bnunet", encoder_channels=[2, 2, 2]),
    }
    monkeypatch.setattr(Registry, "entry", None)
    for (registry, name), value in made.items():
        check_built(registry, name, value)


def test_an_object_whose_attributes_raise_is_refused():
    class Odd:
        @property
        def update(self):
            raise RuntimeError("not now")

    with pytest.raises(PluginContractError) as caught:
        check_built(METRICS, "segmentation", Odd())
    assert "update" in caught.value.found
