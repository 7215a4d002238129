"""`unetzoo compose` and `unetzoo stats` as a user meets them."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from PIL import Image

from unetzoo import cli
from unetzoo.datasets import Composites, CompositesExport

DRAWN = ["--size", "32", "--set", "foregrounds=10", "--set", "backgrounds=10", "--workers", "0"]


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")


def unetzoo(*args, code=0):
    """The output of the command on stdout and stderr."""
    texts = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(texts[0]), contextlib.redirect_stderr(texts[1]), pytest.raises(SystemExit) as ended:
        cli.main([str(arg) for arg in args])
    assert (ended.value.code or 0) == code, [text.getvalue() for text in texts]
    return tuple(text.getvalue() for text in texts)


def test_compose_then_go_on(tmp_path):
    said, told = unetzoo("compose", tmp_path / "out", "--count", 20, "--seed", 5, *DRAWN)
    assert "20 composites" in said and "20 of them new" in said
    assert "20 composites, about 0.246 MB; depth layered" in told  # three files of a block each
    read = CompositesExport(tmp_path / "out", "all")
    data = Composites("all", 32, 20, 5, foregrounds=10, backgrounds=10)
    assert {s["id"]: s["image"].tobytes() for s in read} == {
        data.stem(i): data[i]["image"].tobytes() for i in range(20)
    }
    (tmp_path / "out" / "fg_bg" / f"{data.stem(4)}.png").unlink()
    assert "1 of them new" in unetzoo("compose", tmp_path / "out", "--count", 20, "--seed", 5, *DRAWN)[0]


def test_every_combination(tmp_path):
    said, told = unetzoo("compose", tmp_path, "--all", "--split", "test", "--jpeg", 80, *DRAWN)
    assert told.startswith("40 composites, about") and "40 of them new" in said
    names = {path.name for path in (tmp_path / "fg_bg").iterdir()}
    assert names == {f"fg009{flip}_bg009_{place:02d}.jpg" for flip in ("", "flip") for place in range(1, 21)}


def test_from_folders_with_depth(tmp_path):
    for kind, mode in (("fg", "RGBA"), ("bg", "RGB"), ("depth", "L")):
        (tmp_path / "my" / kind).mkdir(parents=True)
        for i in range(10):
            Image.new(mode, (20, 20), "white").save(tmp_path / "my" / kind / f"{i}.png")
    options = ["--root", tmp_path / "my", "--count", 3, "--size", 32, "--workers", 0, "--set", "depth=depth"]
    _, told = unetzoo("compose", tmp_path / "out", *options)
    assert "depth layered over maps" in told
    sample = CompositesExport(tmp_path / "out", "all")[0]
    assert set(np.unique(sample["depth"]).round(4)) == {0.75, 1}


def test_stats(tmp_path):
    options = ["--set", "size=32", "--set", "length=30", "--set", "foregrounds=10", "--set", "backgrounds=10"]
    said, _ = unetzoo("stats", "composites", *options, "--workers", 0)
    assert "fg_bg red" in said and "30 samples" in said and "foreground covers" in said and "depth" in said
    line = said.strip().splitlines()[-1]
    assert line.startswith("normalize = { mean = [") and line.endswith("] }")
    found = json.loads(unetzoo("stats", "composites", *options, "--split", "val", "--limit", 7, "--json")[0])
    data = Composites("val", 32, 30, foregrounds=10, backgrounds=10)
    values = np.concatenate([data[30 * i // 7]["image"].reshape(-1, 6) for i in range(7)]) / 255
    np.testing.assert_allclose([channel["mean"] for channel in found["image"]], values.mean(0), atol=1e-15)
    np.testing.assert_allclose([channel["std"] for channel in found["image"]], values.std(0), atol=1e-15)
    assert found["samples"] == 7


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["compose", "OUT", "--root", "nowhere"], 3, "no such folder"),
        (["compose", "OUT", "--split", "trainn"], 2, "did you mean 'train'"),
        (["compose", "OUT", "--size", "3"], 2, "size"),
        (["compose", "OUT", "--count", "-1"], 2, "length"),
        (["compose", "OUT", "--positions", "line"], 2, "positions"),
        (["compose", "OUT", "--jpeg", "0", "--count", "1"], 2, "jpeg"),
        (["compose", "OUT", "--set", "jiter=true"], 2, "did you mean 'jitter'"),
        (["compose", "OUT", "--set", "channels=3"], 2, "6 channels"),
        (["compose", ".", "--count", "1", "--workers", "0"], 3, "other contents"),
        (["stats", "composite"], 2, "did you mean 'composites'"),
        (["stats", "folder"], 2, "--set root="),
        (["stats", "isbi2012", "--set", "root=nowhere"], 3, "nowhere"),
        (["stats", "composites", "--limit", "0"], 2, "limit"),
        (["stats", "composites", "--set", "length=0"], 3, "no samples"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes(tmp_path, monkeypatch, args, code, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    told = unetzoo(*args, code=code)[1]
    assert says in told and "Traceback" not in told
