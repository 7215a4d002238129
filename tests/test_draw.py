"""Figures: stages as printed in papers, foreign networks, well-formed SVG."""

import re
import xml.etree.ElementTree as ET
from typing import NamedTuple

import pytest
import torch
from conftest import OURS
from torch import nn
from torch.nn.functional import interpolate, max_pool2d

import unetzoo
from unetzoo.drawing.layout import lay_out
from unetzoo.drawing.reading import figure_of
from unetzoo.drawing.svg import FAINT, FILLS, INK, PAPER
from unetzoo.drawing.trace import traced
from unetzoo.errors import ConfigError, InputShapeError, UnknownNameError

SVG = "{http://www.w3.org/2000/svg}"


def figure(model, size=None, **config):
    return figure_of(traced(model, size, **config)[1])


def skips(found):
    return [edge for edge in found.edges if edge.kind == "skip"]


def convolutions(stage):
    return [layer for layer in stage.layers if layer.kind == "conv"]


def test_the_unet_papers_figure():
    """Sizes and channels as printed in figure 1 of arXiv:1505.04597."""
    found = figure("unet", in_channels=1, classes=2)
    stages = list(found.stages.values())
    assert [stage.level for stage in stages] == [0, 1, 2, 3, 4, 3, 2, 1, 0]
    assert [stage.size[0] for stage in stages] == [568, 280, 136, 64, 28, 52, 100, 196, 388]
    first = [convolutions(stage)[0].channels for stage in stages]
    assert first == [64, 128, 256, 512, 1024, 512, 256, 128, 64]
    concatenations = [layer.channels for stage in stages for layer in stage.layers if layer.kind == "cat"]
    assert concatenations == [1024, 512, 256, 128]
    assert len(skips(found)) == 4 and stages[-1].outputs == [("", 2)]
    assert {edge.label for edge in found.edges} == {"max-pool 2×2", "up-conv 2×2", ""}


def test_recurrence_is_counted_per_application():
    times = [[layer.times for layer in convolutions(stage)] for stage in figure("r2unet", t=3).stages.values()]
    assert times[0] == [1, 4, 4]
    assert times[-1] == [1, 1, 4, 4, 1]  # up-convolution, 1×1, two recurrent layers, head


def test_dilation_is_only_at_the_coarse_levels():
    found = figure("ddunet")
    dilated = {stage.level for stage in found.stages.values() for layer in stage.layers if layer.dilation == 3}
    assert dilated == {2, 3}
    assert (
        figure("ddunet", variant="original").stages.keys() == found.stages.keys()
    )  # its up-convolutions have stride 3


def test_two_heads_are_two_ways_up():
    found = figure("dualunet")
    assert [stage.outputs for stage in found.stages.values() if stage.outputs] == [[("mask", 1)], [("depth", 1)]]
    assert len(skips(found)) == 8


def test_nested_skips():
    """UNet++ (arXiv:1807.10165): node X(i, j) takes its j predecessors of the row; here rows 1–4 hold 4, 3, 2, 1."""
    found = figure("smp-unetplusplus")
    assert len(skips(found)) == sum(range(5)) + sum(range(4)) + sum(range(3)) + 1
    assert len([edge for edge in found.edges if edge.kind == "up"]) == 4 + 3 + 2 + 1 + 1


def test_residual_units_and_inceptions_are_no_skips():
    found = figure("smp-unet")
    assert [stage.level for stage in found.stages.values()] == [0, 1, 2, 3, 4, 5, 4, 3, 2, 1, 0]
    assert len(skips(found)) == 4


def test_pyramids():
    fpn = figure("smp-fpn")
    assert len([e for e in fpn.edges if e.kind == "up" and fpn.stages[e.target].level == 2]) == 4  # one joins the path
    upernet = figure("smp-upernet")
    notes = [note for stage in upernet.stages.values() for note in stage.notes]
    assert notes == ["global context", "2×2 context", "3×3 context", "6×6 context"]


