"""What code written for SMP does to a model, over every network of ours."""

import json

import pytest
import segmentation_models_pytorch as smp
import torch
from conftest import SOME, image, tensors, tiny
from torch import nn

import unetzoo
from unetzoo.errors import CheckpointError, CheckpointMismatchError, ConfigError, InputShapeError, UnknownKeywordError


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(second), strict=True))


def test_is_an_smp_model_with_smps_parts(model_name):
    net = tiny(model_name, classes=3)
    assert isinstance(net, smp.base.SegmentationModel)
    assert net.name == model_name
    assert net.classification_head is None
    assert net.config["classes"] == 3
    levels = len(net.config["encoder_channels"])
    assert len(net.encoder.out_channels) == levels
    assert net.encoder.output_stride == 2 ** (levels - 1)


def test_optimizer_groups_by_part_hold_every_parameter_once(model_name):
    net = tiny(model_name, aux_params={"classes": 2})
    parts = (net.encoder, net.decoder, net.segmentation_head, net.classification_head)
    grouped = [p for part in parts for p in part.parameters()]
    assert len(grouped) == len({id(p) for p in grouped})
    assert {id(p) for p in grouped} == {id(p) for p in net.parameters()}
    torch.optim.Adam([{"params": part.parameters(), "lr": 1e-3} for part in parts])


def test_head_can_be_replaced_as_for_smp(model_name):
    net = tiny(model_name, classes=1)
    old = net.segmentation_head[0]
    assert isinstance(old, nn.Conv2d)
    net.segmentation_head[0] = nn.Conv2d(old.in_channels, 7, old.kernel_size, padding=old.padding)
    assert tensors(net(image(net)))[0].shape[1] == 7


def test_output_shapes_and_aux_labels(model_name):
    net = tiny(model_name, classes=3, in_channels=2, aux_params={"classes": 5, "dropout": 0.1}).eval()
    x = image(net)
    masks, labels = net(x)
    size = net.geometry.output(x.shape[-1])
    assert tensors(masks)[0].shape == (2, 3, size, size)
    assert labels.shape == (2, 5)


def test_gradients_reach_every_parameter(model_name):
    torch.manual_seed(0)
    net = tiny(
        model_name, classes=2, aux_params={"classes": 2}, hidden_act={"type": "leaky_relu", "negative_slope": 0.05}
    )
    sum(t.square().mean() for t in tensors(net(image(net)))).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_predict_switches_to_evaluation_and_gives_no_gradient(model_name):
    net = tiny(model_name).train()
    answer = net.predict(image(net))
    assert not net.training
    assert not tensors(answer)[0].requires_grad


def test_frozen_encoder_keeps_its_statistics_and_evaluates_the_same_twice(model_name):
    net = tiny(model_name)
    net.freeze_encoder()
    before = {k: v.clone() for k, v in net.encoder.state_dict().items()}
    net.train()
    sum(t.square().mean() for t in tensors(net(image(net)))).backward()
    assert all(torch.equal(v, before[k]) for k, v in net.encoder.state_dict().items())
    assert all(p.grad is None for p in net.encoder.parameters())
    net.eval()  # SMP leaves the encoder in training mode here, so dropout makes two passes differ
    assert not any(m.training for m in net.modules())
    assert same(net(image(net)), net(image(net)))
    net.unfreeze_encoder()
    assert not any(m.training for m in net.modules())
    net.train()
    assert all(m.training for m in net.modules())
    assert all(p.requires_grad for p in net.parameters())


def test_state_dict_round_trip(model_name):
    net, other = tiny(model_name).eval(), tiny(model_name).eval()
    other.load_state_dict(net.state_dict())
    assert same(net(image(net)), other(image(net)))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_pretrained_round_trip(model_name, tmp_path, memory_format, capsys):
    net = tiny(model_name, classes=2, hidden_act={"type": "leaky_relu", "negative_slope": 0.1}).eval()
    net = net.to(memory_format=memory_format)
    net.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["_unetzoo"]["name"] == model_name
    assert config["_unetzoo"]["distribution"] == "unetzoo"
    assert config["_model_class"] == type(net).__name__
    assert "unetzoo.from_pretrained" in (tmp_path / "README.md").read_text()
    again = unetzoo.from_pretrained(tmp_path)
    assert type(again) is type(net)
    assert not again.training
    assert "_unetzoo" not in net.config
    for a, b in zip(tensors(net(image(net))), tensors(again(image(net))), strict=True):
        assert (a - b).abs().max() <= 1e-4 * a.abs().max()  # kernels differ between memory formats
    assert capsys.readouterr().out == ""  # the hub's mixin prints


