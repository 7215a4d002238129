import json
import math

import numpy as np
import pytest
import torch
from conftest import tiny
from refusals import refused
from torch import nn

import unetzoo
from unetzoo import LOSSES, METRICS, LabelSpec, Trainer
from unetzoo.errors import CheckpointError, CheckpointMismatchError, ConfigError, NonFiniteError, SizeMismatchError
from unetzoo.models import Geometry
from unetzoo.training.evaluate import fit_targets


class Squares:
    """Bright squares on noise; the mask is the square."""

    labels = LabelSpec(("background", "square"))
    transform = None

    def __init__(self, length=8, size=32, seed=0, channels=1):
        self.length, self.size, self.seed, self.channels = length, size, seed, channels

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        rng = np.random.default_rng([self.seed, index])
        top, left = rng.integers(0, self.size // 2, 2)
        mask = torch.zeros(self.size, self.size, dtype=torch.int64)
        mask[top : top + self.size // 2, left : left + self.size // 2] = 1
        noise = torch.from_numpy(rng.random((self.channels, self.size, self.size), dtype=np.float32))
        depth = mask[None].float() * 0.5 + 0.25
        return {"image": noise + mask, "mask": mask, "depth": depth, "id": f"s{index}"}


def make(net=None, loss=None, metrics="segmentation", **settings):
    torch.manual_seed(0)
    net = net or tiny("bnunet", in_channels=1, classes=2, encoder_channels=(4, 8, 8))
    metrics = METRICS.build(metrics, labels=Squares.labels) if metrics == "segmentation" else metrics
    settings = {"epochs": 2, "batch_size": 4, "progress": False} | settings
    settings.setdefault("optimizer", torch.optim.Adam(net.parameters(), 1e-2))
    return Trainer(net, loss or LOSSES.build("ce"), metrics=metrics, **settings)


def test_it_learns():
    trainer = make(epochs=10)
    history = trainer.fit(Squares(16), Squares(8, seed=1))
    assert history[-1]["miou"] > 0.9
    assert history[-1]["train/loss"] < history[0]["train/loss"]


def test_same_seed_same_run():
    def run():
        torch.manual_seed(0)
        trainer = make(net=tiny("unet", padding="same", in_channels=1, classes=2))  # with dropout
        trainer.fit(Squares())
        return trainer.net.state_dict()

    first, second = run(), run()
    assert all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, optimizer):
    def trainer(out, epochs):
        torch.manual_seed(0)
        net = tiny("unet", padding="same", in_channels=1, classes=2, encoder_channels=(4, 8, 8))
        adam = torch.optim.Adam(net.parameters(), 1e-2)
        sgd = torch.optim.SGD(net.parameters(), 1e-2, momentum=0.9)
        chosen = {"adam": adam, "sgd": sgd}[optimizer]
        schedule = torch.optim.lr_scheduler.ExponentialLR(chosen, 0.5)
        return make(net, optimizer=chosen, scheduler=schedule, epochs=epochs, out=out)

    whole = trainer(tmp_path / "whole", 4)
    whole.fit(Squares(), Squares(4, seed=1))
    trainer(tmp_path / "parts", 2).fit(Squares(), Squares(4, seed=1))
    resumed = trainer(tmp_path / "parts", 4)
    torch.manual_seed(12345)
    resumed.fit(Squares(), Squares(4, seed=1), resume=True)
    assert all(torch.equal(v, resumed.net.state_dict()[k]) for k, v in whole.net.state_dict().items())

    def rows(trainer):
        return [{k: v for k, v in row.items() if k != "seconds"} for row in trainer.history]

    np.testing.assert_equal(rows(whole), rows(resumed))
    logged = (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in logged] == [1, 2, 3, 4]


def test_resume_refuses_another_run(tmp_path):
    with pytest.raises(ConfigError, match="run folder"):
        make().fit(Squares(), resume=True)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        make(out=tmp_path).fit(Squares(), resume=True)
    make(out=tmp_path, epochs=1, record={"a": 1}).fit(Squares())
    with pytest.raises(CheckpointMismatchError, match="another recipe"):
        make(out=tmp_path, record={"a": 2}).fit(Squares(), resume=True)
    with pytest.raises(CheckpointMismatchError, match="another network"):
        other = tiny("bnunet", in_channels=1, classes=2, encoder_channels=(4, 8, 9))
        make(other, out=tmp_path, record={"a": 1}).fit(Squares(), resume=True)


def test_the_best_network_is_kept(tmp_path):
    trainer = make(out=tmp_path, epochs=3, monitor="miou")
    scores = [row["miou"] for row in trainer.fit(Squares(), Squares(4, seed=1))]
    best = make(net=unetzoo.from_pretrained(tmp_path / "best"))
    assert best.evaluate(Squares(4, seed=1))["miou"] == pytest.approx(max(scores))
    with refused(ConfigError, hint="did you mean 'miou'"):
        make(monitor="mioo").fit(Squares(), Squares(4))


def test_evaluation_equals_a_plain_loop():
    trainer = make()
    data, counts = Squares(7, seed=5), torch.zeros(2, 2, dtype=torch.int64)
    scores = trainer.evaluate(data)
    trainer.net.eval()
    loss = 0.0
    with torch.no_grad():
        for i in range(7):
            logits = trainer.net(data[i]["image"][None])
            loss += nn.functional.cross_entropy(logits, data[i]["mask"][None]).item() / 7
            for t in range(2):
                for p in range(2):
                    counts[t, p] += ((data[i]["mask"] == t) & (logits[0].argmax(0) == p)).sum()
    assert torch.equal(trainer.metrics["mask"].confusion, counts)
    assert scores["val/loss"] == pytest.approx(loss, rel=1e-5)


def test_evaluation_by_tiles_equals_that_of_whole_images():
    whole = make()
    data = Squares(3, 96, seed=5)
    expected = whole.evaluate(data)
    tiled = make(whole.net, tile=80)
    sizes = []
    tiled.net.register_forward_pre_hook(lambda net, args: sizes.append(tuple(args[0].shape[-2:])))
    found = tiled.evaluate(data)
    assert len(sizes) > 3 and max(max(size) for size in sizes) <= 80
    assert torch.equal(tiled.metrics["mask"].confusion, whole.metrics["mask"].confusion)
    assert found["val/loss"] == pytest.approx(expected["val/loss"], rel=1e-5)
    with pytest.raises(ConfigError, match="tile"):
        make(tile=8).fit(data, data)


def test_a_smaller_output_is_trained_against_the_center_and_evaluated_everywhere():
    net = tiny("unet", in_channels=1, classes=2, encoder_channels=(4, 8, 8), dropout=0.0)
    size = net.geometry.fit(60)
    seen = {}

    def loss(output, target, *, weight=None):
        seen["shapes"] = tuple(output.shape[-2:]), tuple(target.shape[-2:])
        return nn.functional.cross_entropy(output, target)

    trainer = make(net, loss=loss, epochs=1)
    trainer.fit(Squares(4, size))
    assert seen["shapes"] == ((size - 40, size - 40),) * 2
    trainer.evaluate(Squares(2, 50))
    assert seen["shapes"] == ((50, 50), (50, 50))
    assert trainer.metrics["mask"].confusion.sum() == 2 * 50 * 50


def test_targets_are_aligned_with_the_output():
    place = torch.arange(20 * 20).reshape(1, 20, 20)
    fitted = fit_targets({"mask": place, "id": ["x"]}, torch.zeros(1, 2, 8, 8), None)
    assert torch.equal(fitted["mask"], place[:, 6:14, 6:14])
    coarse = fit_targets({"mask": place}, torch.zeros(1, 1, 10, 10), Geometry(minimum=4, stride=4, out_stride=2))
    assert torch.equal(coarse["mask"], place[:, ::2, ::2])
    with pytest.raises(SizeMismatchError):
        fit_targets({"mask": place}, torch.zeros(1, 2, 21, 21), None)


def test_two_heads_with_two_losses_and_two_metrics():
    net = tiny("dualunet", in_channels=1, encoder_channels=(4, 8, 8))
    loss = LOSSES.build("multitask", heads={"mask": {"bce": 1.0}, "depth": {"l1": 2.0}})
    metrics = {
        "mask": METRICS.build("segmentation", labels=Squares.labels),
        "depth": METRICS.build("depth"),
    }
    row = make(net, loss, metrics, epochs=3).fit(Squares(), Squares(4, seed=1))[-1]
    assert {"train/mask/bce", "train/depth/l1", "val/mask/bce", "iou/square", "depth/rmse"} <= set(row)
    assert row["train/loss"] == pytest.approx(row["train/mask/bce"] + row["train/depth/l1"], rel=1e-5)


def test_half_precision_and_clipping():
    history = make(precision="bf16", clip=0.5).fit(Squares(), Squares(4, seed=1))
    assert all(math.isfinite(row["train/loss"]) for row in history)


def test_a_classification_head_and_plain_tuples_are_left_aside():
    net = tiny("bnunet", in_channels=1, classes=2, encoder_channels=(4, 8, 8), aux_params={"classes": 3})
    assert "miou" in make(net, epochs=1).fit(Squares(), Squares(2))[0]


def test_smps_networks_and_losses_train_too():
    import segmentation_models_pytorch as smp

    net = smp.Unet(
        "resnet18", encoder_weights=None, encoder_depth=3, decoder_channels=(8, 8, 8), in_channels=1, classes=2
    )
    row = make(net, loss=smp.losses.DiceLoss("multiclass"), epochs=1).fit(Squares(), Squares(2))[0]
    assert "miou" in row


def test_a_loss_that_is_not_finite_stops_the_run_before_anything_is_saved(tmp_path):
    class Exploding(nn.Module):
        def forward(self, output, target, *, weight=None):
            return output.sum() * float("nan")

    with pytest.raises(NonFiniteError, match=r"samples \['s\d"):
        make(loss=Exploding(), out=tmp_path).fit(Squares())
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 0}, {"precision": "fp61"}, {"mode": "best"}], ids=str)
def test_wrong_settings(wrong):
    with pytest.raises(ConfigError):
        make(**wrong)


def test_a_metric_for_a_head_the_network_lacks():
    with pytest.raises(ConfigError, match="head"):
        make(metrics={"depth": METRICS.build("depth")}).fit(Squares(), Squares(2))


def test_training_does_not_change_forward():
    trainer = make(precision="bf16", epochs=1)
    trainer.fit(Squares())
    assert "forward" not in vars(trainer.net)


def test_a_network_that_returns_probabilities_is_refused():
    net = tiny("bnunet", in_channels=1, classes=1, activation="sigmoid")
    with pytest.raises(ConfigError, match="leave activation out"):
        make(net)  # a probability is always above the logit threshold 0: every pixel would count as foreground
