"""Networks in OpenVINO: exported, quantized, and as the engine of `Predictor`; ONNX Runtime as its engine."""

import gc
import importlib
import json
import signal

import numpy as np
import pytest
import torch
from exporting import assert_same, expected, pixels, run_folder, warmed
from PIL import Image
from predicting import knowing
from refusals import refused
from torch import nn

import unetzoo
from unetzoo import cli
from unetzoo.errors import (
    CheckpointCorruptError,
    CheckpointError,
    CheckpointMismatchError,
    CheckpointWriteError,
    ConfigError,
    InputShapeError,
)
from unetzoo.inference import (
    Calibration,
    ModelBundle,
    Predictor,
    Preprocess,
    export,
    load_artifact,
    predict_to,
    runtimes,
)
from unetzoo.inference.engines import run_by
from unetzoo.inference.pipeline import Pipeline
from unetzoo.inference.quantization import quantize
from unetzoo.labels import LabelSpec
from unetzoo.training import calibration_of

pytest.importorskip("openvino")
SPEC = LabelSpec(
    ("sky", "road", "car"), palette=((0, 0, 0), (9, 8, 7), (200, 0, 0)), swap_pairs=((1, 2),), side="subject"
)
WIDTHS = (4, 8, 8)


def knows(net, **options):
    return knowing(warmed(net, encoder_channels=WIDTHS, **options))


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    net = warmed("bnunet", classes=3, encoder_channels=WIDTHS)
    path = tmp_path_factory.mktemp("street") / "net.openvino"
    return net, unetzoo.export(net, path, labels=SPEC, threshold=[None, 0.3, None])


def test_openvino_without_unetzoo_gives_the_predictors_output(street):
    net, made = street
    openvino = runtimes.untracked("openvino")
    model = openvino.Core().compile_model(made.path / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert [put.any_name for put in model.outputs] == ["labels", "probabilities"]
    for size in ((1, 1), (7, 130), (97, 51)):
        image = pixels(*size)
        labels, probabilities = model(image[None]).values()
        found = {"labels": labels[0], "probabilities": probabilities[0]}
        assert_same(found, expected(net, image, SPEC, threshold=[None, 0.3, None]))


def test_signals_are_delivered_after_models_are_released(street):
    _, made = street
    received, before = [], signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: received.append(True))
    try:
        first, second = load_artifact(made.path), load_artifact(made.path)
        for model in (first, second):
            model(pixels(7, 9))
        del first, model
        gc.collect()
        del second
        gc.collect()
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received


def test_the_folder_is_complete(street):
    _, made = street
    assert sorted(file.name for file in made.path.iterdir()) == [
        "manifest.json", "model.bin", "model.xml", "unetzoo.json",
    ]  # fmt: skip
    info = json.loads((made.path / "unetzoo.json").read_text())
    assert info == json.loads(json.dumps(made.info)) and info["classes"] == list(SPEC.names)
    assert info["precision"] == "fp32" and made.parity.error <= 1e-4 and made.int8 is None
    assert str(made.path.parent).encode() not in b"".join(file.read_bytes() for file in made.path.iterdir())


def test_files_predict_tiles_views_and_streams(street, tmp_path):
    net, made = street
    image = pixels(200, 131)
    loaded = unetzoo.load(made.path)
    for options in ({}, {"tile": 136}, {"tta": "flips"}):
        found = Predictor(loaded, **options).segment(image)
        wanted = Predictor(net, SPEC, Preprocess(), threshold=[None, 0.3, None], **options).segment(image)
        assert (found.label_map == wanted.label_map).mean() >= 0.9999 and found.labels == wanted.labels
        assert (found.probabilities - wanted.probabilities).abs().max() <= 1e-4
    predict_to(loaded, image, tmp_path / "out.npy", tile=136)
    assert (np.load(tmp_path / "out.npy") == Predictor(loaded).segment(image).label_map).mean() >= 0.9999


@pytest.mark.slow
def test_resized_images_and_a_depth_head(tmp_path):
    net, preprocess = knows("dualunet"), Preprocess((48, 64), {"mean": [0.5] * 6, "std": [0.2] * 6})
    made = unetzoo.export(net, tmp_path / "net.openvino", preprocess=preprocess)
    assert list(made.info["outputs"]) == ["labels", "probabilities", "depth"] and made.parity.error <= 1e-4
    loaded, image = load_artifact(made.path), pixels(48, 64, channels=6)
    assert_same(loaded(image), expected(net, image, preprocess=preprocess))
    for size in ((131, 99), (30, 200)):
        image = pixels(*size, channels=6)
        found, wanted = loaded(image), expected(net, image, preprocess=preprocess)
        assert np.abs(found["probabilities"] - wanted["probabilities"]).max() <= 0.02  # levels are rounded at ties
        assert (Predictor(loaded).segment(image).depth - wanted["depth"][0]).max() <= 0.02


