"""The report as a reader meets it: parsed, never by its own code."""

import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from test_trainer import Squares

from unetzoo import METRICS, LabelSpec
from unetzoo.report import style
from unetzoo.report.curves import Chart, charts
from unetzoo.report.gallery import Ranked
from unetzoo.report.page import Report, render
from unetzoo.report.plots import figure, inline_svg, save
from unetzoo.report.samples import Sample
from unetzoo.report.write import without_paths

VOID = {"meta", "img", "br"}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a\x00b\ud800\u202e",
    "& &amp; $x$ _y",
    "日本",
)


class Page(HTMLParser):
    """Elements with attributes and text; refuses tags that do not close in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"{tag} has an attribute twice"
        element = {"tag": tag, "text": "", "inside": [e["tag"] for e in self.open], **dict(attrs)}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()  # in SVG every element may be closed like this

    def handle_endtag(self, tag):
        assert self.open and self.open[-1]["tag"] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        self.text += data
        for element in self.open:
            element["text"] += data

    def all(self, tag, **attributes):
        return [e for e in self.elements if e["tag"] == tag and all(e.get(k) == v for k, v in attributes.items())]


def check(text):
    """What must hold of every report."""
    parsed = Page(text)
    assert not {e["tag"] for e in parsed.elements} & {"script", "link", "iframe", "object", "form", "base"}
    for element in parsed.elements:
        assert not any(name.startswith("on") for name in element)
        for name in ("src", "href", "xlink:href"):
            if name in element:
                assert element[name].startswith(("data:image/png;base64,", "data:image/jpeg;base64,", "#"))
    assert "url(" not in text and "@import" not in text and "http" not in re.sub(r"http-equiv|https?-?equiv", "", text)
    assert all(element.get("alt") for element in parsed.all("img"))
    for svg in parsed.all("svg"):
        assert svg.get("aria-hidden") == "true" or (svg["role"] == "img" and svg["aria-labelledby"])
    ids = [e["id"] for e in parsed.elements if "id" in e]
    assert len(set(ids)) == len(ids)
    assert {a["href"][1:] for a in parsed.all("a")} <= set(ids)
    for svg in parsed.all("svg", role="img"):
        assert set(svg["aria-labelledby"].split()) <= set(ids)
    for table in parsed.all("table"):
        assert "wide" in [e.get("class") for e in parsed.all("div") if e["text"].startswith(table["text"])]
    assert all(th.get("scope") in ("row", "col") for th in parsed.all("th"))
    assert parsed.all("html")[0]["lang"] == "en" and len(parsed.all("h1")) == 1
    assert "width=device-width" in parsed.all("meta", name="viewport")[0]["content"]
    assert parsed.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"].startswith(
        "default-src 'none'"
    )
    text.encode("utf-8")
    return parsed


def rows(parsed, caption):
    """The texts of a table's cells."""
    found, inside = [], False
    for element in parsed.elements:
        if element["tag"] == "caption":
            inside = element["text"] == caption
        elif "table" not in element["inside"]:
            inside = False
        elif inside and element["tag"] == "tr":
            found.append([])
        elif inside and element["tag"] in ("td", "th"):
            found[-1].append(element["text"])
    return found


def history(epochs, **more):
    names = {"lr": 1e-3, "seconds": 1.5, "train/loss": 0.5, "val/loss": 0.6, "miou": 0.4} | more
    return [{"epoch": e + 1.0} | names for e in range(epochs)]


def report(labels=Squares.labels, **more):
    recipe = {"model": {"name": "bnunet"}, "data": {"name": "squares"}}
    return Report(**{"name": "run", "recipe": recipe, "labels": labels, "history": history(3)} | more)


def test_names_that_try_to_be_html_stay_text():
    labels = LabelSpec(HOSTILE, groups={"<b>all</b>": (0, 1)}, ignore_index=255)
    mask = np.arange(25).reshape(5, 5) % 5
    sample = Sample(
        HOSTILE[1], {HOSTILE[0]: np.zeros((5, 5, 3), np.uint8)}, {"truth": mask, "prediction": mask}, {}, 0.5
    )
    ranked = Ranked("mask", object())
    ranked.keep([sample])
    scores = {"miou": 0.5} | {f"iou/{name}": 0.25 for name in (*HOSTILE, "<b>all</b>")}
    events = [{"event": "collapse", "said": HOSTILE[0], "causes": [HOSTILE[1]]}, {"event": "x"}]
    text = render(
        report(
            labels, name=HOSTILE[0], history=history(2, **{f"iou/{name}": 0.1 for name in HOSTILE}), monitor="miou",
            scores=scores, confusion=np.eye(5, dtype=np.int64), classes=HOSTILE, ranked={"mask": ranked}, events=events,
            recipe={"model": {"name": HOSTILE[0]}, "data": {"name": HOSTILE[1]}}, 
            commands={HOSTILE[0]: [HOSTILE[1]]}, files={HOSTILE[1]: HOSTILE[2]},
            environment={HOSTILE[0]: HOSTILE[1], "list": [1, {"a": math.nan}]},
        )
    )  # fmt: skip
    parsed = check(text)
    shown = [cells[0] for cells in rows(parsed, "Scores by class")[1:]]
    assert shown == [HOSTILE[0], HOSTILE[1], "a\ufffdb\ufffd\ufffd", HOSTILE[3], HOSTILE[4], "<b>all</b>"]
    assert HOSTILE[0] in parsed.all("h1")[0]["text"]
    assert all(cells[1] == "0.2500" for cells in rows(parsed, "Scores by class")[1:])


