"""`unetzoo compare`: runs of every condition beside each other."""

import json
import math

import pytest
from PIL import Image
from test_cli import unetzoo, wide_terminal  # noqa: F401 -- a fixture

RECIPE = {
    "model": {"name": "bnunet", "classes": 2},
    "data": {"name": "folder", "root": "a"},
    "transform": {"train": {"hflip": 0.5}, "val": {}, "size": 64},
    "loss": {"ce": 1.0},
    "optimizer": {"name": "adamw", "lr": 0.001},
    "train": {"epochs": 3, "monitor": "miou"},
}


def make(folder, mious, *, finished=True, torn=False, parameters=1234, events=(), names=("no", "yes"), **sections):
    folder.mkdir(parents=True)
    recipe = {key: value | sections.get(key, {}) for key, value in RECIPE.items()}
    rows = [
        {
            "epoch": n + 1.0,
            "lr": 1e-3,
            "seconds": 60.0,
            "train/loss": 1 / (n + 1),
            "val/loss": 2 / (n + 1),
            "miou": miou,
        }
        for n, miou in enumerate(mious)
    ]
    lines = [json.dumps(row) + "\n" for row in rows] + (['{"epoch": 9.0, "mi'] if torn else [])
    (folder / "metrics.jsonl").write_text("".join(lines))
    (folder / "recipe.json").write_text(json.dumps(recipe))
    (folder / "labels.json").write_text(json.dumps({"names": names}))
    (folder / "environment.json").write_text(json.dumps({"parameters": parameters}))
    if finished:
        (folder / "scores.json").write_text(json.dumps({"epochs": len(rows), "best": {}}))
    if events:
        (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


def compare(tmp_path, *runs, code=0):
    text = unetzoo("compare", *runs, "--out", tmp_path / "out", code=code)
    return text, json.loads((tmp_path / "out" / "comparison.json").read_text())


def table(text, first):
    """The lines of a printed table, as lists of words."""
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.split()[:1] == [first])
    end = next((n for n in range(start, len(lines)) if not lines[n].strip()), len(lines))
    return [line.split() for line in lines[start:end]]


def test_scores_differences_and_a_figure(tmp_path):
    a = make(tmp_path / "a", [0.2, 0.7, 0.6])
    b = make(tmp_path / "b", [0.1, 0.3], finished=False, optimizer={"lr": 0.1, "momentum": 0.9}, loss={"dice": 2.0})
    text, facts = compare(tmp_path, a, b)
    scores = table(text, "run")
    assert scores[1] == ["a", "bnunet", "1,234", "3", "0.7000", "2", "0.6000", "0:03:00", "finished"]
    assert scores[2][:8] == ["b", "bnunet", "1,234", "2", "0.3000", "2", "0.3000", "0:02:00"]
    assert "unfinished, 2 of 3 epochs" in text
    assert table(text, "differs")[1:] == [
        ["loss.dice", "–", "2.0"],
        ["optimizer.lr", "0.001", "0.1"],
        ["optimizer.momentum", "–", "0.9"],
    ]
    with Image.open(tmp_path / "out" / "comparison.png") as image:
        assert image.width > 1000
    assert facts["metric"] == "miou" and facts["warnings"] == []
    first, second = facts["runs"]
    assert (first["best"], first["best_epoch"], first["last"], first["finished"]) == (0.7, 2, 0.6, True)
    assert (second["finished"], second["planned_epochs"], second["seconds"]) == (False, 3, 120.0)
    assert first["curves"]["val/loss"] == [2.0, 1.0, 2 / 3]
    assert facts["differences"]["optimizer.momentum"] == [None, 0.9]


def test_a_score_of_which_less_is_better(tmp_path):
    runs = make(tmp_path / "a", [0.2, 0.7, 0.6]), make(tmp_path / "b", [0.1, 0.1, math.nan])
    facts = json.loads(unetzoo("compare", *runs, "--metric", "val/loss", "--json", "--out", tmp_path / "out"))
    assert [(run["best"], run["best_epoch"]) for run in facts["runs"]] == [(2 / 3, 3)] * 2
    facts = json.loads(unetzoo("compare", *runs, "--json", "--out", tmp_path / "out"))
    assert [(run["best"], run["best_epoch"], run["last"]) for run in facts["runs"]] == [(0.7, 2, 0.6), (0.1, 1, None)]
    lower = make(tmp_path / "c", [0.2, 0.7], train={"mode": "min"})
    facts = json.loads(unetzoo("compare", lower, "--json", "--out", tmp_path / "out"))
    assert facts["runs"][0]["best"] == 0.2


