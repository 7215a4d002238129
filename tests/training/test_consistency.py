"""Validation scores the output of `predict`, and a network is used as it was trained."""

import json

import numpy as np
import pytest
import torch
from conftest import small
from PIL import Image
from test_trainer import Squares, make

import unetzoo
from unetzoo import METRICS, LabelSpec, Trainer
from unetzoo.bundle import ModelBundle, Preprocess
from unetzoo.datasets import Transform
from unetzoo.errors import CheckpointError, ConfigError
from unetzoo.heads import heads_of
from unetzoo.inference import predict, predict_batch
from unetzoo.training import load_run

NETWORKS = {
    "unet": {"padding": "same"}, "bnunet": {}, "r2unet": {}, "ddunet": {}, "dualunet": {},
    "half": {"name": "dualunet", "out_stride": 2}, "valid": {"name": "unet"}, "pad": {"name": "bnunet", "align": "pad"},
}  # fmt: skip


def network(key):
    options = {"name": key, "in_channels": 1, "classes": 2} | NETWORKS[key]
    if options["name"] == "ddunet":
        options["in_channels"] = 2
    return small(**options)


class Sizes:
    """Images of every size from 1 to `last` along one axis, with some other size along the other."""

    labels = LabelSpec(("background", "square"))
    transform = None

    def __init__(self, last, channels, of_pixels=1):
        self.sizes = [(n, last + 1 - n) for n in range(1, last + 1)] + [(n, n) for n in range(1, last + 1)]
        self.channels, self.of_pixels = channels, of_pixels

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        height, width = self.sizes[index]
        image = torch.from_numpy(rng.normal(size=(self.channels, height, width)).astype(np.float32))
        mask = torch.from_numpy(rng.integers(0, 2, (height, width)))
        return {"image": image, "mask": mask, "id": f"{height}x{width}"}


@pytest.mark.parametrize("key", NETWORKS)
def test_evaluation_scores_the_output_of_predict_at_every_size(key):
    net = network(key)
    stride = net.geometry.stride
    data = Sizes(3 * stride, net.in_channels)
    trainer = make(net, epochs=1, batch_size=3)
    seen = 0
    for batch, output in trainer.outputs(data):
        for index, image in enumerate(batch["image"]):
            expected = heads_of(predict(net, image))
            for head, logits in heads_of(output).items():
                torch.testing.assert_close(logits[index], expected[head], atol=1e-5, rtol=0)
            seen += 1
    assert seen == len(data)


@pytest.mark.parametrize("key", ["bnunet", "r2unet", "dualunet"])
def test_scores_are_those_of_predict_on_the_same_images(key):
    net = network(key)
    data = Sizes(3 * net.geometry.stride, net.in_channels)
    scores = make(net, epochs=1, batch_size=4).evaluate(data)
    metric = METRICS.build("segmentation", labels=data.labels)
    for sample in data:
        metric.update(heads_of(predict(net, sample["image"]))["mask"][None], sample["mask"][None])
    expected = metric.compute()
    assert {name: scores[name] for name in expected} == pytest.approx(expected, nan_ok=True)


def test_a_batch_goes_through_the_network_once():
    net, calls = network("bnunet"), []
    net.register_forward_hook(lambda *_: calls.append(1))
    outputs = predict_batch(net, torch.rand(5, 1, 13, 10))
    assert outputs.shape == (5, 2, 13, 10) and len(calls) == 1


# ---- what belongs to a trained network


class Shapes:
    """uint8 images with a bright square, dark or light as a whole; normalization matters."""

    labels = LabelSpec(("background", "square"), palette=((0, 0, 0), (250, 10, 10)))

    def __init__(self, length=6, seed=0, transform=None):
        self.length, self.seed, self.transform = length, seed, transform

    def __len__(self):
        return self.length

    def raw(self, index):
        rng = np.random.default_rng([self.seed, index])
        top, left = rng.integers(2, 14, 2)
        mask = np.zeros((29, 30), np.uint8)
        mask[top : top + 12, left : left + 12] = 1
        image = rng.integers(0, 20, (29, 30, 1)) + 40 * int(rng.integers(0, 4)) + 60 * mask[..., None]
        return {"image": image.astype(np.uint8), "mask": mask, "id": f"s{index}"}

    def __getitem__(self, index):
        sample = self.raw(index)
        return sample if self.transform is None else self.transform(sample, np.random.default_rng(0))


def trained(out, normalize="standard", size=None, **settings):
    torch.manual_seed(0)
    net = unetzoo.build("bnunet", in_channels=1, classes=2, encoder_channels=(4, 8, 8))
    metric = METRICS.build("segmentation", labels=Shapes.labels)
    trainer = Trainer(net, unetzoo.LOSSES.build("ce"), metrics=metric, out=out, batch_size=3, progress=False,
                      optimizer=torch.optim.Adam(net.parameters(), 1e-2), **{"epochs": 3} | settings)  # fmt: skip
    data = Shapes(9, transform=Transform(size, crop=24, hflip=0.5, normalize=normalize))
    val = Shapes(4, seed=1, transform=Transform(size, normalize=normalize, train=False))
    trainer.fit(data, val)
    return trainer, val


def scores_of(predictor, val, folder):
    """IoU of the predictions of the images as files."""
    metric = METRICS.build("segmentation", labels=val.labels)
    folder.mkdir(exist_ok=True)
    for index in range(len(val)):
        sample = val.raw(index)
        Image.fromarray(sample["image"][..., 0]).save(folder / "image.png")
        logits = predictor.segment(folder / "image.png").probabilities
        labels = torch.as_tensor(np.asarray(logits)).argmax(0)
        metric.update(labels[None], torch.from_numpy(sample["mask"].astype(np.int64))[None])
    return metric.compute()["miou"]


