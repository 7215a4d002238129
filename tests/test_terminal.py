"""Names, paths and messages are printed literally: never as markup or control characters."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from rich.table import Table
from rich.text import Text
from test_cli import FOLDER, draw_folder, unetzoo, wide_terminal  # noqa: F401 -- a fixture

from unetzoo import MODELS, cli
from unetzoo.metrics.report import tables
from unetzoo.terminal import PlainConsole
from unetzoo.wording import printable

MARKUP = ("[/bold]", "person [sitting]", "[red]x", "[/]", ":smile:")
CONTROLS = ("a\x1b[31mb", "a\rb", "a\x9b2Jb", "a\u202eb", "a\ud800b", "a\x00b")


@pytest.mark.parametrize("text", CONTROLS)
def test_control_characters_become_a_mark(text):
    assert printable(text) == f"a\ufffd{text[2:]}"
    table = Table("name")
    table.add_row(text)
    for renderable in (text, table, Text(text)):
        file = io.StringIO()
        PlainConsole(file=file, width=80).print(renderable)
        assert text[1] not in file.getvalue()
        assert isinstance(renderable, Text) or f"a\ufffd{text[2:]}" in file.getvalue()


@pytest.mark.parametrize("text", ["日本", "naïve", "👩‍🔬", "שלום", "a\tb\nc"])
def test_other_text_is_unchanged(text):
    assert printable(text) == text


@pytest.mark.parametrize("text", MARKUP)
def test_markup_is_text(text):
    file = io.StringIO()
    PlainConsole(file=file, width=80).print(text)
    assert file.getvalue() == f"{text}\n"


@pytest.mark.parametrize("name", MARKUP)
def test_a_name_that_looks_like_markup_is_listed(name):
    MODELS.register(name)(lambda classes=1: None)
    try:
        assert name in unetzoo("list")
    finally:
        MODELS._local.pop(name)


def test_class_names_and_folders_that_look_like_markup_train_and_evaluate(tmp_path):
    names = ["[/x]", "person [sitting]"]
    draw_folder(tmp_path / "[/data]", count=4, size=16)
    (tmp_path / "cells.toml").write_text(FOLDER.replace("epochs = 2", "epochs = 1"))
    sets = ["--set", 'data.root="[/data]"', "--set", f"data.names={names}".replace("'", '"')]
    run = tmp_path / "runs" / "[" / "foo]"
    text = unetzoo("train", "cells.toml", *sets, "--out", "runs/[/foo]", cwd=tmp_path)
    assert all(name in text for name in names) and "runs/[/foo]" in text
    for command in (("evaluate",), ("compare", "--out", tmp_path / "out")):
        text = unetzoo(*command, run, cwd=tmp_path)
        assert "person [sitting]" in text or "foo]" in text
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "[red]p.png")
    assert "[/foo]" in unetzoo("predict", run, "[red]p.png", "[/foo]", "--quiet", cwd=tmp_path)


@pytest.mark.parametrize(
    "args",
    [["[/bold]"], ["train", "[/bold]"], ["info", "[/bold]"], ["doctor", "[/bold]"], ["evaluate", "[/a]"],
     ["list", "--kind", "[/b]"], ["train", "demo", "--set", "[/x]"], ["train", "demo", "--[/x]"],
     ["predict", "[/run]", "[/x].png", "[/out]"], ["draw", "unet", "--out", "[/x]"], ["stats", "[/x]"]],
    ids=" ".join,
)  # fmt: skip
def test_mistakes_with_markup_end_with_an_exit_code(tmp_path, monkeypatch, args):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(args)
    assert ended.value.code in (2, 3, 5)


def test_tables_of_scores_print_on_any_console():
    file = io.StringIO()
    for table in tables({"miou": 0.5, "iou/[/x]": 0.5, "iou/[red]": 0.25, "image/iou/[/x]": 0.5}):
        Console(file=file, width=80).print(table)
    assert "[/x]" in file.getvalue() and "[red]" in file.getvalue()


def test_a_warning_of_the_command_line_is_a_line_without_its_source(capsys, monkeypatch):
    monkeypatch.setattr(cli, "app", lambda args: warnings.warn("the recipe is damaged", stacklevel=1))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        cli.main([])
    assert capsys.readouterr().err == "warning: the recipe is damaged\n"
