"""Ordinary PyTorch objects work, or are refused in our words before the first step and before anything is written."""

import pytest
import torch
from small_runs import At, Augmented, Small, fit, make_small
from test_resume import CrashError, crash
from test_trainer import Squares, make
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, WeightedRandomSampler

from unetzoo import LOSSES, METRICS, Trainer
from unetzoo.errors import ConfigError, DataError, PluginContractError
from unetzoo.training import Callback, checkpoint


class Changed(Squares):
    """Samples that are changed on the way out."""

    def __init__(self, change, length=4, size=16):
        super().__init__(length, size)
        self.change = change

    def __getitem__(self, index):
        return self.change(super().__getitem__(index))


class Wrapped(nn.Module):
    """A network whose output is wrapped."""

    def __init__(self, wrap):
        super().__init__()
        self.net, self.wrap = Small(), wrap

    def forward(self, x):
        return self.wrap(self.net(x))


def run(**settings):
    net = settings.pop("net", None) or Small()
    data = settings.pop("data", Squares(4, 16))
    trainer = make(net, settings.pop("loss", None), settings.pop("metrics", "segmentation"), epochs=1, **settings)
    return trainer.fit(data, settings.get("val", Squares(2, 16)))[0]


def test_a_dict_with_out_is_an_output():
    assert run(net=Wrapped(lambda logits: {"out": logits, "aux": logits[:, :1]}))["miou"] >= 0


def test_samples_may_be_pairs_and_images_float64():
    pairs = Changed(lambda sample: (sample["image"].double(), sample["mask"]))
    plain = run(optimizer=None)
    assert run(data=pairs, optimizer=None)["train/loss"] == pytest.approx(plain["train/loss"], rel=1e-4)


def test_a_dataloader_gives_its_dataset_and_batch_size(tmp_path):
    trainer = make_small(tmp_path, epochs=1, accumulate=1, batch_size=2)
    trainer.fit(DataLoader(Augmented(8), batch_size=4, shuffle=True), DataLoader(Augmented(2)))
    assert trainer.steps == 2
    assert checkpoint.latest(tmp_path / "checkpoints").state["settings"]["train"]["batch_size"] == 4


def test_a_metric_of_torchmetrics_is_a_metric():
    torchmetrics = pytest.importorskip("torchmetrics")
    metrics = torchmetrics.MetricCollection(
        {"accuracy": torchmetrics.classification.MulticlassAccuracy(2, average="micro"),
         "recall": torchmetrics.classification.MulticlassRecall(2, average=None)}
    )  # fmt: skip
    for metric, monitor in ((metrics, "accuracy"), (torchmetrics.JaccardIndex("multiclass", num_classes=2), None)):
        trainer = Trainer(Small(), LOSSES.build("ce"), metrics=metric, monitor=monitor, epochs=1, progress=False)
        row = trainer.fit(Squares(4, 16), Squares(3, 16))[0]
        expected = {"accuracy", "recall/0", "recall/1"} if monitor else {"multiclassjaccardindex"}
        assert expected <= row.keys() and all(0 <= row[name] <= 1 for name in expected)


def test_a_binary_metric_of_torchmetrics_takes_a_single_channel():
    torchmetrics = pytest.importorskip("torchmetrics")
    net, metric = nn.Conv2d(1, 1, 3, padding=1), torchmetrics.JaccardIndex("binary")
    trainer = Trainer(net, LOSSES.build("bce"), metrics=metric, epochs=1, progress=False)
    val = Squares(3, 16)
    row = trainer.fit(Squares(4, 16), val)[0]
    masks = torch.stack([val[index]["mask"] for index in range(3)])
    outputs = torch.cat([output for _, output in trainer.outputs(val)])[:, 0]
    assert row["binaryjaccardindex"] == pytest.approx(float(torchmetrics.JaccardIndex("binary")(outputs, masks)))


CE = nn.CrossEntropyLoss()


def sgd():
    return torch.optim.SGD(Small().parameters(), 0.1)


class Stream(IterableDataset):
    def __iter__(self):
        yield from (Squares(4, 16)[index] for index in range(4))


def own_order():
    return DataLoader(Squares(4, 16), sampler=WeightedRandomSampler([1.0] * 4, 4))


def of_sample(**planes):
    return lambda sample: {**sample, **{name: change(sample[name]) for name, change in planes.items()}}


