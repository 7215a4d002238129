"""Exported files: read by ONNX Runtime and PyTorch alone, compared with `Predictor`, refused when they are wrong."""

import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import OURS, tiny
from exporting import assert_same, expected, pixels, run_folder, warmed
from predicting import knowing
from refusals import refused

import unetzoo
from unetzoo import cli
from unetzoo.errors import (
    CheckpointCorruptError,
    CheckpointError,
    CheckpointMismatchError,
    CheckpointWriteError,
    ConfigError,
    InputShapeError,
    UnetzooError,
)
from unetzoo.inference import ModelBundle, Preprocess, artifact, runtimes
from unetzoo.inference.pipeline import Pipeline
from unetzoo.labels import LabelSpec

SPEC = LabelSpec(("sky", "road", "car"), palette=((0, 0, 0), (9, 8, 7), (200, 0, 0)))
WIDTHS = (4, 8, 16)


class Plain(torch.nn.Module):
    """Answers its input, or what a function makes of it."""

    def __init__(self, answer=lambda x: x, channels=3):
        super().__init__()
        self.answer, self.in_channels = answer, channels
        knowing(self)

    def forward(self, x):
        return self.answer(x)


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    net = warmed("bnunet", classes=3, encoder_channels=WIDTHS)
    path = tmp_path_factory.mktemp("street") / "net.onnx"
    return net, unetzoo.export(net, path, labels=SPEC)


def session_of(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_onnx_runtime_alone_gives_the_predictors_answer(street):
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


def test_the_file_says_what_it_is(street):
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
def test_windows_by_the_tiling_recipe_are_the_whole(name):
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


def test_files_that_are_none(tmp_path):
    with refused(CheckpointError, subject="none.onnx", hint="check the path"):
        unetzoo.inference.load_artifact(tmp_path / "none.onnx")
    for name in ("a.onnx", "a.pt2"):
        (tmp_path / name).write_bytes(b"broken")
        for check in (True, False):
            with pytest.raises(CheckpointCorruptError):
                unetzoo.inference.load_artifact(tmp_path / name, check=check)
    torch.export.save(torch.export.export(Plain(), (torch.zeros(2),)), tmp_path / "foreign.pt2")
    for check in (True, False):
        with pytest.raises(CheckpointError):
            unetzoo.inference.load_artifact(tmp_path / "foreign.pt2", check=check)
    (tmp_path / "file").write_bytes(b"")
    with refused(CheckpointWriteError, subject=tmp_path / "file" / "net.pt2"):
        unetzoo.export(Plain(), tmp_path / "file" / "net.pt2", size=(8, 8))


def test_files_that_other_tools_have_touched(tmp_path, street):
    model = onnx.load(street[1].path)
    entry = model.metadata_props.add()
    entry.key, entry.value = "onnx.infer", "onnxruntime.quant"  # as ONNX Runtime's quantizer does
    onnx.save(model, tmp_path / "quantized.onnx")
    with pytest.raises(CheckpointCorruptError) as caught:
        unetzoo.inference.load_artifact(tmp_path / "quantized.onnx")
    assert caught.value.subject == tmp_path / "quantized.onnx" and "check=False" in caught.value.hint
    assert unetzoo.inference.load_artifact(tmp_path / "quantized.onnx", check=False).info["classes"] == list(SPEC.names)
    for key in ("format", "outputs"):
        kept = [entry for entry in model.metadata_props if entry.key != key]
        del model.metadata_props[:]
        model.metadata_props.extend(kept)
        onnx.save(model, tmp_path / "other.onnx")
        with pytest.raises(CheckpointError) as other:
            unetzoo.inference.load_artifact(tmp_path / "other.onnx", check=False)
        assert not isinstance(other.value, CheckpointCorruptError)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_damaged_files_raise_our_errors_only(tmp_path, street, suffix):
    data = street[1].path.read_bytes()
    if suffix == ".pt2":
        data = unetzoo.export(Plain(), tmp_path / "good.pt2", verify=False).path.read_bytes()
    rng, image, refused = np.random.default_rng(0), pixels(20, 31), 0
    cut = [data[:length] for length in (0, 7, len(data) // 2, len(data) - 1)]
    for number in range(len(cut) + 12):
        damaged = bytearray(cut[number] if number < len(cut) else data)
        if number >= len(cut):
            for place in rng.integers(0, 3000 if number % 2 else len(data), 5):
                damaged[place] = rng.integers(256)
        path = tmp_path / f"bad{suffix}"
        path.write_bytes(damaged)
        try:
            unetzoo.inference.load_artifact(path, check=False)(image)
        except UnetzooError:
            refused += 1
    assert refused > len(cut)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_every_flipped_bit_and_every_cut_is_refused(tmp_path, street, suffix):
    path = street[1].path if suffix == ".onnx" else unetzoo.export(Plain(), tmp_path / "a.pt2", verify=False).path
    data, rng = path.read_bytes(), np.random.default_rng(0)
    bad = tmp_path / f"bad{suffix}"
    places = {0, len(data) - 1, len(data) - 65, *rng.integers(0, len(data), 150).tolist()}
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(rng.integers(8))
        bad.write_bytes(flipped)
        with pytest.raises(CheckpointCorruptError):
            unetzoo.inference.load_artifact(bad)
    for length in (0, 1, 63, 64, len(data) // 2, len(data) - 1):
        bad.write_bytes(data[:length])
        with pytest.raises(CheckpointCorruptError):
            unetzoo.load(bad)
    bad.write_bytes(data)
    assert unetzoo.inference.load_artifact(bad).info["format"] == 2


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_no_paths_of_this_machine_are_exported(tmp_path, suffix):
    made = unetzoo.export(knowing(tiny("bnunet", classes=2)), tmp_path / f"net{suffix}", verify=False)
    data = made.path.read_bytes()
    for package in (unetzoo, torch):
        assert str(Path(package.__file__).parent).encode() not in data
    if suffix == ".pt2":
        assert zipfile.ZipFile(made.path).testzip() is None
    else:
        onnx.checker.check_model(onnx.load(made.path))


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
