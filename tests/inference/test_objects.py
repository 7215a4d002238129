"""Objects of predictions: numbers, table and outlines; with and without a class of borders."""

import csv

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import unetzoo
from unetzoo.bundle import ModelBundle
from unetzoo.errors import ConfigError
from unetzoo.inference import Predictor
from unetzoo.inference.objects import Objects, objects_of
from unetzoo.inference.results import SegmentationResult
from unetzoo.instances import ObjectRule, separate
from unetzoo.metrics.instances import InstancesMetric


def result(probabilities, names=("background", "cell", "border"), **fields):
    probabilities = torch.as_tensor(probabilities, dtype=torch.float32)
    label_map = probabilities.argmax(0).numpy().astype(np.uint8)
    image = np.zeros((*label_map.shape, 3), np.uint8)
    return SegmentationResult(image, label_map, unetzoo.LabelSpec(names[: len(probabilities)]), probabilities, **fields)


def touching():
    """Two cells side by side with a border of two columns between them, and one far away."""
    cell, border = np.zeros((2, 12, 20), np.float32)
    cell[2:8, 2:7] = cell[2:8, 9:14] = cell[9:12, 17:20] = 0.9
    border[2:8, 7:9] = 0.8
    return np.stack([1 - cell - border, cell, border])


def test_a_border_separates_touching_objects():
    found = objects_of(result(touching()), ObjectRule(border=True))
    assert found.classes == ("cell",) * 3 and np.array_equal(np.unique(found.numbers), range(4))
    expected = separate(touching()[1], touching()[2])
    assert np.array_equal(found.numbers, expected) and found.numbers[4, 7] != found.numbers[4, 8]


def test_the_table_gives_place_size_and_probability():
    found = objects_of(result(touching()), ObjectRule(border=True))
    rows = list(csv.DictReader(found.as_csv().splitlines()))
    assert rows[0] == {"id": "1", "class": "cell", "area": "36", "row": "4.5", "column": "4.5", "top": "2", "left": "2",
                       "bottom": "8", "right": "8", "probability": "0.8833"}  # fmt: skip
    assert sum(int(row["area"]) for row in rows) == (found.numbers > 0).sum()


def test_without_a_border_objects_are_pieces_of_each_class():
    labels = np.array([[1, 1, 0, 2], [0, 0, 1, 2], [2, 0, 1, 1]])
    found = objects_of(result(np.eye(3)[labels].transpose(2, 0, 1), ("sky", "car", "bus")), None)
    assert found.classes == ("car", "car", "bus", "bus") and found.probabilities == (1,) * 4
    assert found.numbers.tolist() == [[1, 1, 0, 3], [0, 0, 2, 3], [4, 0, 2, 2]]
    large = objects_of(result(np.eye(3)[labels].transpose(2, 0, 1), ("sky", "car", "bus")), ObjectRule(min_size=2))
    assert large.classes == ("car", "car", "bus")


def test_one_channel_and_pixels_without_data():
    logits = np.array([[[0.9, 0.9, 0.1, 0.8]]])
    fields = {"image": np.zeros((1, 4, 3), np.uint8), "label_map": np.array([[1, 1, 0, 1]], np.uint8),
              "labels": unetzoo.LabelSpec(("background", "cell")), "probabilities": torch.tensor(logits)}  # fmt: skip
    found = objects_of(SegmentationResult(**fields), None)
    assert found.numbers.tolist() == [[1, 1, 0, 2]] and found.probabilities == pytest.approx((0.9, 0.8))
    missing = np.array([[True, False, False, True]])
    assert objects_of(SegmentationResult(**fields, missing=missing), None).numbers.tolist() == [[0, 1, 0, 0]]


def test_no_objects_and_very_many():
    empty = objects_of(result(np.stack([np.ones((4, 5)), *np.zeros((2, 4, 5))])), ObjectRule(border=True))
    assert empty.as_csv().count("\n") == 1 and not empty.label_image().any()
    assert np.array(empty.outlined(np.zeros((4, 5, 3), np.uint8))).shape == (4, 5, 3)
    many = Objects(np.arange(70_001, dtype=np.int32).reshape(1, -1), ("cell",) * 70_000, (1.0,) * 70_000)
    assert many.label_image().dtype == np.uint32 and many.label_image().max() == 70_000
    assert empty.label_image().dtype == np.uint16


def test_files_and_the_rule_of_a_saved_network(tmp_path):
    net = unetzoo.build("bnunet", classes=3, encoder_channels=(4, 8, 8)).eval()
    rule = InstancesMetric(num_classes=3, threshold=0.3, min_size=2).object_rule
    labels = unetzoo.LabelSpec(("background", "cell", "border"))
    ModelBundle(net, labels, unetzoo.Preprocess(), objects=rule).attach()
    net.save_pretrained(tmp_path / "net")
    bundle = unetzoo.load(tmp_path / "net")
    assert bundle.objects == ObjectRule(0.3, 0.5, 2, border=True)
    (tmp_path / "in").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 33, 3), np.uint8)).save(tmp_path / "in" / "a.png")
    predictor = Predictor(bundle)
    assert predictor.predict_files(tmp_path / "in", tmp_path / "out", products="instances") == []
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "a_instances.tif",
        "a_objects.csv",
        "a_outlines.png",
    ]
    numbers = tifffile.imread(tmp_path / "out" / "a_instances.tif")
    found = predictor.segment(tmp_path / "in" / "a.png").objects
    assert numbers.dtype == np.uint16 and np.array_equal(numbers, found.numbers)
    assert (tmp_path / "out" / "a_objects.csv").read_text() == found.as_csv()


def test_objects_need_one_class_per_pixel(tmp_path):
    net = unetzoo.build("bnunet", classes=3, encoder_channels=(4, 8, 8)).eval()
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    predictor = Predictor(net, preprocess=unetzoo.Preprocess(), mode="multilabel")
    with pytest.raises(ConfigError):
        predictor.predict_files(tmp_path / "a.png", tmp_path / "out", products="instances")
    assert not (tmp_path / "out").exists()


def test_shipped_weights_separate_touching_nuclei():
    rows, columns = np.mgrid[:96, :128]
    inside = [(rows - 48) ** 2 + (columns - x) ** 2 < 100 for x in (40, 59, 100)]
    image = np.where(np.any(inside, 0), 150, 10).astype(np.uint8)
    assert len(unetzoo.load("nuclei").predict(np.stack([image] * 3, -1)).objects.rows()) == 3
