"""Summaries: counted by hand for a network of three layers, and printed as a tree."""

import json

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import unetzoo
from unetzoo.cli import main


class Three(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.act, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return self.second(self.act(self.first(x)))


def test_costs_counted_by_hand():
    found = unetzoo.summary(Three(), 16)
    pixels = 16 * 16
    first, act, second = found.root.parts
    assert [part.parameters for part in (first, act, second)] == [3 * 8 * 9 + 8, 0, 8 * 2 + 2]
    assert [part.flops for part in (first, act, second)] == [2 * 27 * 8 * pixels, 0, 2 * 8 * 2 * pixels]
    assert found.root.flops == first.flops + second.flops
    # the activation, kept by act and second, and the output; the first map itself is freed
    assert [part.training_bytes for part in (first, act, second)] == [0, 4 * pixels * 8, 4 * pixels * 2]
    assert found.root.training_bytes == 4 * pixels * (8 + 2)
    assert [part.output for part in (first, second)] == [[(8, 16, 16)], [(2, 16, 16)]]
    # image, the first map and its activation live at once; with the second layer's output it is less
    assert found.inference_bytes == 4 * pixels * (3 + 8 + 8)
    assert found.weight_bytes == 4 * found.root.parameters and found.trainable == found.root.parameters


def test_frozen_weights_keep_no_maps():
    net = Three().requires_grad_(False)
    found = unetzoo.summary(net, 16)
    assert found.trainable == 0 and found.root.training_bytes == 4 * 16 * 16 * 2


def test_recomputed_maps_are_not_kept():
    class Recomputed(Three):
        def forward(self, x):
            return self.second(checkpoint(lambda x: self.act(self.act(self.first(x))), x, use_reentrant=False))

    pixels = 16 * 16
    assert unetzoo.summary(Recomputed(), 16).root.training_bytes == 4 * pixels * (8 + 2)


def test_the_network_is_unchanged():
    net = unetzoo.build("bnunet", encoder_channels=(4, 8, 8)).train()
    net.encoder.eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    unetzoo.summary(net, 32)
    assert net.training and not net.encoder.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize("name", ["unet", "smp-deeplabv3", "smp-segformer"])
def test_parts_add_up(name):
    root = unetzoo.summary(name).root
    for _, part in root.walk():
        if part.parts:
            assert sum(p.flops for p in part.parts) <= part.flops
            assert sum(p.training_bytes for p in part.parts) <= part.training_bytes
    assert root.flops > 1e9 and root.training_bytes > 1e6


def test_a_recurrent_part_ran_several_times():
    parts = {part.name: part for _, part in unetzoo.summary("r2unet", 32, encoder_channels=[4, 4, 4]).root.walk()}
    assert parts["conv"].calls == 3


def test_a_named_network_that_reads_its_values(monkeypatch):
    monkeypatch.setattr(unetzoo.MODELS, "_local", {})

    @unetzoo.MODELS.register("looking")
    def looking(in_channels: int = 3, classes: int = 2):
        class Looking(Three):
            def forward(self, x):
                return super().forward(x) if float(x.sum()) == 0 else x

        return Looking()

    assert (
        unetzoo.summary("looking", 16).to_dict()["root"]["parts"]
        == unetzoo.summary(Three(), 16).to_dict()["root"]["parts"]
    )


def test_info_prints_the_tree(capsys):
    main_ends("info", "bnunet", "--size", "64", "--set", "encoder_channels=[4, 8, 8]", "--depth", "1")
    printed = capsys.readouterr().out
    assert "encoder" in printed and "blocks" not in printed and "for one image of 3×64×64" in printed
    main_ends("info", "bnunet", "--size", "64", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["summary"]["root"]["parameters"] == found["parameters"] == 31_037_633
    main_ends("info", "bnunet", "--json")
    assert "summary" not in json.loads(capsys.readouterr().out)


def main_ends(*args):
    with pytest.raises(SystemExit) as end:
        main(list(args))
    assert end.value.code == 0
