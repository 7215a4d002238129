"""Every built-in network with every head, as ONNX and as a torch program, beside `Predictor` at odd sizes."""

import pytest
from conftest import OURS
from exporting import assert_same, expected, pixels, warmed
from refusals import refused

import unetzoo
from unetzoo.bundle import ModelBundle
from unetzoo.errors import CheckpointMismatchError
from unetzoo.inference import Preprocess

pytestmark = pytest.mark.slow

SIZES = ((19, 27), (61, 47), (131, 90))
HEADS = {
    "binary": {"classes": 1},
    "classes": {"classes": 3},
    "softmax": {"classes": 3, "activation": "softmax2d"},
    "labels": {"classes": 2, "aux_params": {"classes": 4}},
}
DUAL = {"half": {"out_stride": 2}, "original": {"variant": "original", "encoder_channels": (4, 8, 8, 8, 8)}}
CASES = [(name, head, options) for name in OURS for head, options in HEADS.items()]
CASES += [("dualunet", head, options) for head, options in DUAL.items()]
SMP = [name for name in unetzoo.list_models("smp-*") if unetzoo.MODELS.entry(name).builtin]
ENCODERS = {"smp-segformer": "mit_b0", "smp-dpt": "tu-vit_tiny_patch16_224"}
SIZES_BY_NAME = {"smp-dpt": ((224, 224),)}  # of one size
BOUND = {"smp-pspnet", "smp-upernet"}  # as ONNX: they pool to grids whose windows depend on the size


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize(("name", "head", "options"), CASES, ids=[f"{name}-{head}" for name, head, _ in CASES])
def test_our_networks(tmp_path, name, head, options, suffix):
    net = warmed(name, **{"encoder_channels": (4, 8, 8, 8), **options})
    made = unetzoo.export(net, tmp_path / f"net{suffix}")
    loaded = unetzoo.inference.load_artifact(made.path)
    tiny = [(5, 9), (1, 1)] if suffix == ".onnx" else []  # a torch program takes images larger than the stride
    for size in (*SIZES, *tiny):
        image = pixels(*size, channels=net.in_channels)
        assert_same(loaded(image), expected(net, image))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize("name", SMP)
def test_smps_networks(tmp_path, name, suffix):
    net = warmed(name, size=224 if name == "smp-dpt" else 128, classes=3, encoder_name=ENCODERS.get(name, "resnet18"))
    path, options = tmp_path / f"net{suffix}", {}
    if name == "smp-dpt":
        options = {"preprocess": Preprocess((224, 224))}
    elif name in BOUND and suffix == ".onnx":
        with refused(CheckpointMismatchError, hint="--size HxW"):
            unetzoo.export(net, path)
        options = {"size": (131, 97)}
    loaded = unetzoo.inference.load_artifact(unetzoo.export(net, path, **options).path)
    for size in [options["size"]] if "size" in options else SIZES_BY_NAME.get(name, ((131, 97), (150, 203))):
        image = pixels(*size)
        assert_same(loaded(image), expected(net, image, preprocess=options.get("preprocess")))


@pytest.mark.slow
def test_shipped_weights_can_be_exported(tmp_path):
    made = unetzoo.export(ModelBundle.of(unetzoo.load("nuclei")), tmp_path / "nuclei.onnx")
    assert made.parity.error < 1e-5  # each image is normalized by its own mean and deviation
