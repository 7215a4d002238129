"""The scripts of examples/, run as by a reader, on the smallest data that still show the effect."""

import csv
import json
import re
import runpy
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnxruntime
import pytest
import tifffile
from PIL import Image

import unetzoo
from unetzoo.bundle import ModelBundle
from unetzoo.errors import PluginError
from unetzoo.inference import Predictor
from unetzoo.registry import REGISTRIES
from unetzoo.training import load_run

EXAMPLES = Path(__file__).parents[2] / "examples"
RUN_FILES = ("report.html", "curves.png", "predictions.png", "best/model.safetensors")


@pytest.fixture
def example(tmp_path, monkeypatch, capfd):
    """example(name, *arguments): variables, output and result folder of the script."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for registry in REGISTRIES.values():
        monkeypatch.setattr(registry, "_local", {})

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        defined = runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return defined, capfd.readouterr().out, tmp_path / "runs/examples" / name.replace("_", "-")

    return run


def numbers(pattern, text):
    """The numbers that a pattern's groups find."""
    return [float(number) for number in re.search(pattern, text).groups()]


def test_quickstart(example):
    _, text, out = example("quickstart", "--steps", "40")
    (best,) = numbers(r"best IoU ([\d.]+)", text)
    assert 0.3 < best < 1  # everything called foreground gives about 0.1
    with open(out / "metrics.csv") as file:
        assert best == pytest.approx(max(float(row["iou/foreground"]) for row in csv.DictReader(file)), abs=5e-4)
    image = np.asarray(Image.open(out / "image-truth-prediction.png"))
    assert image.shape == (4 * 64, 3 * 64, 3)
    truth, found = image[:, 64:128, 0] > 0, image[:, 128:, 0] > 0
    assert (truth & found).sum() / (truth | found).sum() > 0.2


def test_own_dataset(example):
    defined, text, out = example("own_dataset", "--steps", "40")
    (of_class,), (of_folder,) = numbers(r"class: IoU ([\d.]+)", text), numbers(r"`folder`: IoU ([\d.]+)", text)
    assert of_class == of_folder > 0.4  # the same images, the same training
    for split, held in (("train", defined["Discs"](160, first=0)), ("val", defined["Discs"](40, first=160))):
        files = unetzoo.DATASETS.build(
            "folder", root=out / "discs", split=split, names=["background", "disc"], ids=[0, 255]
        )
        assert len(files) == len(held)
        assert all((a[part] == b[part]).all() for a, b in zip(files, held, strict=True) for part in ("image", "mask"))


def test_own_model(example):
    _, text, out = example("own_model", "--steps", "10")
    assert numbers(r"(\d+) checks passed", text)[0] > 25 and "halfnet loaded" in text
    ElementTree.parse(out / "halfnet.svg")
    assert all((out / "run" / name).exists() for name in RUN_FILES)
    unetzoo.MODELS._local.clear()
    with pytest.raises(PluginError, match="first run what registers 'halfnet'"):
        unetzoo.from_pretrained(out / "run/best")


@pytest.mark.slow
def test_own_model_beats_a_constant_prediction(example):
    score, baseline = numbers(r"IoU ([\d.]+); .* has ([\d.]+)", example("own_model")[1])
    assert score > baseline + 0.1


def test_gigapixel(example):
    defined, text, out = example("gigapixel", "--side", "768", "--steps", "30")
    assert numbers(r"IoU ([\d.]+) over 1 megapixels", text)[0] > 0.6
    classes = np.load(out / "classes.npy")
    precision = ModelBundle.of(defined["net"]).predicting_precision()
    whole = unetzoo.predict(defined["net"], tifffile.imread(out / "slide.tif"), precision=precision)[0] > 0
    least = 0.9999 if precision == "fp32" else 0.995  # windows of bf16 are rounded more coarsely
    assert (classes == whole.numpy()).mean() > least
    assert (np.asarray(Image.open(out / "classes.png")) == classes[::8, ::8] * 255).all()


def test_onnx_runtime(example):
    _, text, out = example("onnx_runtime", "--steps", "30")
    assert numbers(r"error=([\de.-]+)", text)[0] < 1e-4
    onnx, trained = numbers(r"IoU ([\d.]+) by ONNX Runtime, ([\d.]+) at", text)
    assert 0.3 < onnx == pytest.approx(trained, abs=0.1)  # it is scored at the files' own size
    run = load_run(out / "run")
    path = next((out / "cars/train").glob("*.jpg"))
    image = np.asarray(Image.open(path).convert("RGB"))
    (labels,) = onnxruntime.InferenceSession(out / "car.onnx").run(["labels"], {"image": image[None]})
    assert (labels[0] == Predictor(run).segment(path).label_map).mean() > 0.999


@pytest.mark.slow
def test_two_processes(example):
    _, text, out = example("two_processes", "--steps", "8")
    two, one = numbers(r"IoU ([\d.]+) from two processes, ([\d.]+) from one", text)
    assert two == one
    assert json.loads((out / "metrics.jsonl").read_text().splitlines()[0])["epoch"] == 1


@pytest.mark.slow
def test_resume_after_kill(example):
    _, text, out = example("resume_after_kill")
    assert "killed after 1 epoch" in text
    assert "equal logs: True; bit-identical weights: True" in text
    killed, whole = ((out / run / "best/model.safetensors").read_bytes() for run in ("killed", "whole"))
    assert killed == whole
    assert not list((out / "killed").glob("**/.tmp-*"))


def test_six_systems(example, tmp_path):
    example("six_systems", "carvana", "train.steps=4", "train.batch_size=4")
    assert all((tmp_path / "runs/carvana-fast" / name).exists() for name in RUN_FILES)


FLOORS = {  # exceeded by a network that has learned; no constant output comes near it
    "isbi2012": ("f1/membrane", 0.8),
    "helen": ("miou", 0.5),
    "celebamask": ("iou/eyes-lips", 0.5),
    "cityscapes": ("miou", 0.12),
    "carvana": ("f1/car", 0.9),
    "eva": ("iou/foreground", 0.4),
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("system", FLOORS)
def test_six_systems_learn(example, tmp_path, system):
    example("six_systems", system)
    metric, floor = FLOORS[system]
    runs = [scores.parent for scores in (tmp_path / "runs").glob("*/scores.json")]
    assert len(runs) == (3 if system == "cityscapes" else 1)
    for run in runs:
        assert all((run / name).exists() for name in RUN_FILES)
        assert json.loads((run / "scores.json").read_text())["best"][metric] > floor, run
    compared = tmp_path / "runs/cityscapes-compared/comparison.png"
    assert compared.exists() == (system == "cityscapes")


def test_every_example_is_documented():
    examples = {file.name for suffix in ("*.py", "notebooks/*.ipynb") for file in EXAMPLES.glob(suffix)}
    for page in (EXAMPLES / "README.md", EXAMPLES.parent / "docs/examples.md"):
        assert set(re.findall(r"\w+\.(?:py|ipynb)\b", page.read_text(encoding="utf-8"))) == examples, page
