"""The notebooks of examples/, cell after cell in one namespace, as a reader runs them from top to bottom.

They use only plain Python (no magics), so no kernel is needed: warnings are errors here, and a failure's traceback
names the cell.
"""

import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples/notebooks").glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def run(path, folder, monkeypatch):
    """The variables of a notebook, and the number of figures it draws."""
    monkeypatch.chdir(folder)
    plt.switch_backend("Agg")
    defined, figures = {"__name__": "__main__"}, 0
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, f"{path.name}, cell {cell.id}", "exec"), defined)
            for number in plt.get_fignums():
                plt.figure(number).canvas.draw()
                figures += 1
            plt.close("all")
    assert not list(folder.iterdir())  # nothing is left beside the notebook
    return defined, figures


@each
def test_the_file_is_valid_and_holds_no_results(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    nbformat.validate(notebook)
    assert notebook["cells"][0]["cell_type"] == "markdown" and "".join(notebook["cells"][0]["source"]).startswith("# ")
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


@each
def test_links_lead_somewhere(path):
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    assert links
    for link in links:
        assert (path.parent / link).exists(), link


def learned_the_faces(defined):
    assert max(row["miou"] for row in defined["history"]) > 0.6
    right = [found == sample["mask"] for found, sample in zip(defined["found"], defined["samples"], strict=True)]
    assert np.mean(right) > 0.93  # only background: about 0.6


def counted_the_means(defined):
    ends = [course[-1] for course in defined["courses"].values()]
    assert ends[0] < 0.05 and ends[1:] == [0.5, 0.5]
    truth, found = defined["truth"], defined["found"]
    shares = [iou(*pair) for pair in zip(truth, found, strict=True)]
    whole, rest = iou(truth, found), iou(~truth, ~found)
    by_hand = [np.mean(np.nan_to_num(shares, nan=1)), np.mean(np.nan_to_num(shares)), np.nanmean(shares), whole]
    assert list(defined["means"].values()) == pytest.approx([*by_hand, (whole + rest) / 2], abs=1e-6)


def iou(truth, found):
    """By hand; NaN where neither holds anything."""
    union = (truth | found).sum()
    return (truth & found).sum() / union if union else np.nan


def had_seams_only_where_tiles_knew_nothing(defined):
    whole, careless, exact = (defined[name].sigmoid() for name in ("whole", "careless", "exact"))
    assert (exact - whole).abs().max() < 1e-4 < 0.1 < (careless - whole).abs().max()
    within = slice(32, 96)
    assert (careless - whole)[within, within].abs().max() < 1e-4
    assert defined["wrong"].mean() < 0.1 and defined["shares"][-1] > 5 * np.mean(defined["shares"][:5])


CHECKS = {
    "quickstart": learned_the_faces,
    "empty_masks": counted_the_means,
    "large_images": had_seams_only_where_tiles_knew_nothing,
}


@each
def test_it_runs_and_shows_the_described_effect(path, tmp_path, monkeypatch):
    defined, figures = run(path, tmp_path, monkeypatch)
    assert figures == 4
    CHECKS[path.stem](defined)