REFUSED = {
    "list": (PluginContractError, lambda: {"net": Wrapped(lambda logits: [logits])}),
    "dict": (PluginContractError, lambda: {"net": Wrapped(lambda logits: {"mask": logits})}),
    "uint8": (DataError, lambda: {"data": Changed(lambda sample: {**sample, "image": (sample["image"] * 99).byte()})}),
    "strings": (DataError, lambda: {"data": Changed(lambda sample: "sample")}),
    "iterable": (ConfigError, lambda: {"data": Stream()}),
    "sampler": (ConfigError, lambda: {"data": own_order()}),
    "collate": (ConfigError, lambda: {"data": DataLoader(Squares(4, 16), collate_fn=list)}),
    "no reduction": (ConfigError, lambda: {"loss": nn.CrossEntropyLoss(reduction="none")}),
    "mapping": (ConfigError, lambda: {"data": {"image": torch.ones(1)}}),
    "loader of an iterable": (ConfigError, lambda: {"data": DataLoader(Stream(), batch_size=2)}),
    "channels last": (ConfigError, lambda: {"data": Changed(of_sample(image=lambda image: image.permute(1, 2, 0)))}),
    "no such class": (ConfigError, lambda: {"data": Changed(of_sample(mask=lambda mask: mask + 5)), "loss": CE}),
    "shapes": (ConfigError, lambda: {"loss": nn.BCEWithLogitsLoss()}),
    "no tensor": (ConfigError, lambda: {"loss": lambda output, target: 1.0}),
    "no loss": (ConfigError, lambda: {"loss": lambda output, target: (output.sum(), target.sum())}),
    "metric by name": (ConfigError, lambda: {"metrics": [1]}),
    "optimizer by name": (ConfigError, lambda: {"optimizer": "adamw"}),
    "scheduler by name": (ConfigError, lambda: {"scheduler": "cosine"}),
    "foreign scheduler": (ConfigError, lambda: {"scheduler": torch.optim.lr_scheduler.StepLR(sgd(), 1)}),
    "one callback": (ConfigError, lambda: {"callbacks": Callback()}),
    "workers": (ConfigError, lambda: {"workers": 100_000}),
    "double": (ConfigError, lambda: {"net": Small().double()}),
}


@pytest.mark.parametrize("what", REFUSED)
def test_impossible_arguments_are_refused_before_the_first_step(what, tmp_path):
    error, given = REFUSED[what]
    with pytest.raises(error) as caught:
        run(out=tmp_path / "run", **given())
    assert caught.value.hint
    assert not (tmp_path / "run").exists()


def test_a_loss_without_a_gradient_changes_nothing():
    net = Small()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ConfigError) as caught:
        run(net=net, loss=lambda output, target: output.detach().mean())
    assert caught.value.subject == "loss"
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_masks_may_be_of_any_integer_type(dtype):
    assert run(data=Changed(of_sample(mask=lambda mask: mask.to(dtype))), loss=CE)["train/loss"] > 0


def test_several_metrics_of_one_head(tmp_path):
    metrics = [METRICS.build("segmentation", num_classes=2), METRICS.build("segmentation", num_classes=2)]
    row = run(optimizer=None, metrics=metrics, monitor="miou_2", out=tmp_path)
    assert row["miou"] == row["miou_2"] == metrics[1].compute()["miou"]
    assert row["iou_2/1"] == row["iou/1"]
    assert torch.equal(metrics[0].confusion, metrics[1].confusion)


def test_optimizers_and_schedulers_that_do_not_fit_are_refused():
    net = Small()
    for unsuitable in (torch.optim.LBFGS(net.parameters()), torch.optim.SparseAdam(list(net.parameters()))):
        with pytest.raises(ConfigError) as caught:
            make(net, optimizer=unsuitable)
        assert caught.value.subject == "optimizer"
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    short = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=2)
    with pytest.raises(ConfigError) as caught:
        make(net, optimizer=optimizer, scheduler=short, epochs=3).fit(Squares(4, 16))
    assert caught.value.subject == "OneCycleLR" and "total_steps=3" in caught.value.hint


def test_training_does_not_depend_on_torchs_switches():
    with torch.no_grad():
        assert run()["train/loss"] > 0
    trainer, net = make(epochs=1), Small()
    with torch.inference_mode():
        assert trainer.fit(Squares(4, 16))[0]["train/loss"] > 0
        with pytest.raises(ConfigError) as caught:
            Trainer(net, LOSSES.build("ce"), progress=False)
    assert "inference_mode" in caught.value.hint
    torch.set_default_device("meta")
    try:
        with pytest.raises(ConfigError) as caught:
            Trainer(net, LOSSES.build("ce"), progress=False)
    finally:
        torch.set_default_device(None)
    assert "set_default_device" in caught.value.subject


