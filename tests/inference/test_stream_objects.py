"""Objects of a streamed image: those of the whole image, at any size of windows, strips and blocks."""

import csv
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from predicting import knowing
from refusals import refused
from scipy import ndimage
from streaming import random_image, small
from torch import nn

import unetzoo
from unetzoo.bundle import ModelBundle
from unetzoo.errors import ConfigError
from unetzoo.images import as_tensor
from unetzoo.inference import Cleaning, Predictor, bands, joining, predict_to, resumable_writer
from unetzoo.inference.objects import COLUMNS, evidence_of
from unetzoo.instances import ObjectRule, separate
from unetzoo.models.base import Geometry

CELLS = unetzoo.LabelSpec(("background", "cell", "border"))


class Drawn(nn.Module):
    """The logits are the image."""

    geometry = Geometry(minimum=1, stride=1, halo=0)

    def forward(self, x):
        return x * 20


def drawn(rule=None, labels=CELLS):
    return ModelBundle(knowing(Drawn(), as_tensor), labels, as_tensor, objects=rule)


def renamed(objects):
    """Numbers in the order of first pixels."""
    _, first, places = np.unique(objects, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[places].reshape(objects.shape)


def discs(height=110, width=130, count=60, radius=8):
    """Many discs, most of which touch: background, inside and border."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    centers = rng.integers(0, (height, width), (count, 2))
    distances = np.stack([np.hypot(rows - row, columns - column) for row, column in centers])
    nearest, second = np.sort(distances, 0)[:2]
    border = (second - nearest < 3) & (nearest < radius)
    inside = (nearest < radius) & ~border
    noise = rng.integers(0, 90, (height, width, 3))
    image = np.stack([nearest >= radius, inside, border], -1) * 160 + noise
    return image.astype(np.uint8)


def rows_of(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def by_place(rows):
    """The rows without their numbers, in the order of places."""
    return sorted(tuple(str(row[key]) for key in COLUMNS if key != "id") for row in rows)


def check(bundle, image, folder, suffix="npy", **options):
    """Check label image and table against the whole image, and return the number of objects."""
    whole = Predictor(bundle).segment(image).objects
    path = folder / f"cells.{suffix}"
    predict_to(bundle, image, folder / "classes.npy", instances=path, **options)
    numbers = np.load(path) if suffix == "npy" else tifffile.imread(path)
    assert numbers.dtype == np.uint32 and np.array_equal(renamed(numbers), renamed(whole.numbers))
    table = rows_of(folder / "cells.csv")
    assert by_place(table) == by_place(whole.rows())
    for row in table[:20]:
        assert (numbers == int(row["id"])).sum() == int(row["area"])
    assert np.array_equal(np.load(folder / "classes.npy"), Predictor(bundle).segment(image).label_map)
    assert {p.name for p in folder.iterdir()} == {"classes.npy", path.name, "cells.csv"}
    return len(table)


@pytest.fixture
def small_parts(monkeypatch):
    for name, value in {"STRIP": 900, "ROWS": 1, "BLOCK": 40, "MARGIN": 4}.items():
        monkeypatch.setattr(joining, name, value)


@pytest.mark.parametrize(("tile", "suffix"), [(23, "npy"), (57, "tif"), (200, "npy")])
@pytest.mark.parametrize("rule", [None, ObjectRule(0.4, 0.6, 12, border=True), ObjectRule(min_size=12)], ids=str)
def test_touching_discs(tmp_path, small_parts, tile, suffix, rule):
    labels = CELLS if rule else unetzoo.LabelSpec(("sky", "car", "bus"))
    assert check(drawn(rule, labels), discs(), tmp_path, suffix, tile=tile) > 20


def test_objects_across_a_corner_and_of_one_long_piece(tmp_path, small_parts):
    image = np.zeros((80, 80, 3), np.uint8)
    image[..., 0] = 100
    image[36:44, 36:44, 1] = image[10:70, 60:62, 1] = image[68:70, 5:62, 1] = image[10:12, 5:62, 1] = 255  # a bracket
    image[3:5, 3:78:3, 1], image[3:5, 3:78, 2] = 250, 200  # a chain of seeds
    for number, rule in enumerate((None, ObjectRule(border=True))):
        (tmp_path / str(number)).mkdir()
        assert check(drawn(rule), image, tmp_path / str(number), tile=40) >= 3


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), smooth=st.sampled_from([0, 1, 2]))
def test_any_probabilities_strips_and_blocks(seed, smooth):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 50, 2)
    planes = np.stack([ndimage.gaussian_filter(plane, smooth) for plane in rng.random((3, height, width))])
    planes = np.round((planes / planes.sum(0)) * rng.choice([8, 1000])).astype(np.float32)  # steps make equal distances
    planes /= planes.max()
    rule = ObjectRule(0.4, 0.4, int(rng.integers(0, 6)), border=True)
    evidence = evidence_of(torch.from_numpy(planes), torch.zeros(height, width), rule).numpy()
    expected = separate(planes[1], planes[2], threshold=rule.threshold, seed=rule.seed, min_size=rule.min_size)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        for name, most in (("STRIP", 500), ("ROWS", 3), ("BLOCK", 30), ("MARGIN", 6)):
            patch.setattr(joining, name, int(rng.integers(1, most)))
        joiner = joining.ObjectJoiner(CELLS.names, rule, 10**8)
        found = joiner.join(lambda _, start, stop: evidence[start:stop], evidence.shape, stack, Path(folder))
        numbers = found.numbers(0, height)
    assert np.array_equal(renamed(numbers), renamed(expected)) and numbers.max() == expected.max()


def test_one_channel_and_no_object(tmp_path):
    image = random_image(60, 50, 1)
    (tmp_path / "one").mkdir()
    one = drawn(labels=None)._replace(model=Shifted())
    assert check(one, image, tmp_path / "one", tile=20) > 50
    for number, rule in enumerate((None, ObjectRule(border=True))):
        (tmp_path / str(number)).mkdir()
        empty = np.zeros((40, 30, 3), np.uint8)
        empty[..., 0] = 255
        assert check(drawn(rule), empty, tmp_path / str(number), "tif") == 0


class Shifted(Drawn):
    """One logit of either sign."""

    def forward(self, x):
        return x * 20 - 10


def test_more_than_65535_objects(tmp_path):
    image = np.zeros((514, 514, 1), np.uint8)
    image[::2, ::2] = 255
    predict_to(drawn(labels=None)._replace(model=Shifted()), image, tmp_path / "c.npy", instances=tmp_path / "i.tif")
    numbers = tifffile.imread(tmp_path / "i.tif")
    assert np.array_equal(renamed(numbers), renamed(ndimage.label(image[..., 0])[0])) and numbers.max() == 66_049
    assert (tmp_path / "i.csv").read_text().count("\n") == 66_050


def test_pixels_without_data_are_no_objects(tmp_path):
    image = discs(64, 64, 12)
    image[20:40, 20:40] = 0
    tifffile.imwrite(tmp_path / "in.tif", image, photometric="rgb", tile=(32, 32), extratags=[(42113, 2, 2, "0", True)])
    whole = Predictor(drawn(ObjectRule(border=True))).segment(tmp_path / "in.tif").objects.numbers
    predict_to(drawn(ObjectRule(border=True)), tmp_path / "in.tif", tmp_path / "c.npy", instances=tmp_path / "i.npy")
    found = np.load(tmp_path / "i.npy")
    assert np.array_equal(renamed(found), renamed(whole)) and not found[20:40, 20:40].any()


def test_shards_and_activated_networks(tmp_path):
    net = small(activation="softmax2d", classes=3)
    bundle = ModelBundle(net, CELLS, as_tensor, objects=ObjectRule(0.34, 0.34, border=True))
    image = random_image(90, 70)
    for number in (2, 1, 3):
        options = {"tile": 64, "shard": (number, 3), "probabilities": tmp_path / "p.npy"}
        predict_to(bundle, image, tmp_path / "c.npy", instances=tmp_path / "i.npy", **options)
    whole = Predictor(bundle).segment(image)
    assert (renamed(np.load(tmp_path / "i.npy")) == renamed(whole.objects.numbers)).mean() > 0.9
    found = torch.from_numpy(np.load(tmp_path / "p.npy").astype(np.float32)).permute(2, 0, 1)
    assert torch.allclose(found, whole.probabilities, atol=1e-3)
    assert {path.name for path in tmp_path.iterdir()} == {"c.npy", "i.npy", "i.csv", "p.npy"}


def files(folder):
    return {"target": folder / "c.npy", "instances": folder / "i.tif", "tile": 64}


@pytest.mark.parametrize("place", [0, 1, 2, 3, 4])
def test_it_resumes_wherever_it_was_interrupted(tmp_path, monkeypatch, small_parts, place):
    bundle, image = drawn(ObjectRule(border=True)), discs(90, 60, 20)
    predict_to(bundle, image, tmp_path / "c_whole.npy", instances=tmp_path / "whole.npy")
    owner, name, calls = [
        (resumable_writer.ResumableWriter, "write", 2),  # of the prediction
        (joining.Pieces, "roots", 1),
        (bands, "_write", 2),  # the table
        (resumable_writer.ResumableWriter, "write", 5),  # of the results
        (resumable_writer.ResumableWriter, "finish", 2),
    ][place]
    method, left = getattr(owner, name), calls

    def interrupted(*args, **options):
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt
        return method(*args, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(owner, name, interrupted)
        predict_to(bundle, image, **files(tmp_path))
    assert not (tmp_path / "c.npy").exists() and not (tmp_path / "i.tif").exists()
    with refused(ConfigError, hint="resume=True"):
        predict_to(bundle, image, **files(tmp_path))
    streamed = predict_to(bundle, image, **files(tmp_path), resume=True)
    assert (0 < streamed.rows < len(image)) == (place == 0)
    assert np.array_equal(tifffile.imread(tmp_path / "i.tif"), np.load(tmp_path / "whole.npy"))
    assert (tmp_path / "i.csv").read_text() == (tmp_path / "whole.csv").read_text()
    assert {p.name for p in tmp_path.iterdir()} == {"c.npy", "i.tif", "i.csv", "c_whole.npy", "whole.npy", "whole.csv"}


def test_bands_are_removed_after_an_interruption(tmp_path, monkeypatch):
    def interrupted(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(bands, "note_of", interrupted)
        predict_to(drawn(), discs(40, 40, 5), **files(tmp_path))
    assert (tmp_path / "c.npy.1-of-1.json").exists()
    assert predict_to(drawn(), discs(40, 40, 5), **files(tmp_path), resume=True).rows == 0
    assert {path.name for path in tmp_path.iterdir()} == {"c.npy", "i.tif", "i.csv"}


def test_a_table_of_that_name_is_kept(tmp_path, monkeypatch):
    def taken(self):
        (tmp_path / "i.csv").write_text("mine")
        return roots(self)

    roots = joining.Pieces.roots
    with monkeypatch.context() as patch, refused(ConfigError, subject="i.csv", hint="resume=True"):
        patch.setattr(joining.Pieces, "roots", taken)
        predict_to(drawn(), discs(40, 40, 5), **files(tmp_path))
    assert (tmp_path / "i.csv").read_text() == "mine"
    (tmp_path / "i.csv").unlink()
    assert predict_to(drawn(), discs(40, 40, 5), **files(tmp_path), resume=True).rows == 0


def test_pixels_far_from_a_seed_need_memory(tmp_path, small_parts):
    image = np.zeros((150, 150, 3), np.uint8)
    image[..., 2], image[75, 75, 1:] = 255, (255, 0)
    bundle, paths = drawn(ObjectRule(border=True)), files(tmp_path)
    memory = 60**2 * joining.PIXEL
    with refused(ConfigError, expected="pixels", hint="--memory"):
        predict_to(bundle, image, **paths, memory=memory)
    assert predict_to(bundle, image, **paths, resume=True).rows == 0
    assert tifffile.imread(paths["instances"]).min() == 1


def test_wrong_arguments(tmp_path):
    image, out = discs(40, 40, 5), tmp_path / "c.npy"
    (tmp_path / "there.csv").write_text("mine")
    for bundle, instances, fields in [
        (drawn(), tmp_path / "there.tif", {"subject": "there.csv"}),
        (drawn(), tmp_path / "i.png", {"found": ".png", "expected": ".tif"}),
        (drawn(), out, {"found": "c.npy, "}),
        (drawn(), tmp_path / "none" / "i.tif", {"subject": "none"}),
        (drawn(labels=unetzoo.LabelSpec.indexed(5)), tmp_path / "i.tif", {"expected": "3 classes"}),
        (drawn(ObjectRule(border=True))._replace(mode="multilabel"), tmp_path / "i.tif", {"hint": "exclusive"}),
    ]:
        for resume in (False, True):
            with refused(ConfigError, **fields):
                predict_to(bundle, image, out, instances=instances, resume=resume)
    with refused(ConfigError, found="min_area", hint="predict"):
        predict_to(drawn()._replace(cleaning=Cleaning(min_area=9)), image, out, instances=tmp_path / "i.tif")
    two = ModelBundle(small(classes=2), None, as_tensor, objects=ObjectRule(border=True))
    with refused(ConfigError, expected="3 classes", found="2"):
        predict_to(two, random_image(40, 40), out, instances=tmp_path / "i.tif")
    assert [path.name for path in tmp_path.iterdir()] == ["there.csv"]
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_the_command(tmp_path, capsys):
    from unetzoo.cli import main

    rows, columns = np.mgrid[:96, :128]
    inside = [(rows - 48) ** 2 + (columns - x) ** 2 < 100 for x in (40, 59, 100)]
    image = np.stack([np.where(np.any(inside, 0), 150, 10).astype(np.uint8)] * 3, -1)
    tifffile.imwrite(tmp_path / "in.tif", image, tile=(32, 32), photometric="rgb")
    with pytest.raises(SystemExit) as ended:
        main(["stream", "nuclei", str(tmp_path / "in.tif"), str(tmp_path / "c.tif"), "--instances",
              str(tmp_path / "i.tif"), "--quiet"])  # fmt: skip
    assert ended.value.code in (0, None) and "i.csv" in capsys.readouterr().out
    assert [row["class"] for row in rows_of(tmp_path / "i.csv")] == ["nucleus"] * 3
    assert tifffile.imread(tmp_path / "i.tif").max() == 3
