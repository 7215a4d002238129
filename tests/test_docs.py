"""What README and docs show runs."""

import json
import re
import textwrap
import tomllib
from pathlib import Path

import pytest
import torch

from unetzoo.registry import REGISTRIES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(code, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
]


@pytest.mark.parametrize("code", BLOCKS)
def test_python_blocks_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)  # an untrained network may have classes that are tied up to rounding
    for registry in REGISTRIES.values():
        monkeypatch.setattr(registry, "_local", {})
    exec(compile(textwrap.dedent(code), "documentation", "exec"), {"__name__": "documentation"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_toml_blocks_can_be_read(page):
    for code in re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        tomllib.loads(code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_readmes_commands_exist():
    makefile = (ROOT / "Makefile").read_text()
    for command in re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE):
        assert re.search(rf"^{command}:", makefile, re.MULTILINE)


def numbers_in(value):
    """Every number in a JSON value, to three digits."""
    if isinstance(value, dict | list):
        return {n for part in (value.values() if isinstance(value, dict) else value) for n in numbers_in(part)}
    return {f"{value:.3f}"} if isinstance(value, float) else set()


def test_the_table_of_growing_images_agrees_with_the_kept_results():
    rows = re.findall(r"^\| (\d+)² \| ([\d.]+) \| (\d+) \|$", (ROOT / "docs/inference.md").read_text("utf-8"), re.M)
    kept = json.loads((ROOT / "benchmarks/results/gigapixel-cpu.json").read_text("utf-8"))["rows"]["3 classes, exact"]
    assert [[int(side), float(seconds), int(memory)] for side, seconds, memory in rows] == kept


def test_the_ledger_agrees_with_the_kept_results():
    rows = [row for row in (ROOT / "docs/ledger.md").read_text("utf-8").splitlines() if row.count("-cpu.json") == 1]
    assert len(rows) >= 6
    for row in rows:
        score, name = row.split("|")[4], re.search(r"`(\S+\.json)`", row).group(1)
        kept = json.loads((ROOT / "benchmarks/results" / name).read_text("utf-8"))
        claimed = re.findall(r"\d\.\d{3}", score)
        assert claimed and set(claimed) <= numbers_in(kept["scores"]), row