@pytest.mark.parametrize("normalize", ["unit", "minmax", "standard", {"mean": (0.4,), "std": (0.2,)}], ids=str)
def test_a_network_trained_from_python_keeps_its_preprocessing(tmp_path, normalize):
    trainer, val = trained(tmp_path / "run", normalize)
    expected = max(row["miou"] for row in trainer.history)
    bundle = load_run(tmp_path / "run")
    assert bundle.preprocess == Preprocess(None, normalize) and bundle.labels == val.labels
    assert scores_of(unetzoo.Predictor(bundle), val, tmp_path / "files") == pytest.approx(expected, abs=1e-6)
    saved = unetzoo.from_pretrained(tmp_path / "run" / "best")
    assert ModelBundle.of(saved)._replace(model=None) == bundle._replace(model=None)
    saved.save_pretrained(tmp_path / "again")  # and so does a copy of a copy
    again = ModelBundle.of(unetzoo.from_pretrained(tmp_path / "again"))
    assert (again.preprocess, again.labels) == (bundle.preprocess, bundle.labels)
    assert ModelBundle.of(trainer.net).preprocess == bundle.preprocess


def test_the_run_folder_of_a_trainer_is_a_run_folder(tmp_path):
    run = tmp_path / "run"
    trained(run, size=24, epochs=1)
    assert json.loads((run / "labels.json").read_text())["names"] == ["background", "square"]
    assert json.loads((run / "environment.json").read_text())["parameters"] > 0
    assert unetzoo.load(run).preprocess == Preprocess((24, 24), "standard")
    with pytest.raises(ConfigError) as caught:
        unetzoo.evaluate(run, progress=False)
    assert caught.value.subject == run and "evaluate(dataset)" in caught.value.hint
    with pytest.raises(ConfigError) as caught:
        load_run(tmp_path)
    assert caught.value.subject == tmp_path


def test_facts_that_the_data_lack_stay_unknown(tmp_path):
    trainer = make(out=tmp_path, epochs=1)
    trainer.fit(Squares(4), Squares(2))
    bundle = load_run(tmp_path)
    assert bundle.preprocess is None and bundle.labels == Squares.labels


def test_a_network_saved_over_another_does_not_inherit_its_preprocessing(tmp_path):
    net = network("bnunet")
    ModelBundle(net, preprocess=Preprocess(None, "minmax")).attach()
    net.save_pretrained(tmp_path)
    assert ModelBundle.of(unetzoo.from_pretrained(tmp_path)).preprocess == Preprocess(None, "minmax")
    network("bnunet").save_pretrained(tmp_path)
    assert ModelBundle.of(unetzoo.from_pretrained(tmp_path)).preprocess is None


def test_thresholds_and_several_labels_belong_to_it(tmp_path):
    net = small(in_channels=1, classes=2)
    metric = METRICS.build("segmentation", labels=Squares.labels, mode="multilabel", threshold=[0.3, 0.5])

    class Several(Squares):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return sample | {"mask": torch.stack([1 - sample["mask"], sample["mask"]])}

    trainer = make(net, unetzoo.LOSSES.build("bce"), metric, out=tmp_path, epochs=1)
    trainer.fit(Several(4), Several(2))
    bundle = load_run(tmp_path)
    assert bundle.mode == "multilabel" and bundle.threshold == [0.3, 0.5]


# ---- loaded networks equal saved ones


def mutant(data, rng):
    """One bit flipped, or the end cut off."""
    place = int(rng.integers(len(data)))
    if rng.random() < 0.2:
        return data[:place]
    return data[:place] + bytes([data[place] ^ 1 << int(rng.integers(8))]) + data[place + 1 :]


def check_mutants(folder, load, times):
    rng = np.random.default_rng(0)
    names = [file.name for file in folder.iterdir() if file.name != "README.md"]
    assert {"config.json", "model.safetensors", "manifest.json"} <= {*names}
    for name in names:
        data = (folder / name).read_bytes()
        for _ in range(times):
            (folder / name).write_bytes(mutant(data, rng))
            with pytest.raises(CheckpointError):
                load()
        (folder / name).unlink()
        if name != "manifest.json":
            with pytest.raises(CheckpointError):
                load()
        (folder / name).write_bytes(data)
    load()


@pytest.mark.parametrize("times", [25, pytest.param(1000, marks=pytest.mark.soak)])
def test_no_changed_bit_of_a_saved_network_is_loaded(tmp_path, times):
    run = tmp_path / "run"
    trained(run, epochs=1)
    best = run / "best"
    check_mutants(best, lambda: unetzoo.load(run), times)
    check_mutants(best, lambda: unetzoo.from_pretrained(best), times)
    check_mutants(best, lambda: unetzoo.models.BNUNet.from_pretrained(best), times)


def test_folders_without_a_manifest_load_as_before(tmp_path):
    net = network("bnunet")
    net.save_pretrained(tmp_path)
    (tmp_path / "manifest.json").unlink()
    assert torch.equal(next(unetzoo.from_pretrained(tmp_path).parameters()), next(net.parameters()))


def test_an_optimizer_of_another_network_is_refused():
    other = network("bnunet")
    with pytest.raises(ConfigError) as caught:
        make(network("bnunet"), optimizer=torch.optim.Adam(other.parameters()))
    assert caught.value.subject == "optimizer" and "make_optimizer" in caught.value.hint
