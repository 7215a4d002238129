"""An ensemble is a network: the mean of its members' probabilities, in tiles, views, files and exports alike."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import unetzoo
from unetzoo.bundle import ModelBundle
from unetzoo.cli import app
from unetzoo.datasets import Albumentations, Transform
from unetzoo.errors import ConfigError
from unetzoo.heads import heads_of
from unetzoo.inference import Ensemble, Predictor, ensemble
from unetzoo.training.bundling import preprocess_of


def nets(name="bnunet", count=3, **options):
    made = []
    for seed in range(count):
        torch.manual_seed(seed)
        made.append(unetzoo.build(name, encoder_channels=(4, 8, 16), **options).eval())
    return made


def bundles(names=("sky", "sea", "land"), count=2, **fields):
    return [ModelBundle(net, unetzoo.LabelSpec(names), unetzoo.Preprocess(), name="bnunet", **fields)
            for net in nets(count=count, classes=len(names))]  # fmt: skip


@pytest.mark.parametrize(
    ("classes", "mode"), [(1, None), (3, None), (3, "multilabel")], ids=["binary", "classes", "labels"]
)
def test_probabilities_are_averaged(classes, mode):
    members, image = nets(classes=classes), torch.rand(2, 3, 32, 48)
    several = mode == "multilabel" or classes == 1

    def probabilities(logits):
        return logits.double().sigmoid() if several else logits.double().softmax(1)

    with torch.no_grad():
        mean = torch.stack([probabilities(net(image)) for net in members]).mean(0)
        assert torch.allclose(probabilities(Ensemble(members, mode)(image)), mean, atol=1e-6)


def test_other_heads_are_averaged():
    members, image = nets("dualunet", in_channels=6), torch.rand(1, 6, 32, 32)
    with torch.no_grad():
        mean = torch.stack([net(image).depth for net in members]).mean(0)
        output = Ensemble(members)(image)
    assert torch.allclose(output.depth, mean, atol=1e-6) and list(heads_of(output)) == ["mask", "depth"]


def test_tiles_equal_the_whole_image():
    whole = Ensemble(nets(classes=2))
    image = torch.rand(3, 150, 131)
    assert whole.decodes_regions
    assert torch.allclose(unetzoo.predict(whole, image, tile=96), unetzoo.predict(whole, image), atol=1e-4)


def test_networks_of_several_kinds():
    torch.manual_seed(0)
    mixed = [*nets(count=1, classes=2), unetzoo.build("bnunet", classes=2, encoder_channels=(4, 8, 8, 16)).eval()]
    both, image = Ensemble(mixed), torch.rand(3, 152, 136)  # a multiple of both strides
    probabilities = [unetzoo.predict(net, image).softmax(0) for net in mixed]
    assert torch.allclose(unetzoo.predict(both, image).softmax(0), sum(probabilities) / 2, atol=1e-5)
    assert torch.allclose(unetzoo.predict(both, image, tile=112), unetzoo.predict(both, image), atol=1e-4)


def test_a_predictor_takes_several_networks(tmp_path):
    several = bundles()
    image = np.random.default_rng(0).integers(0, 256, (40, 51, 3), np.uint8)
    expected = sum(Predictor(one).segment(image).probabilities for one in several) / 2
    result = Predictor(several).segment(image)
    assert torch.allclose(result.probabilities, expected, atol=1e-6)
    assert np.array_equal(result.label_map, expected.argmax(0)) and result.labels.names == ("sky", "sea", "land")


@pytest.mark.slow
def test_an_export_equals_the_predictor(tmp_path):
    joined = ensemble(bundles())
    made = unetzoo.export(joined, tmp_path / "both.pt2")
    image = np.random.default_rng(0).integers(0, 256, (40, 51, 3), np.uint8)
    outputs = unetzoo.load(made.path)(image)
    assert np.abs(outputs["probabilities"] - Predictor(joined).segment(image).probabilities.numpy()).max() <= 1e-4


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (bundles(("a", "b", "c"))[0], "classes"),
        (bundles()[0]._replace(preprocess=unetzoo.Preprocess(normalize="standard")), "preprocessing"),
        (bundles()[0]._replace(threshold=0.3), "thresholds"),
    ],
)
def test_networks_that_do_not_go_together(other, what):
    with pytest.raises(ConfigError, match=what):
        ensemble([bundles()[0], other])


def test_networks_of_other_channels_or_sizes():
    for members in ([*nets(count=1), *nets(count=1, in_channels=1)], [*nets(count=1), *nets("unet", count=1)], []):
        with pytest.raises(ConfigError):
            Ensemble(members)
    with pytest.raises(ConfigError):
        Ensemble([*nets(count=1, classes=2), *nets(count=1, classes=3)])(torch.rand(1, 3, 16, 16))


def test_equal_pipelines_of_albumentations_are_the_same_preprocessing():
    def bundle(size):
        resize = {"name": "Resize", "height": size, "width": size}
        return bundles()[0]._replace(preprocess=preprocess_of(Albumentations([resize], Transform(train=False))))

    image = np.zeros((30, 30, 3), np.uint8)
    assert Predictor([bundle(16), bundle(16)]).segment(image).label_map.shape == (30, 30)
    with pytest.raises(ConfigError, match="preprocessing"):
        ensemble([bundle(16), bundle(32)])


def test_an_export_of_several_runs(tmp_path):
    for index, net in enumerate(nets(count=2)):
        ModelBundle(net, preprocess=unetzoo.Preprocess()).attach()
        net.save_pretrained(tmp_path / str(index))
    runs, file = [str(tmp_path / name) for name in "01"], tmp_path / "both.pt2"
    assert CliRunner().invoke(app, ["export", *runs, "--out", str(file)]).exit_code == 0
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    expected = Predictor([unetzoo.load(run) for run in runs]).segment(tmp_path / "a.png").probabilities
    assert np.allclose(unetzoo.load(file)(np.zeros((30, 40, 3), np.uint8))["probabilities"], expected, atol=1e-4)
    assert CliRunner().invoke(app, ["predict", *runs, str(tmp_path / "a.png"), str(tmp_path / "out")]).exit_code == 0
    assert json.loads((tmp_path / "out" / "a.json").read_text())["settings"]["network"].endswith("-x2")
    result = CliRunner().invoke(app, ["export", *runs, "--to", "openvino", "--int8", "--out", str(tmp_path / "q")])
    assert isinstance(result.exception, ConfigError)


def test_a_threshold_settles_a_difference():
    several = [bundles()[0], bundles()[1]._replace(threshold=0.3)]
    assert ensemble(several, 0.4).threshold == 0.4
    assert Image.fromarray(Predictor(several, threshold=0.4).segment(np.zeros((16, 16, 3), np.uint8)).label_map)