def test_runs_in_every_condition(tmp_path, capsys):
    torn = make(tmp_path / "torn", [0.1, 0.2], torn=True, finished=False)
    empty = make(tmp_path / "empty", [], finished=False)
    nan = make(tmp_path / "nan", [math.nan, math.nan])
    fallen = [{"event": "collapse", "epoch": 2, "head": "mask", "state": "'no'"}]
    collapsed = make(tmp_path / "fallen", [0.1, 0.1], events=fallen, parameters=None)
    risen = [*fallen, {"event": "recovered", "epoch": 3, "head": "mask", "state": ""}]
    recovered = make(tmp_path / "risen", [0.1, 0.1, 0.4], events=risen)
    early = make(tmp_path / "early", [0.1, 0.1], events=risen, finished=False)  # the recovery was undone by a kill
    text, facts = compare(tmp_path, torn, empty, nan, collapsed, recovered, early)
    by_name = {run["name"]: run for run in facts["runs"]}
    assert by_name["torn"]["epochs"] == 2 and by_name["empty"]["best"] is None
    assert {name: run["collapsed"] for name, run in by_name.items() if run["collapsed"]} == {
        "fallen": "'no'",
        "early": "'no'",
    }
    assert "finished, collapsed to 'no'" in text
    assert facts["warnings"] == [
        "torn: the last line of the log is cut off and was left out",
        "empty: has no epoch yet",
        "nan: has no miou",
    ]


def test_a_run_resumed_after_its_end_is_unfinished(tmp_path):
    run = make(tmp_path / "a", [0.1, 0.2, 0.3])
    with (run / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({"epoch": 4.0, "miou": 0.5}) + "\n")
    assert not compare(tmp_path, run)[1]["runs"][0]["finished"]


@pytest.mark.parametrize(
    ("sections", "warning"),
    [
        ({"data": {"name": "camvid"}}, "different datasets, so scores cannot be compared: a: folder, b: camvid"),
        ({"names": ("x", "y", "z")}, "different classes, so scores cannot be compared: a: 2, b: 3"),
        ({"transform": {"size": 128}}, "validation data differ in transform.size: compare the scores with care"),
        ({"transform": {"val": {"size": 128}}}, "validation data differ in transform.size"),
        ({"data": {"val": {"fold": 2}}}, "validation data differ in data.fold"),
        ({"data": {"root": "elsewhere", "cache": True}, "transform": {"train": {"vflip": 0.5}}}, None),
    ],
    ids=str,
)
def test_incomparable_runs_are_reported(tmp_path, sections, warning):
    runs = make(tmp_path / "a", [0.1]), make(tmp_path / "b", [0.2], **sections)
    warnings = compare(tmp_path, *runs)[1]["warnings"]
    assert warnings == [] if warning is None else (len(warnings) == 1 and warnings[0].startswith(warning))


def test_equal_names_are_distinguished_and_a_run_is_listed_once(tmp_path):
    runs = make(tmp_path / "x" / "run", [0.1]), make(tmp_path / "y" / "run", [0.2])
    facts = compare(tmp_path, *runs, tmp_path / "x" / ".." / "x" / "run")[1]
    assert [run["name"] for run in facts["runs"]] == ["x/run", "y/run"]


def test_names_that_would_be_markup_or_formulas(tmp_path):
    runs = make(tmp_path / "_[red]a$", [0.1]), make(tmp_path / "train", [0.2], model={"name": "[bold]x"})
    text, _ = compare(tmp_path, *runs)
    assert "_[red]a$" in text and "[bold]x" in text


def test_folders_that_are_no_runs_are_named_and_the_others_compared(tmp_path):
    run, nothing, broken = make(tmp_path / "a", [0.1]), tmp_path / "nothing", make(tmp_path / "broken", [0.1, 0.2])
    (broken / "metrics.jsonl").write_text('{"epoch": 1.0}\nnonsense\n{"epoch": 3.0}\n')
    text = unetzoo("compare", run, nothing, broken, "--out", tmp_path / "out", code=2)
    assert "not a run folder" in text and "no such folder" in text
    assert "found something else in line 2" in text
    assert len(json.loads((tmp_path / "out" / "comparison.json").read_text())["runs"]) == 1
    for content in ("", "[]", "{", "{}"):
        (run / "recipe.json").write_text(content)
        assert "recipe.json" in unetzoo("compare", run, "--out", tmp_path / "out", code=2)


