"""Exported files: run without unetzoo, compared with `Predictor`, and refused if they are wrong."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import OURS, tiny
from exporting import SPEC, Plain, assert_same, expected, pixels, run_folder, warmed
from predicting import knowing
from refusals import refused

import unetzoo
from unetzoo import cli
from unetzoo.errors import (
    CheckpointMismatchError,
    CheckpointWriteError,
    ConfigError,
    InputShapeError,
)
from unetzoo.inference import ModelBundle, Preprocess, artifact, runtimes
from unetzoo.inference.pipeline import Pipeline
from unetzoo.labels import LabelSpec

WIDTHS = (4, 8, 16)


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    net = warmed("bnunet", classes=3, encoder_channels=WIDTHS)
    path = tmp_path_factory.mktemp("street") / "net.onnx"
    return net, unetzoo.export(net, path, labels=SPEC)


def session_of(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_onnx_runtime_without_unetzoo_gives_the_predictors_output(street):
    net, made = street
    session = session_of(made.path)
    for size in ((1, 1), (7, 130), (64, 64), (97, 51)):
        image = pixels(*size)
        answers = session.run(None, {"image": image[None]})
        found = {output.name: answer[0] for output, answer in zip(session.get_outputs(), answers, strict=True)}
        assert_same(found, expected(net, image, SPEC))
    batch = np.stack([pixels(33, 40, seed=seed) for seed in range(3)])
    labels, probabilities = session.run(["labels", "probabilities"], {"image": batch})
    assert labels.shape == (3, 33, 40) and probabilities.shape == (3, 3, 33, 40)
    assert np.array_equal(labels[2], expected(net, batch[2], SPEC)["labels"])


def test_the_file_describes_itself(street):
    _, made = street
    session = session_of(made.path)
    assert [(put.name, put.shape[:3]) for put in session.get_inputs()] == [("image", ["batch", "height", "width"])]
    texts = session.get_modelmeta().custom_metadata_map
    info = {key: json.loads(text) for key, text in texts.items() if key != "sha256"}
    assert info == json.loads(json.dumps(made.info))
    assert info["classes"] == ["sky", "road", "car"] and info["palette"][2] == [200, 0, 0]
    assert info["unetzoo"] == unetzoo.__version__ and info["network"] == "bnunet"
    tiling = info["tiling"]
    assert tiling["exact"] and tiling["stride"] == 4 and tiling["halo"] > 0 and tiling["tile"] >= tiling["minimum_tile"]
    assert made.parity.error <= 1e-4 and made.parity.labels >= 0.9999 and len(made.parity.sizes) == 3


@pytest.mark.parametrize("name", OURS)
def test_windows_of_the_tiling_recipe_equal_the_whole(name):
    net = warmed(name, encoder_channels=WIDTHS)
    pipeline = Pipeline(ModelBundle(net, None, Preprocess()))
    recipe = artifact.describe(pipeline, name, None)["tiling"]
    assert recipe["exact"] and recipe["tile"] >= recipe["minimum_tile"] > 2 * recipe["halo"]
    tile, context = recipe["minimum_tile"], -(-recipe["halo"] // recipe["stride"]) * recipe["stride"]
    image = torch.from_numpy(pixels(3 * tile - 5, 40, channels=net.in_channels))[None]
    with torch.inference_mode():
        whole = pipeline(image)[1]
        for top in range(recipe["stride"], 2 * tile, 5 * recipe["stride"]):
            part = pipeline(image[:, top : top + tile])[1][:, :, context : tile - recipe["halo"]]
            assert (part - whole[:, :, top + context : top + tile - recipe["halo"]]).abs().max() <= 1e-4
        last = pipeline(image[:, recipe["stride"] :])[1][:, :, context:]
        assert (last - whole[:, :, recipe["stride"] + context :]).abs().max() <= 1e-4


def test_images_that_a_file_does_not_take(street):
    loaded = unetzoo.inference.load_artifact(street[1].path)
    for wrong in (pixels(9, 8, 4), np.zeros((2, 2, 2, 2, 3), np.uint8), np.zeros((0, 4, 3), np.uint8)):
        with refused(InputShapeError, expected="([N,] H, W, 3)"):
            loaded(wrong)
    with refused(ConfigError, expected="uint8", found="float32"):
        loaded(pixels(9, 8).astype(np.float32))


def test_a_valid_network_by_torch(tmp_path):
    net = warmed("unet", in_channels=1, classes=1, encoder_channels=WIDTHS)
    trained = ModelBundle(net, LabelSpec(("cell",)), Preprocess(normalize="standard"), threshold=0.3, name="mine")
    made = unetzoo.export(trained, tmp_path / "net.pt2")
    loaded = unetzoo.inference.load_artifact(made.path)
    assert loaded.info == json.loads(json.dumps(made.info))
    assert loaded.info["classes"] == ["background", "cell"] and loaded.info["thresholds"] == [0.3]
    assert loaded.info["tiling"]["exact"] is False and loaded.info["network"] == "mine"
    for size in ((1, 3), (40, 61)):
        image = pixels(*size, channels=1)
        assert_same(loaded(image), expected(net, image, preprocess=trained.preprocess, threshold=0.3))
        assert np.array_equal(loaded(image[..., 0])["labels"], loaded(image)["labels"])


def test_resized_images_and_a_depth_head(tmp_path):
    net, preprocess = (
        warmed("dualunet", encoder_channels=WIDTHS),
        Preprocess((48, 64), {"mean": [0.5] * 6, "std": [0.2] * 6}),
    )
    made = unetzoo.export(net, tmp_path / "net.onnx", preprocess=preprocess)
    names = [output.name for output in session_of(made.path).get_outputs()]
    assert names == ["labels", "probabilities", "depth"] == list(made.info["outputs"])
    assert made.info["tiling"] is None and made.info["preparation"]["size"] == [48, 64]
    image = pixels(48, 64, channels=6)
    assert_same(unetzoo.inference.load_artifact(made.path)(image), expected(net, image, preprocess=preprocess))
    larger = unetzoo.inference.load_artifact(made.path)(pixels(131, 99, channels=6))
    assert larger["labels"].shape == (131, 99) and larger["depth"].shape == (1, 131, 99)


def test_images_that_have_the_resized_size_already(tmp_path):
    net, preprocess = warmed("bnunet", classes=3, encoder_channels=WIDTHS), Preprocess((48, 64))
    loaded = unetzoo.inference.load_artifact(unetzoo.export(net, tmp_path / "net.pt2", preprocess=preprocess).path)
    for size in ((48, 64), (48, 99), (70, 64), (64, 48)):
        image = pixels(*size)
        assert_same(loaded(image), expected(net, image, preprocess=preprocess))


@pytest.mark.parametrize("name", ["net.pt2", pytest.param("net.onnx", marks=pytest.mark.slow)])
def test_several_labels_a_pixel_one_size_and_floats(tmp_path, name):
    def answer(x):
        return 8 * x - 4

    trained = ModelBundle(Plain(answer), SPEC, Preprocess(), threshold=[0.5, 0.2, 0.9], mode="multilabel")
    made = unetzoo.export(trained, tmp_path / name, size=(17, 30), dtype="float32")
    loaded, image = unetzoo.inference.load_artifact(made.path), pixels(17, 30).astype(np.float32) / 255
    found = loaded(image)
    likely = 1 / (1 + np.exp(4 - 8 * image.transpose(2, 0, 1).astype(np.float64)))
    assert np.abs(found["probabilities"] - likely).max() < 1e-6
    assert np.array_equal(found["labels"], likely > np.array([0.5, 0.2, 0.9])[:, None, None])
    assert loaded.info["input"]["size"] == [17, 30] and loaded.info["input"]["range"] == [0, 1]
    with refused(InputShapeError, expected="17, 30"):
        loaded(pixels(18, 30).astype(np.float32))


def test_a_file_with_other_outputs_is_removed(tmp_path):
    path = tmp_path / "net.pt2"
    path.write_bytes(b"an older one")
    with refused(CheckpointMismatchError, subject=path, hint="no file was left"):
        unetzoo.export(Plain(lambda x: x + torch.rand_like(x)), path)
    assert [file.name for file in tmp_path.iterdir()] == ["net.pt2"] and path.read_bytes() == b"an older one"


def test_ties_between_classes_are_named_as_the_cause(tmp_path):
    def undecided(x):
        return x.mean(1, keepdim=True).repeat(1, 3, 1, 1) + 1e-6 * torch.rand_like(x)

    with refused(CheckpointMismatchError, hint="--no-verify"):
        unetzoo.export(Plain(undecided), tmp_path / "net.pt2")
    assert not list(tmp_path.iterdir())
    unetzoo.export(Plain(undecided), tmp_path / "net.pt2", verify=False)


@pytest.mark.parametrize(
    ("output", "fields"),
    [
        (lambda x: x.view(*x.shape[:3], 165), {"found": "bound to one width"}),
        (lambda x: x * (2 if x.shape[-1] == 165 else 1), {"found": "bound to one width"}),
        (lambda x: x.view(-1, 7), {"subject": "131×165"}),
        (lambda x: x if x.mean() > 0 else -x, {"hint": "--size HxW"}),
        (lambda x: x + float(x.sum()), {"hint": "--size HxW"}),
    ],
)
def test_networks_that_cannot_be_recorded(tmp_path, output, fields):
    with refused(ConfigError, **fields):
        unetzoo.export(Plain(output), tmp_path / "net.pt2")
    assert not list(tmp_path.iterdir())


def test_a_network_of_one_size_needs_it(tmp_path):
    net = Plain()
    net.geometry = unetzoo.models.Geometry(minimum=32, stride=32, maximum=32)
    with refused(ConfigError, hint="--size 32x32"):
        unetzoo.export(net, tmp_path / "net.pt2")
    assert unetzoo.export(net, tmp_path / "net.pt2", size=(30, 32)).info["input"]["size"] == [30, 32]


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"path": "net.h5"}, {"expected": ".onnx"}),
        ({"path": "net.onnx", "to": "torch"}, {"expected": ".pt2", "found": ".onnx"}),
        ({"to": "onx"}, {"hint": "'onnx'"}),
        ({"size": (0, 4)}, {"expected": "(height, width)", "found": "(0, 4)"}),
        ({"size": 4}, {"expected": "(height, width)", "found": "4"}),
        ({"dtype": "int8"}, {"found": "int8"}),
        ({"labels": SPEC}, {"expected": "4 classes"}),
        ({"threshold": 7}, {"expected": "a probability in", "found": "7"}),
        ({"preprocess": lambda image: image}, {"hint": "preprocess=Preprocess("}),
    ],
)
def test_wrong_options(tmp_path, options, fields):
    path = tmp_path / options.get("path", "net.pt2")
    with refused(ConfigError, **fields):
        unetzoo.export(knowing(tiny("bnunet", classes=4)), path, **{k: v for k, v in options.items() if k != "path"})


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    (tmp_path / "a.onnx").write_bytes(b"")
    for use in (
        lambda: unetzoo.export(Plain(), tmp_path / "b.onnx"),
        lambda: unetzoo.inference.load_artifact(tmp_path / "a.onnx"),
    ):
        with refused(ConfigError, hint='pip install "unetzoo[export]"'):
            use()


def test_a_full_disk_ends_in_an_error_not_in_an_abort(tmp_path):
    resource = pytest.importorskip("resource")
    net = knowing(tiny("bnunet", classes=3))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        with refused(CheckpointWriteError, subject="net.pt2", found="large"):
            unetzoo.export(net, tmp_path / "net.pt2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_the_command(tmp_path, capsys):
    net = tiny("bnunet", classes=1, in_channels=3)
    run = run_folder(tmp_path / "run", net, "metrics.mask.threshold=0.25")
    with pytest.raises(SystemExit):
        cli.main(["export", str(run), "--to", "torch", "--size", "32x48"])
    printed = capsys.readouterr().out
    assert "image uint8 (N, 32, 48, 3)" in printed and "100.00% equal labels" in printed
    info = unetzoo.inference.load_artifact(run / "bnunet.pt2").info
    assert info["thresholds"] == [0.25] and info["classes"] == ["background", "foreground"]
    with pytest.raises(SystemExit) as ended:
        cli.main(["export", str(run), "--size", "32"])
    assert ended.value.code == 2 and "HEIGHTxWIDTH" in capsys.readouterr().err