class Tied(Small):
    """Two names for one convolution and one norm."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__()
        self.again = self.encoder[0]
        self.norm = self.encoder[1]


def test_tied_weights_are_saved_and_resumed(tmp_path):
    whole = make_small(tmp_path / "whole", net=Tied())
    fit(whole)
    with pytest.raises(CrashError):
        fit(make_small(tmp_path / "parts", net=Tied(), checkpoint_steps=1, batch_transform=At(8, crash)))
    resumed = make_small(tmp_path / "parts", net=Tied(), checkpoint_steps=1)
    fit(resumed, resume=True)
    assert resumed.net.again is resumed.net.encoder[0]
    for a, b in zip(whole.net.state_dict().values(), resumed.net.state_dict().values(), strict=True):
        assert torch.equal(a, b)


class Pooled(nn.Module):
    """A norm that sees 1×1, as in ASPP."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))

    def forward(self, x):
        features = self.conv(x)
        return features + self.pool(features)


def pooled(length, out=None, **settings):
    net = Pooled()
    trainer = Trainer(net, LOSSES.build("ce"), out=out, batch_size=2, epochs=1, progress=False, **settings)
    trainer.fit(Squares(length, 16))
    return trainer


def test_a_last_batch_of_one_sample_is_refused_at_once_or_left_out(tmp_path):
    before = Pooled().pool[2].running_mean.clone()
    with pytest.raises(ConfigError) as caught:
        pooled(5, tmp_path / "run")
    assert "drop_last" in caught.value.hint and not (tmp_path / "run").exists()
    assert pooled(5, drop_last=True).steps == 2
    assert pooled(4).steps == 2
    trainer = Trainer(Pooled(), LOSSES.build("ce"), batch_size=2, epochs=1, progress=False)
    trainer._prepare(Squares(4, 16), None)
    assert torch.equal(trainer.net.pool[2].running_mean, before)  # the rehearsal leaves nothing behind
    with pytest.raises(ConfigError) as caught:
        pooled(1, drop_last=True)
    assert caught.value.subject == "train.drop_last"
    with pytest.raises(ConfigError) as caught:
        pooled(1)
    assert "batch_size" in caught.value.hint and "drop_last" not in caught.value.hint


def test_a_share_consists_of_whole_batches(tmp_path):
    seen = []

    def look(batch):
        seen.extend(batch["id"])

    trainer = make_small(epochs=2, batch_size=4, accumulate=1, drop_last=True, batch_transform=At(0, look))
    trainer.batch_transform = lambda batch: look(batch) or batch
    trainer.fit(Augmented(10))
    assert trainer.steps == 4 and len(seen[2:]) == 16  # the rehearsal takes two
    assert len({*seen[2:10]}) == 8


def test_settings_that_change_no_result_may_change_on_resume(tmp_path):
    fit(make_small(tmp_path, epochs=2, patience=1, monitor="train/loss", mode="max", workers=0))
    longer = make_small(tmp_path, epochs=4, patience=9, keep=5, checkpoint_steps=2, workers=1, monitor="train/loss",
                        mode="max")  # fmt: skip
    assert len(fit(longer, resume=True)) == 4


def test_another_number_of_threads_is_warned_of(tmp_path, monkeypatch):
    fit(make_small(tmp_path, epochs=1))
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    with pytest.warns(UserWarning, match="OMP_NUM_THREADS"):
        fit(make_small(tmp_path, epochs=2), resume=True)


class Unused(Small):
    def __init__(self):
        super().__init__()
        self.idle = nn.Conv2d(1, 1, 1)


def as_of_two(trainer):
    """A Trainer that takes itself for one of several processes."""
    trainer.world, trainer.train_step.several = 2, True
    trainer._summed = trainer.train_step.reduce = lambda part: part
    trainer.accelerator.prepare_model = lambda model: model
    return trainer


def test_several_processes_refuse_parameters_without_a_gradient_by_name():
    with pytest.raises(ConfigError) as caught:
        as_of_two(make_small(net=Unused(), epochs=1)).fit(Augmented(8))
    assert "net.idle.weight" in caught.value.found and "find_unused_parameters" in caught.value.hint
    as_of_two(make_small(net=Unused(), epochs=1, find_unused_parameters=True, ema=None)).fit(Augmented(8))
    make_small(net=Unused(), epochs=1).fit(Augmented(8))  # a single process has no need to know
