"""Prediction on a GPU: a fake one (see `fake_gpu`), or with simulated errors of CUDA."""

import pytest
import torch
from conftest import tiny
from fake_gpu import GPU, fake_gpu, moved
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import unetzoo
from unetzoo.inference import planner
from unetzoo.inference.decide import Decision, probabilities_of
from unetzoo.inference.stitching import Piece, arriving
from unetzoo.labels import LabelSpec

SIDES = LabelSpec(("background", "left", "right"), swap_pairs=((1, 2),), side="subject")


class Event:
    """One that has come to pass."""

    def record(self, stream):
        pass

    def synchronize(self):
        pass


def waits(where, size, monkeypatch, **options):
    """Operations that the host waits for while an image on the host or the GPU is predicted."""
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    with fake_gpu() as waiting:
        net = moved(unetzoo.build("bnunet", classes=3, encoder_channels=(4, 8, 8)))
        image = torch.empty(3, *size, device=where)
        waiting.seen.clear()
        answer = unetzoo.predict(net, image, **options)
        assert answer.shape == (3, *size) and answer.device.type == torch.device(where).type
        return waiting.seen


@pytest.mark.parametrize("where", ["cpu", GPU], ids=str)
@pytest.mark.parametrize("tta", [None, "d4"])
@pytest.mark.parametrize("blend", ["exact", "gaussian"])
def test_windows_do_not_synchronize_the_host(where, tta, blend, monkeypatch):
    few, many = (
        waits(where, size, monkeypatch, tile=64, tta=tta, blend=blend, labels=SIDES) for size in ((90, 70), (130, 150))
    )
    assert len(few) == len(many) <= 4  # places and weights of the windows, sent once


def test_views_of_their_own_mix_no_devices(monkeypatch):
    waits(GPU, (50, 60), monkeypatch, tta="paper")


class Rounding(TorchDispatchMode):
    """Convolutions in TF32, the default of GPUs: ten bits of mantissa."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default and torch.backends.cudnn.conv.fp32_precision == "tf32":
            args = (*(self.rounded(factor) for factor in args[:2]), *args[2:])
        return func(*args, **(kwargs or {}))

    @staticmethod
    def rounded(values):
        if values.dtype != torch.float32:
            return values
        return (values.contiguous().view(torch.int32) + 0x1000 & ~0x1FFF).view(torch.float32)


@pytest.mark.parametrize("name", ["bnunet", "r2unet"])
def test_rounding_on_a_gpu_is_no_changed_output(name):
    torch.manual_seed(0)
    net = tiny(name).eval()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(std=0.5)
            layer.running_var.uniform_(0.3, 3)
    there = unetzoo.optimize(net).report
    with Rounding():
        report = unetzoo.optimize(net).report
    assert report.folded == there.folded and report.merged == there.merged
    assert report.error <= 1e-4
    assert torch.backends.cudnn.conv.fp32_precision == "tf32" and torch.backends.cudnn.allow_tf32


def test_memory_that_torch_keeps_for_later_is_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10 * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 60 * 2**30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 10 * 2**30)
    assert planner._free(GPU) == 60 * 2**30 * planner.FREE


def test_half_precision_does_not_hide_differences():
    logits = torch.tensor([0.001, 0.002, 0.0015], dtype=torch.bfloat16).view(3, 1, 1)
    probabilities = probabilities_of(nn.Identity(), logits)
    assert probabilities.dtype == torch.float32
    assert Decision()(probabilities).item() == logits.argmax().item() == 1
    assert probabilities_of(nn.Identity(), logits[:1]).item() == pytest.approx(0.50025, abs=1e-5)
    assert probabilities_of(nn.Identity(), logits.double()).dtype == torch.float64


@pytest.mark.parametrize("tta", [None, "flips", "paper"])
def test_a_half_precision_network_predicts_files(tta, tmp_path):
    from PIL import Image

    net = unetzoo.optimize(tiny("dualunet", in_channels=3).eval(), dtype=torch.bfloat16)
    Image.new("RGB", (50, 31), (90, 40, 200)).save(tmp_path / "street.png")
    predictor = unetzoo.inference.Predictor(net, preprocess=unetzoo.Preprocess(), tta=tta, tile=64, blend="gaussian")
    assert predictor.predict_files(tmp_path / "street.png", tmp_path / "out", products="all") == []
    assert len(list((tmp_path / "out").iterdir())) == 6
    image = torch.randint(0, 256, (40, 60, 3)).to(torch.uint8).numpy()
    if tta != "paper":
        names = {name: tmp_path / f"{name}.npy" for name in ("depth", "probabilities")}
        unetzoo.inference.predict_to(
            net, image, tmp_path / "classes.npy", preprocess=unetzoo.Preprocess(), tta=tta, **names
        )
    if tta:
        answer, disagreement = unetzoo.inference.predict_with_uncertainty(net, image, tta=tta)
        assert answer[0].dtype == torch.bfloat16 and bool(disagreement[0].isfinite().all())


def test_a_piece_is_used_while_the_next_one_is_made(monkeypatch):
    happened = []

    class Noting(Event):
        def record(self, stream):
            happened.append("sent")

        def synchronize(self):
            happened.append("arrived")

    monkeypatch.setattr(torch.cuda, "Event", Noting)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)

    def made():
        for number in range(3):
            happened.append(f"made {number}")
            yield Piece(range(number, number + 1), range(4), (torch.full((1, 1, 4), number),))

    for rows, _, heads in arriving(made()):
        assert heads[0].unique().tolist() == [rows.start]
        happened.append(f"used {rows.start}")
    assert happened == [
        "made 0", "sent",
        "made 1", "sent", "arrived", "used 0",
        "made 2", "sent", "arrived", "used 1",
        "arrived", "used 2",
    ]  # fmt: skip
    assert not list(arriving(iter(())))