class Gated(nn.Module):
    """One pooling; the skip passes a gate that reads both maps, and comes last in the concatenation."""

    def __init__(self):
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 12, 3, padding=1)
        self.up, self.gate = nn.ConvTranspose2d(12, 12, 2, stride=2), nn.Conv2d(12, 4, 1)
        self.head = nn.Conv2d(16, 1, 1)

    def forward(self, x):
        skip = self.fine(x)
        up = self.up(self.coarse(max_pool2d(skip, 2)))
        return self.head(torch.cat([up, skip * (skip + self.gate(up)).sigmoid()], 1))


def test_a_skip_that_passed_a_gate_is_drawn_as_a_skip():
    stages = figure(Gated(), 32).stages
    assert [stage.level for stage in stages.values()] == [0, 1, 0]
    (joined,) = [layer for layer in stages[max(stages)].layers if layer.kind == "cat"]
    assert joined.parts == [(max(stages), 12), (0, 4)]
    rectangles = ET.fromstring(unetzoo.draw(Gated(), 32)).iter(f"{SVG}rect")
    shares = [(box.get("fill"), float(box.get("width"))) for box in rectangles if box.get("stroke-width") == ".4"]
    assert [fill for fill, _ in shares] == [FILLS["cat"], FILLS["skip"]]
    assert shares[0][1] == pytest.approx(3 * shares[1][1], abs=0.2)


def test_names_of_outputs_cannot_break_out_of_the_figure():
    class Named(nn.Module):
        def forward(self, x):
            return {"<b>a & b": x * 2, "[/x]\x1b[2J\u202e": x * 3}

    text = unetzoo.draw(Named(), 32)
    ET.fromstring(text)
    assert "\x1b" not in text and "\u202e" not in text and "<b>" not in text
    assert "&lt;b&gt;a &amp; b" in text and "[/x]\ufffd[2J\ufffd" in text


class Output(NamedTuple):
    mask: torch.Tensor
    edges: torch.Tensor


class Foreign(nn.Module):
    """A network without our classes: gates, in-place sums, tokens, tensor values, several outputs."""

    def __init__(self):
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.squeeze, self.norm = nn.Conv2d(16, 16, 1), nn.BatchNorm2d(8)
        self.attend = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head, self.edges = nn.Conv2d(24, 4, 1), nn.Conv2d(24, 1, 1)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu_()
        if x.sum() < -1e9:
            raise RuntimeError("never")
        y = self.down(x)
        y = y * self.squeeze(y.mean((2, 3), keepdim=True)).sigmoid()
        tokens = y.flatten(2).transpose(1, 2)
        y = y + self.attend(tokens, tokens, tokens)[0].transpose(1, 2).reshape(y.shape)
        y = torch.cat([interpolate(y, x.shape[-2:]), x], 1)
        return Output(self.head(y), self.edges(y))


def test_foreign_networks_are_drawn_and_unchanged():
    net = Foreign().train()
    net.norm.eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    found = figure(net, 32)
    assert [(stage.level, stage.size) for stage in found.stages.values()] == [
        (0, (32, 32)),
        (1, (16, 16)),
        (0, (32, 32)),
    ]
    assert found.stages[1].notes == ["global context"]
    assert "attention" in [layer.kind for layer in found.stages[1].layers]
    assert [stage.outputs for stage in found.stages.values()][-1] == [("mask", 4), ("edges", 1)]
    assert net.training and not net.norm.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_registered_network_of_tier_one(monkeypatch):
    monkeypatch.setattr(unetzoo.MODELS, "_local", {})

    @unetzoo.MODELS.register("foreign")
    def foreign(in_channels: int = 3, classes: int = 4):
        return Foreign()

    assert "Foreign (foreign)" in unetzoo.draw("foreign", 32)