def test_pretrained_faults_are_ours(tmp_path):
    net = tiny("bnunet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError) as error:
        unetzoo.from_pretrained(tmp_path / "empty")
    assert error.value.subject == tmp_path / "empty" / "config.json"
    net.save_pretrained(tmp_path / "saved")
    with pytest.raises(CheckpointMismatchError):
        unetzoo.from_pretrained(tmp_path / "saved", classes=4)
    weights = tmp_path / "saved" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(CheckpointError):
        unetzoo.from_pretrained(tmp_path / "saved")


@pytest.mark.filterwarnings("ignore::UserWarning")  # SMP lists tensors of other shapes before it raises
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"_unetzoo": 3},
        {"_unetzoo": {"name": "bnunet"}},
        {"_unetzoo": {"name": ["bnunet"], "distribution": "unetzoo"}},
        {"_vnetzoo": {"name": "bnunet", "distribution": "unetzoo"}},
        {"_unetzoo": {"name": "bnunet", "distribution": "unetzoo"}, "hidden_acu": "gelu"},
        {"_model_class": "Foo"},
        {"_model_class": 3},
        {"_model_class": "Unet", "encoder_name": "resnet18", "encoder_depht": 4},
        {"_model_class": "Unet", "encoder_name": "resnet17"},
    ],
)
def test_damaged_configurations_are_our_errors(config, tmp_path):
    tiny("bnunet").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(CheckpointError) as error:
        unetzoo.from_pretrained(tmp_path)
    assert error.value.hint and error.value.subject in (tmp_path, tmp_path / "config.json")


