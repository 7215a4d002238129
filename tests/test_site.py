"""The commands of home page, gallery and tutorials run, essentials are linked, colors have contrast."""

import importlib
import re
import shlex
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from benchmarks import figures, gallery
from docs.generate import chart
from unetzoo import cli, planning
from unetzoo.testing import check_loss
from unetzoo.twins import write

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
HOME, GALLERY, README = (
    path.read_text("utf-8") for path in (DOCS / "index.md", DOCS / "gallery.md", ROOT / "README.md")
)
TUTORIALS = {name: (DOCS / "tutorials" / f"{name}.md").read_text("utf-8") for name in ("nuclei", "own-images")}
QUICK = {"--minutes": "0.02"}
SMALL = ["--set", "model.encoder_channels=[4, 8, 8]"]


def commands(text):
    """Commands of a page's shell blocks; lines that end with a backslash are joined."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip().startswith("unetzoo ")]


def run(command):
    words = shlex.split(command)[1:]
    words = [QUICK.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    if words[0] == "train":
        words += ["--quiet", "--set", "train.epochs=1", "--set", "data.repeat=1"]
        words += [] if "model.start" in command else SMALL
    if words[0] == "twin":
        words[words.index("--count") + 1] = "8"
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert not ended.value.code, command


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with what the commands read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(planning.machine, "SIDES", (16, 32))
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for folder in ("images", "new-images"):
        Path(folder).mkdir()
        Image.fromarray(image).save(Path(folder, "one.png"))
    Image.fromarray(image).save("background.png")
    tifffile.imwrite("slide.tif", np.tile(image, (4, 4, 1)), tile=(64, 64), photometric="rgb")
    write("folder-binary", "cells", count=8, size=64)
    write("dsb2018-merged", "my-data", count=10, size=256)
    return tmp_path


def test_the_home_page_and_the_readme_show_the_same_commands_and_the_same_table():
    def table(text):
        return re.findall(r"^\|.*\|$", text.replace("](docs/", "]("), re.MULTILINE)

    assert len(commands(HOME)) == 2 and set(commands(HOME)) <= set(commands(README))
    assert len(table(HOME)) > 10 and table(HOME) == table(README)


@pytest.mark.parametrize("command", [one for one in commands(HOME) if " predict " in one])
def test_commands_of_the_home_page_run(command, place):
    run(command)
    assert {"one_overlay.png", "one_instances.tif", "one_objects.csv"} <= {path.name for path in Path("out").iterdir()}


@pytest.mark.slow
def test_the_loss_of_the_tutorial_passes_the_checks(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "tutorials" / "loss.md").read_text("utf-8"), re.DOTALL)
    (tmp_path / "acme_loss.py").write_text(code, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    results = check_loss(importlib.import_module("acme_loss").GeneralizedCrossEntropy, task="multiclass")
    assert {result.outcome for result in results} == {"passed"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", [HOME, GALLERY, *TUTORIALS.values()], ids=["home", "gallery", *(f"tutorials/{name}" for name in TUTORIALS)]
)
def test_all_commands_run_in_their_order(text, place):
    if " cells --count" in text:  # the page makes the folder itself
        shutil.rmtree("cells")
    for command in commands(text):
        run(command)


@pytest.mark.parametrize(
    "target",
    [
        "training.md#resume-an-interrupted-run",
        "guides/rare-classes.md",
        "export.md",
        "metrics.md",
        "gallery.md",
        "start.md",
        "tutorials/own-images.md",
        "plugins.md",
    ],
)
def test_essentials_are_one_click_from_home(target):
    assert f"]({target})" in HOME


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_code_fits_beside_the_navigation_at_1300_pixels(page):
    for block in re.findall(r"```.*?```", page.read_text("utf-8"), re.DOTALL):
        assert max(map(len, block.splitlines())) <= 124


def test_anchors_in_the_readme_exist():
    for page, anchor in re.findall(r"\]\((docs/[^)#]+)#([^)]+)\)", README):
        headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text("utf-8"), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w\s-]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_the_gallery_shows_every_figure_that_is_made():
    made = {f"{name}.webp" for name in gallery.FIGURE}
    assert made == {path.name for path in gallery.FIGURES.glob("*.webp")}
    assert made == set(re.findall(r"\]\(figures/(\S+\.webp)\)", HOME + GALLERY))
    assert all((gallery.FIGURES / name).stat().st_size < 100_000 for name in made)


def test_figures_are_grids_with_transparent_gaps(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "FIGURES", tmp_path)
    gallery.save("grid", [[np.full((16, 16, 3), 200, np.uint8)] * 3] * 2)
    image = np.asarray(Image.open(tmp_path / "grid.webp").convert("RGBA"))
    assert image.shape == (40, 64, 4)
    assert (image[:, 16:24, 3] == 0).all() and (image[:16, :16, 3] == 255).all()


def luminance(color):
    channels = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4) @ [
        0.2126,
        0.7152,
        0.0722,
    ]


def contrast(one, other):
    """The contrast ratio of WCAG 2.2, from 1 to 21."""
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["default", "slate"])
def test_text_has_contrast_in_both_palettes(scheme):
    css = (DOCS / "assets" / "extra.css").read_text("utf-8")
    block = re.search(rf'\[data-md-color-scheme="{scheme}"\] {{(.*?)}}', css, re.DOTALL)[1]
    color = dict(re.findall(r"--md-([\w-]+): (#[0-9a-f]{6});", block))
    texts = ("default-fg-color", "default-fg-color--light", "typeset-a-color", "accent-fg-color")
    pairs = [
        *product(texts, ["default-bg-color", "code-bg-color"]),
        ("code-fg-color", "code-bg-color"),
        *product(["primary-bg-color", "primary-bg-color--light"], ["primary-fg-color"]),
    ]
    for text, background in pairs:
        assert contrast(color[text], color[background]) >= 4.5, (text, background)


def test_charts_have_contrast_on_their_own_paper():
    for text in (chart.INK, chart.FAINT):
        assert contrast(text, chart.PAPER) >= 4.5
    for line in chart.COLORS:
        assert contrast(line, chart.PAPER) >= 3
    assert contrast(figures.FAINT, "#ffffff") >= 4.5
    assert min(contrast(color, "#ffffff") for color in (figures.OURS, figures.LOST)) >= 3