def test_mistakes(tmp_path):
    run = make(tmp_path / "a", [0.1])
    assert "did you mean 'miou'" in unetzoo("compare", run, "--metric", "mioo", "--out", tmp_path / "o", code=2)
    empty = make(tmp_path / "b", [])
    assert "nothing to compare" in unetzoo("compare", empty, "--out", tmp_path / "o", code=2)
    (tmp_path / "file").write_text("")
    assert "cannot write the comparison" in unetzoo("compare", run, "--out", tmp_path / "file", code=3)
    unetzoo("compare", code=2)


def test_strange_values_in_the_files(tmp_path):
    run = make(tmp_path / "a", [0.1])
    (run / "metrics.jsonl").write_text('{"epoch": "one", "miou": 0.5, "seconds": null, "x": [1]}\n')
    for name in ("labels.json", "environment.json", "scores.json", "events.jsonl"):
        (run / name).write_text("[1, 2]")
    recipe = json.loads((run / "recipe.json").read_text()) | {"train": [], "transform": None, "data": "x", "model": {}}
    (run / "recipe.json").write_text(json.dumps(recipe))
    facts = compare(tmp_path, run)[1]["runs"][0]
    assert facts["best"] == 0.5 and facts["seconds"] == 0 and facts["parameters"] is None


def with_images(folder, mious, groups=None, interval=(0.6, 0.8)):
    lines = ["name,group,miou" if groups else "name,miou"]
    lines += [f"p{n}," + (f"{groups[n]}," if groups else "") + f"{miou}" for n, miou in enumerate(mious)]
    (folder / "images.csv").write_text("\n".join(lines) + "\n")
    scores = json.loads((folder / "scores.json").read_text())
    (folder / "scores.json").write_text(json.dumps(scores | {"intervals": {"miou": interval}}))
    return folder


def test_runs_are_compared_on_the_same_images(tmp_path):
    gains = [0.05] * 18 + [-0.01] * 5 + [0.0] * 2
    a = with_images(make(tmp_path / "a", [0.7]), [0.5 + gain for gain in gains] + ["nan"])
    b = with_images(make(tmp_path / "b", [0.6]), [0.5] * 26)
    c = make(tmp_path / "c", [0.5])
    text, data = compare(tmp_path, a, b, c)
    assert data["paired"].keys() == {"b"}
    paired = data["paired"]["b"]
    assert paired["images"] == paired["units"] == 25
    assert paired["better"] == pytest.approx(19 / 25)
    assert paired["difference"] == pytest.approx(0.85 / 25)
    assert 0.02 < paired["low"] < 0.034 < paired["high"] < 0.05
    assert "a is better than b on 76% of 25 images, +3.4 [" in text
    assert [run["interval"] for run in data["runs"]] == [[0.6, 0.8], [0.6, 0.8], None]
    assert "0.6000 … 0.8000" in text and "unreliable" not in text


def test_paired_runs_by_group_and_with_other_or_damaged_images(tmp_path):
    groups = [f"g{n // 5}" for n in range(25)]
    mious = [0.5 + 0.01 * (n // 5) for n in range(25)]
    a = with_images(make(tmp_path / "a", [0.7]), mious, groups)
    b = with_images(make(tmp_path / "b", [0.6]), [0.5] * 25, groups)
    other = with_images(make(tmp_path / "other", [0.6]), [0.5] * 24, groups)
    damaged = make(tmp_path / "damaged", [0.6])
    (damaged / "images.csv").write_bytes(b"\xff\xfe\x00")
    elsewhere = with_images(make(tmp_path / "elsewhere", [0.6], data={"name": "helen"}), [0.5] * 25, groups)
    _, data = compare(tmp_path, a, b, other, damaged, elsewhere)
    assert data["paired"].keys() == {"b"} and data["paired"]["b"]["units"] == 5
    assert any("unreliable" in warning for warning in data["warnings"])


def test_scores_of_images_from_before_a_run_was_continued_are_left_out(tmp_path):
    a, b = (with_images(make(tmp_path / name, [0.7, 0.8]), [0.5] * 25) for name in "ab")
    (b / "scores.json").write_text(json.dumps({"epochs": 1, "intervals": {"miou": [0.6, 0.8]}}))
    _, data = compare(tmp_path, a, b)
    assert data["paired"] == {} and data["runs"][1]["interval"] is None