def test_a_pointer_in_place_of_weights_is_named(tmp_path):
    for net in (tiny("bnunet"), smp.Unet("resnet18", encoder_weights=None)):
        net.save_pretrained(tmp_path)
        (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
        (tmp_path / "manifest.json").unlink(missing_ok=True)
        with pytest.raises(CheckpointError) as error:
            unetzoo.from_pretrained(tmp_path)
        assert "git lfs pull" in error.value.hint


def test_saved_networks_of_smp_load_without_a_download(tmp_path):
    net = smp.Unet("resnet18", encoder_weights=None).eval()
    net.config["encoder_weights"] = "imagenet"
    net.save_pretrained(tmp_path)
    assert unetzoo.from_pretrained(tmp_path).config["encoder_weights"] is None


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("name", ["unetzoo-bn", "unetzoo-r2", "unetzoo-dd"])
def test_encoders_declare_whether_they_can_be_scripted(name):
    encoder = smp.encoders.get_encoder(name, depth=2, weights=None)
    try:
        torch.jit.script(encoder)
    except torch.jit.frontend.NotSupportedError:
        assert not encoder._is_torch_scriptable
    else:
        assert encoder._is_torch_scriptable


def test_from_pretrained_loads_smps_networks(tmp_path):
    net = unetzoo.build("smp-unet", encoder_name="resnet18", classes=2).eval()
    net.save_pretrained(tmp_path)
    again = unetzoo.from_pretrained(tmp_path)
    assert type(again) is smp.Unet
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(net(x), again(x))


@pytest.mark.parametrize("model_name", SOME)
def test_compiles_in_one_graph(model_name):
    net = tiny(model_name, classes=2).eval()
    torch.compiler.reset()  # the networks before this one count towards the limit of recompilations
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    for a, b in zip(tensors(net(image(net))), tensors(compiled(image(net))), strict=True):
        torch.testing.assert_close(a, b)
    trained = torch.compile(tiny(model_name).train(), fullgraph=True, backend="aot_eager")
    sum(t.mean() for t in tensors(trained(image(net)))).backward()


@pytest.mark.slow
def test_compiles_with_inductor(model_name):
    net = tiny(model_name, classes=2).eval()
    compiled = torch.compile(net, fullgraph=True)
    for a, b in zip(tensors(net(image(net))), tensors(compiled(image(net))), strict=True):
        assert (a - b).abs().max() <= 1e-4 * a.abs().max()  # untrained statistics let values grow large


def test_exports_saves_and_loads(model_name, tmp_path):
    net = tiny(model_name, classes=2).eval()
    x = image(net)
    program = torch.export.export(net, (x,), strict=True)
    torch.export.save(program, tmp_path / "net.pt2")
    again = torch.export.load(tmp_path / "net.pt2").module()(x)
    assert type(again) is type(net(x))
    assert same(net(x), again)


def test_runs_under_autocast(model_name):
    net = tiny(model_name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = tensors(net(image(net)))
    sum(t.float().mean() for t in outputs).backward()
    assert all(t.isfinite().all() for t in outputs)


def test_activation_is_of_the_output(model_name):
    torch.manual_seed(0)
    logits = tiny(model_name, classes=3).eval()
    torch.manual_seed(0)
    scored = tiny(model_name, classes=3, activation="softmax").eval()
    x = image(logits)
    torch.testing.assert_close(tensors(logits(x))[0].softmax(1), tensors(scored(x))[0])


def test_unknown_keywords_name_the_nearest(model_name):
    with pytest.raises(UnknownKeywordError) as error:
        unetzoo.build(model_name, clases=2)
    assert "'classes'" in error.value.hint
    with pytest.raises(TypeError):  # as for any Python function
        unetzoo.models.UNet(clases=2)


def test_values_that_json_would_lose_are_refused(model_name):
    with pytest.raises(ConfigError) as error:
        unetzoo.build(model_name, activation=nn.ReLU)
    assert "ReLU" in error.value.found and "activation=" in error.value.hint


@pytest.mark.parametrize(
    "wrong",
    [
        {"encoder_channels": (8, 16)},
        {"encoder_channels": (8, 0, 16)},
        {"classes": 0},
        {"hidden_act": "rely"},
        {"hidden_act": {"type": "relu", "slope": 1}},
        {"activation": "sigmoud"},
        {"aux_params": {}},
        {"aux_params": {"clases": 2}},
        {"align": "crop"},
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(model_name, wrong):
    if model_name == "unet" and "align" in wrong:
        wrong = wrong | {"padding": "same"}
    with pytest.raises(ConfigError):
        tiny(model_name, **wrong)


def test_wrong_inputs_are_refused_with_the_fix(model_name):
    net = tiny(model_name)
    x = image(net)
    with pytest.raises(InputShapeError) as error:
        net(torch.cat([x, x[:, :1]], dim=1))
    assert f"in_channels={net.in_channels + 1}" in error.value.hint
    with pytest.raises(InputShapeError) as error:
        net(x[0])
    assert "x[None]" in error.value.hint
    with pytest.raises(RuntimeError) as error:  # SMP's class
        net(x[..., : net.geometry.minimum - 1])
    assert str(net.geometry.minimum) in error.value.expected


def test_colors_for_a_gray_network_name_both_fixes():
    net = unetzoo.build("bnunet", in_channels=1, encoder_channels=(2, 4, 8))
    with pytest.raises(InputShapeError) as error:
        net(torch.zeros(1, 3, 32, 32))
    assert "in_channels=3" in error.value.hint and "data.channels=1" in error.value.hint


@pytest.mark.parametrize("depth", [2, 3, 6])
def test_any_depth(model_name, depth):
    net = tiny(model_name, encoder_channels=(4, *[6] * depth)).eval()
    x = image(net, size=1, batch=1)
    assert tensors(net(x))[0].shape[-1] == net.geometry.output(x.shape[-1])


PADDED = {"unet": {"padding": "same"}}


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (33, 50)])
@pytest.mark.parametrize("align", ["resize", "pad"])
def test_padded_networks_take_any_size(model_name, size, align):
    net = tiny(model_name, align=align, **PADDED.get(model_name, {})).eval()
    x = torch.randn(1, net.in_channels, *size)
    assert tensors(net(x))[0].shape[-2:] == size


def test_smp_trains_with_our_encoders():
    for name in ("unetzoo-bn", "unetzoo-r2", "unetzoo-dd"):
        for depth in (1, 5):
            encoder = smp.encoders.get_encoder(name, in_channels=2, depth=depth, weights=None)
            features = encoder.eval()(torch.zeros(1, 2, 32, 32))
            assert [f.shape[1] for f in features] == encoder.out_channels
            assert [32 // f.shape[-1] for f in features] == [2**level for level in range(depth + 1)]
        with pytest.raises(ConfigError):
            encoder.make_dilated(16)
    net = smp.UnetPlusPlus(
        encoder_name="unetzoo-r2", encoder_weights=None, encoder_depth=3, decoder_channels=(16, 8, 4), in_channels=1
    )
    net(torch.randn(2, 1, 32, 32)).mean().backward()
    assert all(p.grad is not None for p in net.encoder.parameters())