def test_bf16_is_refused_where_labels_change(tmp_path):
    if unetzoo.precision.bf16_units() is None:
        pytest.skip("this processor does not multiply bfloat16")
    net = knows("bnunet", classes=3)
    with refused(CheckpointMismatchError, expected="99.5%", hint="fp32"):
        unetzoo.export(net, tmp_path / "net.openvino", precision="bf16")
    assert not list(tmp_path.iterdir())


def test_damaged_folders_raise_our_errors(street, tmp_path):
    files = {file.name: file.read_bytes() for file in street[1].path.iterdir()}
    for name in files:
        for change in (lambda data: data[: len(data) // 2], lambda data: data[:-9] + b"?" + data[-8:], None):
            folder = tmp_path / f"{name}-{change is None}.openvino"
            folder.mkdir(exist_ok=True)
            for other, data in files.items():
                (folder / other).write_bytes(data)
            (folder / name).unlink() if change is None else (folder / name).write_bytes(change(files[name]))
            with pytest.raises(CheckpointCorruptError):
                unetzoo.load(folder)
    with refused(CheckpointError, subject="none.openvino"):
        unetzoo.load(tmp_path / "none.openvino")


def test_wrong_images_and_options(street, tmp_path):
    loaded = load_artifact(street[1].path)
    with refused(InputShapeError, expected="([N,] H, W, 3)"):
        loaded(pixels(9, 8, 4))
    for options in ({"engine": "onnx"}, {"precision": "bf16"}):
        with refused(ConfigError, hint="in place of the file"):
            Predictor(loaded, **options)
    net = knows("bnunet", classes=3)
    given = Calibration([torch.zeros(1, 3, 32, 32)], lambda net: 0.0)
    for path, options, fields in (
        ("net.onnx", {"int8": given}, {"hint": "--to openvino"}),
        ("net.pt2", {"precision": "bf16"}, {"found": "precision='bf16'"}),
        ("net.openvino", {"precision": "fp16"}, {"expected": "fp32 or bf16"}),
        ("net.openvino", {"precision": "bf16", "int8": given}, {"hint": "leave precision out"}),
        ("net.openvino", {"int8": Calibration([], lambda net: 0.0), "size": (32, 32)}, {"subject": "int8"}),
    ):
        with refused(ConfigError, **fields):
            unetzoo.export(net, tmp_path / path, **options)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CheckpointWriteError):
        unetzoo.export(net, tmp_path / "file" / "net.openvino", size=(32, 32))


def test_without_the_extra(monkeypatch, tmp_path):
    net = knows("bnunet", classes=3)
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name == "openvino" else name)
    for use in (
        lambda: unetzoo.export(net, tmp_path / "net.openvino"),
        lambda: Predictor(net, engine="openvino"),
    ):
        with refused(ConfigError, hint='pip install "unetzoo[openvino]"'):
            use()


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_other_engines_give_the_same_predictions(engine):
    net, image = knows("dualunet"), pixels(150, 131, channels=6)
    made = Predictor(net, engine=engine)
    for options in ({}, {"tile": 136, "tta": "flips"}):
        made.tile, made.tta = options.get("tile"), options.get("tta")
        found, wanted = made.segment(image), Predictor(net, **options).segment(image)
        assert (found.probabilities - wanted.probabilities).abs().max() <= 1e-4
        assert np.abs(found.depth - wanted.depth).max() <= 1e-4
    assert next(net.parameters()).requires_grad and made.engine == engine


def test_engines_that_do_not_fit():
    net = knows("bnunet", classes=3)
    with refused(ConfigError, hint="'onnx'"):
        Predictor(net, engine="onxx")
    with refused(ConfigError, found="bf16"):
        Predictor(net, engine="onnx", precision="bf16")
    bound = Bound()
    with refused(ConfigError, hint="torch"):
        run_by(bound, "onnx")


class Bound(nn.Module):
    in_channels = 3

    def forward(self, x):
        return x * (2 if x.shape[-1] == 165 else 1)


@pytest.fixture(scope="module")
def cells():
    """A network that separates bright from dark images, and images with labels."""
    torch.manual_seed(0)
    net = warmed("bnunet", classes=2, in_channels=1, encoder_channels=WIDTHS)
    images = [torch.from_numpy(pixels(48, 64, 1, seed).transpose(2, 0, 1)).float()[None] / 255 for seed in range(6)]
    with torch.no_grad():
        truth = [net(image).argmax(1) for image in images]

    def score(net):
        with torch.no_grad():
            return float(np.mean([(net(x).argmax(1) == y).double().mean() for x, y in zip(images, truth, strict=True)]))

    return net, images, score


