"""SMP's own architectures through our door."""

import inspect

import pytest
import segmentation_models_pytorch as smp
import torch

import unetzoo
from unetzoo.errors import ConfigError, UnknownKeywordError

NAMES = unetzoo.list_models("smp-*")


def test_all_of_smps_architectures_are_there():
    assert {name.removeprefix("smp-") for name in NAMES} == {
        m.__name__.lower()
        for m in vars(smp).values()
        if inspect.isclass(m) and issubclass(m, smp.base.SegmentationModel)
    }


@pytest.mark.parametrize("name", NAMES)
def test_keywords_are_explicit_and_nothing_is_downloaded_by_default(name):
    parameters = inspect.signature(unetzoo.MODELS.get(name)).parameters
    assert parameters["encoder_weights"].default is None
    assert {"in_channels", "classes", "activation", "aux_params"} <= set(parameters)
    assert not [p for p in parameters.values() if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    with pytest.raises(UnknownKeywordError) as error:
        unetzoo.build(name, encodr_name="resnet18")
    assert "'encoder_name'" in error.value.hint


@pytest.mark.parametrize("name", [name for name in NAMES if name != "smp-dpt"])
def test_it_builds_and_predicts(name):
    net = unetzoo.build(name, encoder_name="resnet18" if name != "smp-segformer" else "mit_b0", classes=4).eval()
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 128, 128)).shape == (1, 4, 128, 128)


def test_encoder_kwargs_reach_timm():
    net = unetzoo.build("smp-unet", encoder_name="tu-resnet10t", encoder_kwargs={"drop_path_rate": 0.1})
    assert isinstance(net, smp.Unet)


def build_small(name, **config):
    encoder = {"smp-segformer": "mit_b0", "smp-dpt": "tu-vit_tiny_patch16_224"}.get(name, "resnet18")
    return unetzoo.build(name, encoder_name=encoder, **config)


def size_of(name):
    return 224 if name == "smp-dpt" else 128


@pytest.mark.parametrize("name", NAMES)
def test_code_written_for_smp_works(name):
    net = build_small(name, classes=2)
    parts = (net.encoder, net.decoder, net.segmentation_head)
    grouped = [p for part in parts for p in part.parameters()]
    assert {id(p) for p in grouped} == {id(p) for p in net.parameters()}
    assert len(net.encoder.out_channels) >= 1 and net.encoder.output_stride >= 1
    assert net.config["classes"] == 2
    again = build_small(name, classes=2).eval()
    again.load_state_dict(net.eval().state_dict())
    x = torch.randn(1, 3, size_of(name), size_of(name))
    assert torch.equal(net.predict(x), again.predict(x))
    net.freeze_encoder()
    assert not any(p.requires_grad for p in net.encoder.parameters())


def test_smps_errors_are_reproduced_and_documented():
    assert "smp" in unetzoo.info("smp-unet").tags
    net = unetzoo.build("smp-unet", encoder_name="resnet18").train()
    net.freeze_encoder()
    net.eval()
    assert net.encoder.training  # the fault that the tag names; ours is tested in test_contract.py
    assert unetzoo.info("bnunet").tags == ()


@pytest.mark.parametrize(("name", "options"), [("smp-unet", {}), ("dualunet", {"encoder_depth": 3})])
def test_pretrained_weights_without_a_connection_are_our_error_at_once(tmp_path, monkeypatch, name, options):
    def unreachable(address, timeout):
        assert timeout <= 5
        raise OSError(-2, "Name or service not known")

    def retry(seconds):
        raise AssertionError("the Hub's client retries")

    monkeypatch.setattr("socket.create_connection", unreachable)
    monkeypatch.setattr("unetzoo.models.pretrained.getproxies", dict)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("time.sleep", retry)
    with pytest.raises(ConfigError) as caught:
        unetzoo.build(name, encoder_name="resnet18", encoder_weights="imagenet", **options)
    assert "resnet18" in caught.value.subject and "encoder_weights=None" in caught.value.hint
