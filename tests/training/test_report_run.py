"""The report that a whole run leaves behind."""

import json
import re

import pytest
from test_report import Page, check, rows

from unetzoo import training
from unetzoo.errors import CheckpointWriteError
from unetzoo.report import write
from unetzoo.report.write import without_paths

TINY = ["data.size=32", "data.train.length=6", "data.val.length=5", "train.epochs=2", "train.batch_size=3",
        "model.encoder_channels=[4, 8, 8]"]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "a run & more"
    return training.train("demo", TINY, out=folder, progress=False)


def test_the_report_agrees_with_the_files_of_the_run(run):
    text = (run.out / "report.html").read_text(encoding="utf-8")
    parsed = check(text)
    assert parsed.all("h1")[0]["text"] == "dualunet on composites"
    shown = {name: cells for name, *cells in rows(parsed, "Scores")}
    scores = json.loads((run.out / "scores.json").read_text())
    assert (
        shown["miou"][0] == f"{scores['best']['miou']:.4f}"
        and shown["depth/rmse"][0] == f"{scores['best']['depth/rmse']:.4f}"
    )
    assert scores["epochs"] == 2
    assert len(rows(parsed, "Epochs")) == 3
    headings = [h["text"].partition(" by ")[0] for h in parsed.all("h3")]
    assert [h for h in headings if "mask" in h or "epth" in h][-4:] == [
        "Best mask",
        "Worst mask",
        "Best depth",
        "Worst depth",
    ]
    alts = [img["alt"] for img in parsed.all("img")]
    assert sum(alt.startswith("truth of") for alt in alts) == sum(alt.startswith("true depth of") for alt in alts) == 5
    assert sum(alt.startswith("prediction on input of") for alt in alts) == 5
    assert sum(alt.startswith("background of") for alt in alts) == 10
    assert any(re.search(r"prediction of .*(background|foreground) \d+%", alt) for alt in alts)
    recipe = json.loads(parsed.all("pre")[-1]["text"])
    assert recipe == without_paths(json.loads((run.out / "recipe.json").read_text()))
    environment = json.loads((run.out / "environment.json").read_text())
    assert all(str(value) in parsed.text for value in environment.values())
    assert "unetzoo train 'a run & more' --out 'a run & more-again'" in parsed.text
    assert "unetzoo predict 'a run & more' IMAGES OUT" in parsed.text
    assert "unetzoo train demo --set data.size=32" in parsed.text
    assert {"best/", "predictions/"} <= {code["text"] for code in parsed.all("code")}
    assert str(run.out.parent) not in text
    assert len(text) < 2_000_000


def test_the_counts_of_the_report_are_those_of_the_best_network(run):
    parsed = Page((run.out / "report.html").read_text(encoding="utf-8"))
    scores = json.loads((run.out / "scores.json").read_text())["best"]
    by_class = {name: cells for name, *cells in rows(parsed, "Scores by class")[1:]}
    for name in ("background", "foreground"):
        assert float(by_class[name][0]) == pytest.approx(scores[f"iou/{name}"], abs=6e-5)
    matrix = rows(parsed, "Confusion matrix")
    shares = [100 * scores[f"sensitivity/{name}"] for name in ("background", "foreground")]
    shown = [0.0 if cell == "" else 0.5 if cell == "<1" else float(cell) for cell in (matrix[1][1], matrix[2][2])]
    assert shown == pytest.approx(shares, abs=0.51)


def test_a_report_that_cannot_be_written_is_our_error(run, monkeypatch):
    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write, "write_text", full)
    with pytest.raises(CheckpointWriteError) as caught:
        training.train(run.out, resume=True, progress=False)
    assert caught.value.subject == run.out and "--resume" in caught.value.hint