def test_int8_within_the_score(cells, tmp_path):
    net, images, score = cells
    made = export(net, tmp_path / "net.openvino", int8=Calibration(images, lambda net: round(score(net)), "accuracy"))
    assert made.info["precision"] == "int8" and made.int8.name == "accuracy" and made.int8.kept == ()
    assert made.int8.before == made.int8.after == 1.0
    image = pixels(48, 64, 1)
    same = load_artifact(made.path)(image)["labels"] == expected(net, image)["labels"]
    assert 0.9 < same.mean()
    assert "i8" in (made.path / "model.xml").read_text() and (made.path / "model.bin").stat().st_size > 0


def test_int8_that_changes_the_score_is_refused_layer_by_layer(cells):
    net, images, _ = cells
    calls = []

    def worse(net):
        calls.append(net)
        return 1.0 - 0.1 * (len(calls) - 1)

    pipeline = Pipeline(ModelBundle(net, None, Preprocess()))
    with pytest.raises(CheckpointMismatchError) as caught:
        quantize(pipeline, None, Calibration(images[:2], worse, "iou"))
    error = caught.value
    assert len(calls) == 3 and error.subject == "iou" and error.expected == "1.0000 ± 0.005"
    assert "0.9000" in error.found and "0.8000" in error.found
    layers = [name for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    assert any(f"{layer} alone: " in error.found for layer in layers)


@pytest.mark.slow
def test_int8_with_the_ends_in_float(cells):
    net, images, _ = cells
    values = iter([1.0, 0.9, 0.999])
    pipeline = Pipeline(ModelBundle(net, None, Preprocess()))
    done, _, _ = quantize(pipeline, None, Calibration(images[:2], lambda net: next(values)))
    layers = [name for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d)]
    assert done.kept == (layers[0], layers[-1]) and done.after == 0.999


def test_the_command(tmp_path, capsys):
    net = warmed("dualunet", encoder_channels=WIDTHS)
    run = run_folder(tmp_path / "run", net, "data.size=32", "data.val.length=4", "data.train.length=4")
    calibration = calibration_of(run)
    assert len(list(calibration.images)) == 4 and calibration.name == "iou/foreground"
    assert 0 <= calibration.score(net) <= 1
    (tmp_path / "images").mkdir()
    (tmp_path / "behind").mkdir()
    for number in range(2):
        for folder in ("images", "behind"):
            Image.fromarray(pixels(33, 40, seed=number)).save(tmp_path / folder / f"{number}.png")
    with pytest.raises(SystemExit) as ended:
        cli.main(["export", str(run), "--to", "openvino", "--no-verify"])
    assert ended.value.code == 0 and (run / "dualunet.openvino").is_dir()
    common = [str(tmp_path / "images"), str(tmp_path / "out"), "--background", str(tmp_path / "behind"), "--quiet"]
    for source, options, code in (
        (run / "dualunet.openvino", [], 0),
        (run, ["--engine", "onnx"], 0),
        (run / "dualunet.openvino", ["--device", "cuda"], 2),
        (run, ["--engine", "tensor"], 2),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(["predict", str(source), *common, *options])
        assert ended.value.code == code
    assert json.loads((tmp_path / "out" / "0.json").read_text())["settings"]["engine"] == "onnx"


def test_bf16_that_changes_labels_is_exported_in_float32_unless_demanded(tmp_path, monkeypatch):
    def refuse(*given):
        raise CheckpointMismatchError("other labels", found="99.36%")

    module = importlib.import_module("unetzoo.inference.export")  # the name is also that of its function
    monkeypatch.setattr(module, "compare_labels", refuse)
    monkeypatch.setattr(module, "resolve", lambda *given: "bf16")
    net = ModelBundle(unetzoo.build("bnunet", classes=2, encoder_channels=(4, 8, 8)).eval(), precision="bf16",
                      preprocess=unetzoo.Preprocess())  # fmt: skip
    with pytest.warns(UserWarning, match="99.36%"):
        made = unetzoo.export(net, tmp_path / "net.openvino", size=(32, 32))
    assert made.info["precision"] == "fp32" and unetzoo.load(made.path).info["precision"] == "fp32"
    with pytest.raises(CheckpointMismatchError):
        unetzoo.export(net, tmp_path / "other.openvino", size=(32, 32), precision="bf16")
    assert not (tmp_path / "other.openvino").exists()