@pytest.mark.parametrize(
    "more",
    [
        {"history": []},
        {"history": history(1)},
        {"history": [{"epoch": 1.0, "lr": 0.0, "train/loss": math.nan, "miou": math.nan, "seconds": math.nan}]},
        {"history": history(1, **{"train/loss": math.inf})},
        {"labels": LabelSpec(("cell",)), "confusion": np.array([[[90, 1], [2, 7]]]), "classes": ("cell",)},
        {"labels": LabelSpec.indexed(40), "confusion": np.zeros((40, 40), np.int64), "classes": tuple("abcd" * 10)},
        {"recipe": {}},
        {"scores": {"miou": math.nan, "iou/square": math.nan}, "monitor": "miou", "classes": Squares.labels.names},
        {"history": history(300)},
    ],
    ids=range(9),
)
def test_the_page_is_written_for_every_kind_of_run(more):
    check(render(report(**more)))


def test_scores_classes_and_confusion_are_the_numbers():
    labels = LabelSpec(("road", "car", "sky"), palette=((1, 2, 3), (4, 5, 6), (250, 0, 0)))
    confusion = np.array([[90, 10, 0], [5, 14, 1], [0, 0, 0]])
    metric = METRICS.build("segmentation", labels=labels)
    for true, predicted in np.ndindex(3, 3):
        shape = (1, 1, confusion[true, predicted])
        metric.update(torch.full(shape, predicted), torch.full(shape, true))
    scores = metric.compute() | {"val/loss": 0.25}
    parsed = check(
        render(report(labels, monitor="miou", best_epoch=2, scores=scores, baseline={"miou": 0.125},
                   confusion=metric.confusion.numpy(), classes=labels.names))
    )  # fmt: skip
    shown = {name: cells for name, *cells in rows(parsed, "Scores")}
    assert shown["miou"] == [f"{(90 / 105 + 14 / 30 + 0) / 3:.4f}", "0.4000", "0.1250"]
    assert shown["val/loss"] == ["0.2500", "0.6000", "–"]
    head, *classes = rows(parsed, "Scores by class")
    assert head == ["class", "IoU", "F1", "Precision", "Sensitivity", "Specificity", "true pixels"]
    assert classes[1][:3] == ["car", f"{14 / 30:.4f}", f"{28 / 44:.4f}"] and classes[1][-1] == "16.67%"
    assert classes[2][4] == "–"  # no sky, so no sensitivity
    swatches = [e["style"] for e in parsed.all("span", **{"class": "swatch"})]
    assert swatches[:3] == ["background:#010203", "background:#040506", "background:#fa0000"]
    matrix = rows(parsed, "Confusion matrix")
    assert matrix == [
        ["truth", "road", "car", "sky"],
        ["road", "90", "10", ""],
        ["car", "25", "70", "5"],
        ["sky", *"–––"],
    ]
    cells = [e.get("class") for e in parsed.all("td") if "→" in e.get("title", "")]
    assert cells == ["d9", "d1", "d0", "d2", "d7", "d0", None, None, None]


def test_several_labels_a_pixel():
    counts = np.array([[[60, 20], [5, 15]], [[0, 0], [30, 10]]])
    parsed = check(render(report(LabelSpec(("hat", "skin")), confusion=counts, classes=("hat", "skin"))))
    assert rows(parsed, "Confusion matrix") == [
        ["truth", "found", "false alarm"],
        ["hat", "75", "25"],
        ["skin", "25", "–"],
    ]


@pytest.mark.parametrize(("colors", "curves"), [(style.LIGHT, style.CURVES_LIGHT), (style.DARK, style.CURVES_DARK)])
def test_contrast_is_enough_to_be_read(colors, curves):
    for text in ("text", "quiet", "accent"):
        for ground in ("ground", "panel"):
            assert style.contrast(colors[text], colors[ground]) >= 4.5, (text, ground)
    assert style.contrast(colors["warn"], colors["warn-ground"]) >= 4.5
    assert min(style.contrast(curve, colors["ground"]) for curve in curves) >= 3
    assert min(style.contrast(*pair) for pair in style.shades(colors)) >= 4.5


