"""Pixels without a sure class, and images ranked by their uncertainty."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from conftest import tiny
from predicting import SPEC, Channels, knowing, noise, read, save
from refusals import refused

from unetzoo import DATASETS, LabelSpec, cli
from unetzoo.errors import ConfigError
from unetzoo.inference import Predictor
from unetzoo.inference.decide import confidence_of
from unetzoo.inference.uncertainty import entropy_of


class Logits(Channels):
    """Returns ten times its input: pixel values decide how sure it is."""

    def __init__(self, channels=3):
        super().__init__()
        self.channels = channels

    def forward(self, x):
        return 10 * x[:, : self.channels] - (5 if self.channels == 1 else 0)


def probabilities(image, channels=3):
    logits = torch.from_numpy(image).double().permute(2, 0, 1)[:channels] / 25.5
    return (logits - 5).sigmoid() if channels == 1 else logits.softmax(0)


@pytest.mark.parametrize("channels", [1, 3])
def test_masks_have_255_where_no_class_is_sure(tmp_path, channels):
    image = noise(20, 30, 3)
    save(tmp_path / "in" / "a.png", image)
    for unsure in (None, 0.9):
        Predictor(Logits(channels), unsure=unsure).predict_files(
            tmp_path / "in", tmp_path / str(unsure), products="mask,color,overlay,json,coco"
        )
    p = probabilities(image, channels)
    sure = (torch.maximum(p, 1 - p)[0] if channels == 1 else p.amax(0)).numpy() >= 0.9
    every, masked = (np.asarray(read(tmp_path / name / "a.png")) for name in ("None", "0.9"))
    assert 0.1 < sure.mean() < 0.9 and every.max() < 3
    assert np.array_equal(masked, np.where(sure, every, 255))
    assert not np.asarray(read(tmp_path / "0.9" / "a_color.png"))[~sure].any()
    facts = json.loads((tmp_path / "0.9" / "a.json").read_text())
    assert facts["unsure"] == (~sure).sum() and facts["settings"]["unsure"] == 0.9
    assert sum(entry["pixels"] for entry in facts["classes"].values()) == sure.sum()
    assert "unsure" not in json.loads((tmp_path / "None" / "a.json").read_text())
    found = json.loads((tmp_path / "0.9" / "annotations.coco.json").read_text())["annotations"]
    assert sum(entry["area"] for entry in found) == (sure & (every > 0)).sum()


def test_a_training_ignores_them(tmp_path):
    images, masks = (tmp_path / "data" / "train" / name for name in ("images", "masks"))
    save(images / "a.png", noise(20, 30, 3))
    Predictor(Logits(1), unsure=0.9).predict_files(images, masks, products="mask")
    options = {"names": ["background", "cell"], "ignore_ids": [255], "ignore_index": 255}
    data = DATASETS.build("folder", root=tmp_path / "data", split="train", **options)
    assert sorted(np.unique(data[0]["mask"]).tolist()) == [0, 1, 255]


def test_the_labels_decide_the_value_and_must_leave_one(tmp_path):
    image = save(tmp_path / "a.png", noise(20, 30, 3))
    labels = LabelSpec(("a", "b", "c"), ignore_index=7)
    mask = Predictor(Logits(), labels=labels, unsure=0.9).segment(image).mask
    assert set(np.unique(mask)) == {0, 1, 2, 7}
    assert set(np.unique(Predictor(Logits(), labels=SPEC, unsure=0.9).segment(image).label_map)) == {0, 1, 2}

    class Many(Logits):
        def forward(self, x):
            return torch.cat([x] * 86, 1)[:, :256]

    result = Predictor(Many(), unsure=0.9).segment(image)
    with refused(ConfigError, found="256"):
        result.masks()


@pytest.mark.parametrize("unsure", [0, 1, 90, -0.5, float("nan")])
def test_a_number_that_is_no_probability_is_refused(unsure):
    with refused(ConfigError, expected="(0, 1)"):
        Predictor(Logits(), unsure=unsure)


def test_masks_of_several_labels_are_refused():
    with refused(ConfigError, hint="uncertainty"):
        Predictor(Logits(), unsure=0.9, mode="multilabel")


def test_entropy_and_confidence():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), (5, 6)).transpose(2, 0, 1)
    expected = -(p * np.log(p)).sum(0) / math.log(4)
    assert entropy_of(torch.from_numpy(p), several=False).numpy() == pytest.approx(expected)
    one = p[:1]
    binary = -(one * np.log2(one) + (1 - one) * np.log2(1 - one))[0]
    assert entropy_of(torch.from_numpy(one), several=False).numpy() == pytest.approx(binary)
    certain = torch.eye(4)[:, :, None]
    assert entropy_of(certain, several=False).abs().max() == 0 and confidence_of(certain).min() == 1


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("mode", [None, "multilabel"])
def test_images_are_ranked_by_their_uncertainty(tmp_path, mode):
    images = {"sure": 255, "middle": 120, "unsure": 3}
    for name, contrast in images.items():
        save(tmp_path / "in" / f"{name}.png", (noise(12, 14, 3) * (contrast / 255)).astype(np.uint8))
    (tmp_path / "in" / "broken.png").write_bytes(b"")
    Predictor(Logits(), mode=mode).predict_files(tmp_path / "in", tmp_path / "out", products="uncertainty")
    table = rows(tmp_path / "out" / "uncertainty.csv")
    values = [float(row["uncertainty"]) for row in table]
    assert len(table) == 3 and values == sorted(values, reverse=True)
    if mode is None:
        assert [row["image"].rpartition("/")[2] for row in table] == ["unsure.png", "middle.png", "sure.png"]
        p = probabilities(np.array(read(tmp_path / "in" / "sure.png")))
        assert values[-1] == pytest.approx(float(-(p * p.log()).sum(0).mean() / math.log(3)), abs=1e-5)
        assert float(table[-1]["unsure"]) == pytest.approx(float((p.amax(0) < 0.9).double().mean()), abs=1e-6)


def test_shards_rank_together(tmp_path):
    for number in range(5):
        save(tmp_path / "in" / f"{number}.png", noise(12 + number, 14, 3))
    for number in (1, 2):
        Predictor(Logits()).predict_files(tmp_path / "in", tmp_path / "out", products="uncertainty", shard=(number, 2))
    Predictor(Logits()).predict_files(tmp_path / "in", tmp_path / "whole", products="uncertainty")
    assert rows(tmp_path / "out" / "uncertainty.csv") == rows(tmp_path / "whole" / "uncertainty.csv")


def test_the_command_line(tmp_path, capsys):
    knowing(tiny("bnunet", classes=2, in_channels=3).eval()).save_pretrained(tmp_path / "net")
    save(tmp_path / "in" / "a.png", noise(16, 16, 3))
    given = ["predict", *(str(tmp_path / name) for name in ("net", "in", "out")), "--unsure"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*given, "0.99"])
    assert not ended.value.code, capsys.readouterr().err
    assert (tmp_path / "out" / "uncertainty.csv").exists() and (tmp_path / "out" / "a_overlay.png").exists()
    assert (np.asarray(read(tmp_path / "out" / "a.png")) == 255).any()
    with pytest.raises(SystemExit) as ended:
        cli.main([*given, "90"])
    assert ended.value.code == 2 and "0.9" in capsys.readouterr().err
