"""Predictions as COCO JSON, read back with pycocotools."""

import contextlib
import io
import json
import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch
from conftest import tiny
from exporting import run_folder
from PIL import Image
from predicting import SPEC, Channels, knowing, noise, save
from pycocotools.coco import COCO

import unetzoo.io
from unetzoo import cli
from unetzoo.errors import ConfigError, DataError
from unetzoo.inference import Predictor
from unetzoo.inference.coco import coco_record, outline, run_lengths, write_coco
from unetzoo.inference.results import SegmentationResult
from unetzoo.labels import LabelSpec

FILES = {"coco": "annotations.coco.json", "coco_rle": "annotations.coco_rle.json"}


pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of pycocotools' decoding


@pytest.fixture(params=FILES)
def product(request):
    return request.param


def loaded(path):
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def painted(data, image):
    """The mask of an image by pycocotools, with category ids; no pixel belongs to two annotations."""
    mask = np.zeros((image["height"], image["width"]), np.int64)
    for annotation in data.loadAnns(data.getAnnIds(image["id"])):
        region = data.annToMask(annotation)
        assert not mask[region > 0].any() and region.sum() == annotation["area"]
        rows, columns = np.nonzero(region)
        top, left = rows.min(), columns.min()
        assert annotation["bbox"] == [left, top, columns.max() + 1 - left, rows.max() + 1 - top]
        mask[region > 0] = annotation["category_id"]
    return mask


def written(path, label_map, labels=SPEC, **options):
    """The COCO file of one result."""
    image = path / "a.png"
    probabilities = torch.rand(labels.classes, *label_map.shape[-2:])
    result = SegmentationResult(
        np.zeros((*label_map.shape[-2:], 3), np.uint8), label_map.astype(np.uint8), labels, probabilities
    )
    record = json.loads(json.dumps(coco_record(image, result, **options)))
    write_coco(path / "coco.json", lambda: [(1, record)])
    return result, loaded(path / "coco.json")


