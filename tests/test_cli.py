"""The command line as a user meets it: by exit code and text."""

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
from PIL import Image

from unetzoo import cli
from unetzoo.cli.console import ORDER
from unetzoo.inference.files import DEFAULT_PRODUCTS

FAST = [
    "--set",
    "data.size=32",
    "--set",
    "data.train.length=8",
    "--set",
    "data.val.length=4",
    "--set",
    "train.epochs=1",
]
FAST += ["--set", "model.encoder_channels=[4, 8, 8]", "--set", "train.batch_size=4"]


def unetzoo(*args, cwd=None, code=0):
    """Run the command in this process (a new one would import torch each time)."""
    texts = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd or "."),
        contextlib.redirect_stdout(texts[0]),
        contextlib.redirect_stderr(texts[1]),
        pytest.raises(SystemExit) as ended,
    ):
        cli.main([str(arg) for arg in args])
    printed, complained = (text.getvalue() for text in texts)
    assert (ended.value.code or 0) == code, f"exit code {ended.value.code}\n{printed}\n{complained}"
    return printed if code == 0 else complained


@pytest.fixture(autouse=True, scope="module")
def wide_terminal():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "160")
        yield


def test_an_error_is_one_line_and_an_exit_code_without_traceback():
    command = [sys.executable, "-m", "unetzoo.cli"]
    done = subprocess.run([*command, "train", "deno"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: unknown recipe 'deno'") and done.stderr.count("\n") == 1
    debug = subprocess.run([*command, "--debug", "train", "deno"], capture_output=True, text=True)
    assert debug.returncode == 1 and "Traceback" in debug.stderr


def opened(path):
    with Image.open(path) as image:
        image.load()
        return image


def draw_folder(root, count=6, size=40, masks=True):
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for index in range(count):
        mask = np.zeros((size, size), np.uint8)
        top, left = rng.integers(0, size // 2, 2)
        mask[top : top + size // 2, left : left + size // 2] = 255
        image = (rng.random((size, size, 3)) * 100 + mask[..., None] * 0.6).astype(np.uint8)
        Image.fromarray(image).save(root / "images" / f"p{index}.png")
        if masks:
            Image.fromarray(mask).save(root / "masks" / f"p{index}.png")


FOLDER = """
[model]
name = "bnunet"
classes = 2
encoder_channels = [4, 8, 8]
[data]
name = "folder"
classes = 2
ids = [0, 255]
[loss]
ce = 1.0
[train]
epochs = 2
batch_size = 2
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "demo"
    text = unetzoo("train", "demo", "--out", folder, "--quiet", *FAST)
    return folder, text


def test_help_lists_the_commands_in_the_order_of_work():
    commands = re.findall(r"^│ ([a-z]+) ", unetzoo("--help"), re.MULTILINE)
    assert commands == list(ORDER)
    assert "--set" in unetzoo("train", "--help")
    assert unetzoo("--version").strip()


@pytest.mark.parametrize("command", [name for name in ORDER if name != "plugin"])
def test_help_ends_with_an_example_that_the_command_accepts(command):
    text = unetzoo(command, "--help")
    words = shlex.split(re.search(r"Example: (unetzoo .*)", text)[1])
    assert words[:2] == ["unetzoo", command]
    options = {word for word in words if word.startswith("--")}
    assert options <= set(re.findall(r"--[a-z-]+", text.partition("Example")[0]))


def test_list_and_info():
    names = json.loads(unetzoo("list", "*unet*", "--json"))
    assert "r2unet" in names["models"]
    assert "composites" in unetzoo("list", "--kind", "datasets")
    text = unetzoo("info", "r2unet", "--set", "classes=19")
    assert "39,092,563" in text and "Deviations from the paper" in text and "arXiv:1802.06955" in text
    assert json.loads(unetzoo("info", "unet", "--json", "--set", "in_channels=1"))["parameters"] == 31_030_593
    assert "smp-fpn" in unetzoo("info", "smp-fpn", "--set", "encoder_name=resnet18")


def test_verify_proves_the_cards():
    text = unetzoo("verify", "unet")
    assert "31,030,658" in text and "✗" not in text and "facts hold" in text


def test_a_run_writes_all_its_files(run):
    folder, text = run
    assert "iou/foreground" in text and "baseline" in text and str(folder) in text
    for name in ("recipe.json", "labels.json", "environment.json", "metrics.jsonl", "scores.json", "curves.png"):
        assert (folder / name).stat().st_size > 0
    scores = json.loads((folder / "scores.json").read_text())
    assert {"best", "baseline"} <= set(scores)
    assert "depth/rmse" in scores["best"] and "iou/foreground" in scores["baseline"]
    images = sorted((folder / "predictions").glob("*.png"))
    assert len(images) == 8
    assert opened(images[1]).size[0] > 6 * 32  # the first contains only the labels


def test_evaluate_reproduces_the_scores_of_the_run(run):
    folder, _ = run
    scores = json.loads(unetzoo("evaluate", folder, "--json"))
    assert scores["miou"] == pytest.approx(json.loads((folder / "scores.json").read_text())["best"]["miou"])


def test_evaluate_names_the_scored_data(run, tmp_path):
    folder, _ = run
    chosen = ["--set", "data.val.split=test", "--set", "data.val.length=3", "--report", tmp_path / "report"]
    text = unetzoo("evaluate", folder, *chosen)
    assert text.startswith("dualunet on composites, test: 3 samples\n")
    assert "test/loss" in text and "test/mask/dice" in text and "val/" not in text
    data = json.loads((tmp_path / "report" / "data.json").read_text())
    assert data["dataset"] == "composites" and data["samples"] == 3 and data["options"]["split"] == "test"
    scores = json.loads(unetzoo("evaluate", folder, "--json", *chosen[:4]))
    assert "test/loss" in scores and not [name for name in scores if name.startswith("val/")]
    own = json.loads(unetzoo("evaluate", folder, "--json"))
    assert "val/loss" in own and own["miou"] != scores["miou"]


def test_a_run_folder_is_not_overwritten_and_can_be_resumed_or_repeated(run, tmp_path):
    folder, _ = run
    assert "--resume" in unetzoo("train", "demo", "--out", folder, *FAST, code=2)
    unetzoo("train", folder, "--resume", "--quiet")
    unetzoo("train", folder, "--out", tmp_path / "again", "--quiet")
    first, second = ((f / "metrics.jsonl").read_text() for f in (folder, tmp_path / "again"))
    assert json.loads(first)["train/loss"] == json.loads(second)["train/loss"]
    assert "recipe" in unetzoo("train", folder, "--resume", "--set", "optimizer.lr=1.0", "--quiet", code=4)


def test_train_and_predict_on_a_folder_of_ones_own(tmp_path):
    draw_folder(tmp_path / "cells")
    (tmp_path / "cells.toml").write_text(FOLDER)
    fold = ["--fold", "2/4"]
    unetzoo("train", "cells.toml", "--set", "data.root=cells", *fold, "--out", "run", "--quiet", cwd=tmp_path)
    assert json.loads((tmp_path / "run" / "fold-2" / "recipe.json").read_text())["data"]["fold"] == "2/4"
    (tmp_path / "new").mkdir()
    for name, size in (("wide.png", (90, 31)), ("tiny.png", (5, 3))):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)).save(
            tmp_path / "new" / name
        )
    unetzoo("predict", "run/fold-2", "new", "out", cwd=tmp_path)
    found = sorted(p.name for p in (tmp_path / "out").rglob("*.png"))
    assert len(found) >= 4
    index = next(p for p in (tmp_path / "out").rglob("wide*.png") if opened(p).mode == "P")
    assert opened(index).size == (90, 31)
    assert set(np.unique(np.array(opened(index)))) <= {0, 1}
    (tmp_path / "new" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 40)
    text = unetzoo("predict", "run/fold-2", "new", "out2", cwd=tmp_path, code=3)
    assert "broken.png" in text
    assert (tmp_path / "out2").exists()


def test_images_that_all_fail_leave_no_results(run, tmp_path):
    images = tmp_path / "new"
    images.mkdir()
    for name in ("a", "b"):
        (images / f"{name}.png").write_bytes(b"no image")
    told = unetzoo("predict", run[0], images, tmp_path / "out", "--background", images, code=3)
    assert "results are in" not in told and "2 of 2 images" in told


def test_evaluate_takes_a_device(run):
    assert json.loads(unetzoo("evaluate", run[0], "--json", "--device", "cpu"))["miou"] > 0
    assert "ACCELERATE_TORCH_DEVICE" not in os.environ
    assert "--device cpu" in unetzoo("evaluate", run[0], "--device", "nowhere", code=2)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_one_line():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "unetzoo.cli", "list", "--json"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: No space left on device")
    assert done.stderr.count("\n") == 1


def test_a_disk_that_fills_does_not_hide_which_images_failed(run, tmp_path, monkeypatch):
    for part in ("new", "scenes"):
        (tmp_path / part).mkdir()
        for name in ("a", "b", "c"):
            Image.new("RGB", (20, 20)).save(tmp_path / part / f"{name}.png")
    (tmp_path / "new" / "a.png").write_bytes(b"no image")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unetzoo.inference.files.Results.write", full)
    told = unetzoo("predict", run[0], tmp_path / "new", tmp_path / "out", "--background", tmp_path / "scenes", code=2)
    assert told.count("error:") == 2 and told.index("a.png") < told.index("No space left on device")


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.realdata)])
def test_the_papers_network_trains_on_its_own_task(tmp_path, real):
    root = tmp_path / "isbi"
    if real:
        if "UNETZOO_DATA" not in os.environ:
            pytest.skip("UNETZOO_DATA is not set")
        root = Path(os.environ["UNETZOO_DATA"]) / "isbi2012"
    else:
        draw_folder(root, count=10, size=128)
        (root / "masks").rename(root / "labels")
        for path in (root / "images").iterdir():
            opened(path).convert("L").save(path)
    size = ["--set", "model.encoder_channels=[4, 8, 8]", "--set", "transform.train.crop=60", "--set", "train.epochs=2"]
    unetzoo("train", "isbi2012", "--set", f"data.root={root}", "--out", tmp_path / "run", "--quiet", *size)
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert 0 <= scores["best"]["f1/membrane"] <= 1
    assert scores["baseline"]["f1/membrane"] == 0
    images = list((tmp_path / "run" / "predictions").glob("*-labels.png"))
    assert len(images) == (4 if real else 1)
    assert opened(images[0]).size == ((512, 512) if real else (128, 128))  # every pixel, by mirrored borders


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["info", "r2unett"], 2, "did you mean 'r2unet'"),
        (["info", "unet", "--set", "clases=2"], 2, "did you mean 'classes'"),
        (["list", "--kind", "model"], 2, "models"),
        (["train", "deno"], 2, "did you mean 'demo'"),
        (["train", "demo", "--set", "train.epoch=1"], 2, "did you mean 'epochs'"),
        (["train", "isbi2012"], 2, "data.root"),
        (["train", "isbi2012", "--set", "data.root=nowhere"], 3, "nowhere"),
        (["train", "demo", "--set", "model.classes=5", "--quiet"], 2, "model.classes"),
        (["train", "demo", "--set", "model.in_channels=3", "--set", "data.size=32", "--quiet"], 3, "in_channels=6"),
        (["train", "demo", "--set", "model.name=unet", "--set", "data.size=32", "--quiet"], 3, "in_channels=6"),
        (["evaluate", "nowhere"], 2, "nowhere"),
        (["predict", "nowhere", "a.png", "out"], 2, "nowhere"),
        (["verify", "nothing*"], 2, "nothing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_end_with_a_fix_and_an_exit_code(tmp_path, args, code, says):
    assert says in unetzoo(*args, cwd=tmp_path, code=code).replace("\n", " ")


def test_bad_data_ends_with_code_3(tmp_path):
    (tmp_path / "cells.toml").write_text(FOLDER)
    (tmp_path / "empty").mkdir()
    draw_folder(tmp_path / "unpaired", masks=False)
    for root in ("empty", "unpaired"):
        text = unetzoo("train", "cells.toml", "--set", f"data.root={root}", "--quiet", cwd=tmp_path, code=3)
        assert "Fix:" in text
    draw_folder(tmp_path / "cells")
    wrong = ["--set", "data.root=cells", "--set", "data.ids=[0, 1]", "--quiet"]
    assert "255" in unetzoo("train", "cells.toml", *wrong, cwd=tmp_path, code=3)


def test_help_of_predict_shows_the_default_outputs():
    option = get_type_hints(cli.predict.predict, include_extras=True)["write"].__metadata__[0]
    assert option.show_default == ",".join(DEFAULT_PRODUCTS)