def marks(chart):
    """The points of a chart's curves as drawn: x, y, and their tooltips."""
    parsed = Page(inline_svg(chart, 1))
    return [(float(use["x"]), float(use["y"]), use["text"]) for use in parsed.all("use") if use["text"]], parsed


def test_a_curve_is_at_the_position_of_its_values():
    points, parsed = marks(Chart("Loss", {"train/loss": [0.0, 1.0, 0.5, math.nan, 0.25, math.nan]}))
    heights, steps = np.array([y for _, y, _ in points]), np.diff([x for x, _, _ in points])
    assert (heights[0] - heights) / (heights[0] - heights[1]) == pytest.approx([0, 1, 0.5, 0.25], abs=1e-3)
    assert steps / steps[0] == pytest.approx([1, 1, 2], abs=1e-3)
    assert points[-1][2] == "epoch 5: train/loss 0.2500"
    assert "from 0 to 0.2500, between 0 and 1" in parsed.all("desc")[0]["text"]
    assert {"0.2", "1", "epoch"} <= {text["text"].strip() for text in parsed.all("text")}


def test_a_logarithmic_curve_is_at_the_position_of_its_values():
    points, parsed = marks(Chart("Loss", {"a": [100.0, 10.0, 1.0]}, log=True))
    steps = np.diff([y for _, y, _ in points])
    assert steps[0] == pytest.approx(steps[1], abs=1e-3) and steps[0] > 0
    assert {"1", "10", "100"} <= {text["text"].strip() for text in parsed.all("text")}


@pytest.mark.parametrize(
    "values", [[1.0], [0.0, 0.0], [-3.0, 5.0], [1e-12, 2e-12], [1e9, 3e9], [0.3, 0.30001]], ids=str
)
def test_any_values_fit_into_their_chart(values):
    points, parsed = marks(Chart("x", {"x": values}))
    _, _, width, height = map(float, parsed.all("svg")[0]["viewbox"].split())
    assert len(points) == len(values)
    assert all(0 < x < width and 0 < y < height for x, y, _ in points)


def test_of_many_epochs_only_a_lonely_point_is_marked():
    values = [0.5] * 99 + [math.nan, 0.75, math.nan]
    points, _ = marks(Chart("x", {"x": values}))
    assert [said for _, _, said in points] == ["epoch 101: x 0.7500"]


def test_curves_follow_the_colors_of_the_page():
    drawn = inline_svg(Chart("x", {f"{n}": [0.1, 0.2] for n in range(9)}), 1)
    assert {f"var(--c{n})" for n in range(8)} <= set(re.findall(r"var\(--c\d\)", drawn))
    assert not set(re.findall("#[0-9a-f]{6}", drawn)) & {*style.CURVES_LIGHT, style.LIGHT["quiet"], style.LIGHT["rule"]}


def test_absolute_paths_are_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inside = str(tmp_path / "data" / "cells")
    assert without_paths({"a": [inside, "/home/ann/cells"], "b": {"c": "x/y", "d": 1}}) == {
        "a": ["data/cells", "…/cells"],
        "b": {"c": "x/y", "d": 1},
    }


def test_which_curves_share_a_chart(tmp_path):
    terms = {f"{split}/mask/{loss}": 0.1 for split in ("train", "val") for loss in ("bce", "dice")}
    scores = {"miou_defined": 2.0, "iou/a": 0.1, "iou/$b": 0.2}
    depth = {"depth/rmse": 0.3, "depth/delta1": 0.9, "depth/silog": 30.0, "depth/pixels": 9e6}
    rows = history(4, **terms, **scores, **depth)
    rows[0]["train/loss"] = 100.0
    made = {chart.title: chart for chart in charts(rows, ["depth"])}
    assert {title: sorted(chart.curves) for title, chart in made.items()} == {
        "Loss": ["train/loss", "val/loss"],
        "Terms of the loss": ["train/mask/bce", "train/mask/dice", "val/mask/bce", "val/mask/dice"],
        "Scores": ["miou"],
        "Scores of depth: rmse": ["depth/rmse"],
        "Scores of depth: delta1": ["depth/delta1"],
        "Scores of depth: silog": ["depth/silog"],
        "IoU by class": ["iou/$b", "iou/a"],
        "Learning rate": ["lr"],
    }
    assert [title for title, chart in made.items() if chart.log] == ["Loss"]
    terms = made["Terms of the loss"]
    assert terms.colors["train/mask/bce"] == terms.colors["val/mask/bce"] != terms.colors["val/mask/dice"]
    assert terms.dashed == {"train/mask/bce", "train/mask/dice"}
    save(figure([made["IoU by class"], Chart("_", {"_hidden": [1.0], "日本": [2.0]})]), tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width > 1000