@pytest.mark.parametrize("polygons", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_masks_are_equal_pixel_for_pixel(tmp_path, seed, polygons):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 40, 2)
    coarse = rng.integers(0, 3, (height // 3 + 1, width // 3 + 1))
    label_map = rng.integers(0, 3, (height, width))
    if seed % 2:
        label_map = np.kron(coarse, np.ones((3, 3), int))[:height, :width]
    _, data = written(tmp_path, label_map, polygons=polygons)
    assert np.array_equal(painted(data, data.imgs[1]), label_map)


def test_polygons_where_there_are_no_holes_and_run_lengths_where_there_are(tmp_path):
    label_map = np.zeros((12, 20), int)
    label_map[1:6, 1:6] = 1
    label_map[2:4, 2:4] = 2
    label_map[8:11, 10:15] = 2
    _, data = written(tmp_path, label_map, polygons=True)
    found = [annotation["segmentation"] for annotation in data.dataset["annotations"]]
    assert isinstance(found[0], dict) and found[1] == [[2, 2, 4, 2, 4, 4, 2, 4]]
    assert found[2] == [[10, 8, 15, 8, 15, 11, 10, 11]]
    assert np.array_equal(painted(data, data.imgs[1]), label_map)


@pytest.mark.parametrize("mask", [np.ones((1, 1)), np.ones((5, 7)), np.eye(6) + np.eye(6, k=1), np.tri(9)])
def test_outlines_and_run_lengths_of_whole_regions(mask):
    mask = mask > 0
    assert len(outline(mask)) == 1
    assert sum(run_lengths(mask, 0, 0, *mask.shape)[1::2]) == mask.sum()


def test_every_label_of_a_multilabel_network_has_annotations(tmp_path):
    labels = LabelSpec(("left", "right"))
    planes = np.zeros((2, 6, 9), int)
    planes[0, 1:4, 1:5] = planes[1, 2:6, 3:9] = 1
    _, data = written(tmp_path, planes, labels, polygons=False)
    assert [category["name"] for category in data.dataset["categories"]] == ["left", "right"]
    for annotation in data.dataset["annotations"]:
        assert np.array_equal(data.annToMask(annotation), planes[annotation["category_id"] - 1])


def test_scores_are_mean_probabilities(tmp_path):
    label_map = np.zeros((6, 8), int)
    label_map[1:3, 1:4], label_map[4:, 5:] = 1, 1
    result, data = written(tmp_path, label_map, polygons=True)
    for annotation in data.dataset["annotations"]:
        mask = data.annToMask(annotation) > 0
        assert annotation["score"] == pytest.approx(float(result.probabilities[1].numpy()[mask].mean()), abs=1e-4)


def test_a_file_for_all_images(tmp_path, product):
    for number in (10, 2, 1):
        save(tmp_path / "in" / f"{number}.png", noise(9 + number, 14, 3))
    (tmp_path / "in" / "3.png").write_bytes(b"broken")
    failures = Predictor(Channels(), labels=SPEC).predict_files(
        tmp_path / "in", tmp_path / "out", products=["mask", product], workers=3
    )
    assert len(failures) == 1
    content = json.loads((tmp_path / "out" / FILES[product]).read_text())
    assert [image["file_name"] for image in content["images"]] == ["1.png", "2.png", "10.png"]
    assert content["categories"] == [{"id": 1, "name": "left"}, {"id": 2, "name": "right"}]
    assert [found["id"] for found in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    data = loaded(tmp_path / "out" / FILES[product])
    for image in data.dataset["images"]:
        mask = np.asarray(Image.open(tmp_path / "out" / f"{image['file_name']}"))
        assert np.array_equal(painted(data, image), mask)


def test_the_file_does_not_depend_on_threads_and_replaces_that_of_an_earlier_run(tmp_path, product):
    for number in range(8):
        save(tmp_path / "in" / f"{number}.png", noise(20, 20, 3))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / FILES[product]).write_text("old")
    texts = []
    for workers in (1, 4):
        Predictor(Channels()).predict_files(tmp_path / "in", tmp_path / "out", products=product, workers=workers)
        texts.append((tmp_path / "out" / FILES[product]).read_bytes())
    assert texts[0] == texts[1] and {path.name for path in (tmp_path / "out").iterdir()} == {FILES[product]}


class Killing(torch.nn.Module):
    """Ends its process at the third image."""

    in_channels = 3

    def __init__(self):
        super().__init__()
        self.count = 0
        knowing(self)

    def forward(self, x):
        self.count += 1
        if self.count == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return x


def _predict_until_killed(folder):
    Predictor(Killing()).predict_files(folder / "in", folder / "out", products="mask,coco", workers=1)


def test_a_killed_run_leaves_no_file_and_the_next_one_writes_it(tmp_path):
    for number in range(6):
        save(tmp_path / "in" / f"{number}.png", noise(8, 8, 3))
    Predictor(Channels()).predict_files(tmp_path / "in", tmp_path / "out", products="coco")
    whole = (tmp_path / "out" / FILES["coco"]).read_bytes()
    process = multiprocessing.get_context("spawn").Process(target=_predict_until_killed, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL and not (tmp_path / "out" / FILES["coco"]).exists()
    Predictor(Channels()).predict_files(tmp_path / "in", tmp_path / "out", products="mask,coco")
    assert (tmp_path / "out" / FILES["coco"]).read_bytes() == whole


def test_a_full_disk_leaves_no_part_of_the_file(tmp_path, monkeypatch):
    save(tmp_path / "in" / "a.png", noise(8, 8, 3))

    class Full(unetzoo.io.Disk):
        def rename(self, source, target):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(unetzoo.io, "DISK", Full())
    with pytest.raises(ConfigError) as caught:
        Predictor(Channels()).predict_files(tmp_path / "in", tmp_path / "out", products="coco")
    assert caught.value.subject == tmp_path / "out" and not list((tmp_path / "out").iterdir())


def test_an_image_of_the_same_name_is_refused(tmp_path):
    save(tmp_path / "in" / "annotations.coco.png", noise(8, 8, 3))
    with pytest.raises(DataError, match="one file"):
        Predictor(Channels()).predict_files(tmp_path / "in", tmp_path / "out", products="json,coco")


def test_the_command_line(tmp_path, capsys):
    run = run_folder(tmp_path / "run", tiny("bnunet", classes=1, in_channels=3))
    save(tmp_path / "in" / "a.png", noise(16, 16, 3))
    with pytest.raises(SystemExit) as ended:
        cli.main(["predict", str(run), str(tmp_path / "in"), str(tmp_path / "out"), "--write", "coco,coco_rle"])
    assert not ended.value.code
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(FILES.values())
    with pytest.raises(SystemExit) as ended:
        cli.main(["predict", str(run), str(tmp_path / "in"), str(tmp_path / "out"), "--write", "cocoa"])
    assert ended.value.code and "'coco'" in capsys.readouterr().err