@pytest.mark.parametrize("name", [*OURS, "smp-unet", "smp-fpn", "smp-pan", "smp-dpt"])
def test_figures_are_readable(name):
    net, trace = traced(name)
    layout = lay_out(figure_of(trace), trace.shape[1])
    boxes = list(layout.boxes.values())
    for number, box in enumerate(boxes):
        assert 0 <= box.x < box.right <= layout.width and 0 < box.y < box.y + box.height < layout.height
        for other in boxes[number + 1 :]:
            apart = box.right < other.x or other.right < box.x
            assert apart or box.y + box.height < other.y or other.y + other.height < box.y
    root = ET.fromstring(unetzoo.draw(name))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert root.get("role") == "img" and f"{sum(p.numel() for p in net.parameters()):,} parameters" in texts[1]
    assert "to 64 channels" in root.find(f"{SVG}desc").text or "layers" in root.find(f"{SVG}desc").text
    width, height = map(float, root.get("viewBox").split()[2:])
    for element in root.iter(f"{SVG}text"):
        long = 0.62 * float(element.get("font-size")) * len(element.text)
        start = float(element.get("x")) - {"middle": long / 2, "end": long}.get(element.get("text-anchor"), 0)
        assert start >= 0 and start + long <= width + 12 and float(element.get("y")) < height


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("color", [INK, FAINT, FILLS["output"]])
def test_text_has_the_contrast_that_wcag_requires(color):
    assert (luminance(PAPER) + 0.05) / (luminance(color) + 0.05) >= 4.5


def test_a_figure_is_the_same_every_time():
    assert unetzoo.draw("bnunet", 64) == unetzoo.draw("bnunet", 64)


def test_images_rearranged_before_the_first_convolution():
    net = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 8, 1), nn.PixelShuffle(2))
    with pytest.raises(ConfigError) as caught:
        unetzoo.draw(net, 32)
    assert "channels" in caught.value.hint
    stages = figure(net, 32, in_channels=3).stages.values()
    assert [(stage.level, stage.channels) for stage in stages] == [(0, 3), (1, 8), (0, 2)]


@pytest.mark.parametrize("net", [nn.Identity(), nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))])
def test_networks_without_levels_are_drawn_too(net):
    assert ET.fromstring(unetzoo.draw(net, 32)) is not None


def test_titles_are_text():
    drawn = unetzoo.draw("bnunet", 64, title="a < b & \x1b\x00")
    title = next(e.text for e in ET.fromstring(drawn).iter() if e.tag.endswith("title"))
    assert title.startswith("a < b & \ufffd\ufffd:")


class Broken(nn.Module):
    in_channels = 3

    def forward(self, x):
        return x.view(-1, 7)


def test_undrawable_networks_are_errors():
    with pytest.raises(ConfigError) as caught:
        unetzoo.draw(Broken(), 100)
    assert "3×100×100" in caught.value.subject and caught.value.hint
    with pytest.raises(ConfigError) as caught:
        unetzoo.draw("unet", 0)
    assert caught.value.found == 0
    for no_size in ("net.svg", (3, 64, 64)):
        with pytest.raises(ConfigError):
            unetzoo.draw("unet", no_size)
    with pytest.raises(ConfigError) as caught:
        unetzoo.draw(Foreign(), classes=3)
    assert caught.value.found == "classes"
    with pytest.raises(UnknownNameError) as caught:
        unetzoo.draw("unett")
    assert "'unet'" in caught.value.hint
    with pytest.raises(InputShapeError):
        unetzoo.draw("r2unet", 8, encoder_channels=[4, 4, 4, 4, 4]) and unetzoo.build("r2unet")(torch.zeros(1, 3, 8, 8))


def run(*args):
    from unetzoo.cli import main

    with pytest.raises(SystemExit) as end:
        main([str(a) for a in args])
    return end.value.code


def test_the_command_writes_the_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("draw", "ddunet", "--set", "classes=19") == 0
    assert "19×256×256" in (tmp_path / "ddunet.svg").read_text(encoding="utf-8")
    assert run("draw", "ddunet", "--size", 64, "--title", "Mine", "--out", "-") == 0
    out = capsys.readouterr().out
    assert re.search(r"<svg.*Mine: 3×64×64", out, re.DOTALL)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["ddunet", "--out", "a.png"], "ends in .svg"),
        (["ddunet", "--out", "missing/a.svg"], "No such file"),
        (["ddunett"], "did you mean 'ddunet'"),
        (["ddunet", "--set", "clases=3"], "did you mean 'classes'"),
        (["ddunet", "--size", "-3"], "an integer ≥ 1"),
    ],
)
def test_errors_of_the_command(args, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("draw", *args) == 2
    assert message in capsys.readouterr().err
