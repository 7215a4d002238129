"""The site documents the library: pages are up to date, public names documented, images have descriptions."""

import importlib
import inspect
import re
import tomllib
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp

import unetzoo
from docs import generate
from unetzoo.registry import REGISTRIES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}
ROOMS = ("unetzoo", *(f"unetzoo.{room}" for room in unetzoo._ROOMS))
SAME_SMP = f"of SMP {smp.__version__}" in TEXT[DOCS / "models" / "smp-architectures.md"]


@pytest.mark.parametrize("kind", ["models/[!s]*", "datasets/*", "losses/*"])
def test_generated_pages_are_up_to_date(kind):
    """`python -m docs.generate` writes them anew."""
    assert generate.stale(kind) == []


@pytest.mark.skipif(not SAME_SMP, reason="the figures are of another version of SMP")
@pytest.mark.slow
def test_figures_of_smps_networks_are_up_to_date():
    assert generate.stale("models/smp-*") == []


def test_no_generated_page_is_left_over():
    made = {name for room in (generate.models, generate.datasets, generate.losses) for name, _ in room.files()}
    there = {str(p.relative_to(DOCS)) for folder in ("models", "datasets", "losses") for p in (DOCS / folder).iterdir()}
    assert there == made


def public_names():
    for room in ROOMS:
        module = importlib.import_module(room)
        for name in module.__all__:
            yield pytest.param(getattr(module, name), id=f"{room}.{name}")


DIRECTIVES = {name for text in TEXT.values() for name in re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)}
WORDS = {
    word for text in TEXT.values() for code in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"\w+", code)
}


@pytest.mark.parametrize("thing", list(public_names()))
def test_every_public_name_is_documented(thing, request):
    """Its module, its package or itself is in the API pages; values without a docstring are described in a text."""
    name = request.node.callspec.id
    home = getattr(thing, "__module__", None) or getattr(thing, "__name__", "")
    if inspect.ismodule(thing):
        assert thing.__doc__
    elif inspect.isclass(thing) or inspect.isroutine(thing):
        paths = {f"{home}.{thing.__qualname__}", name}
        above = {".".join(path.split(".")[:depth]) for path in paths for depth in range(1, 8)}
        assert above & DIRECTIVES, f"{name} stands under no ::: of the API pages"
        assert inspect.getdoc(thing), f"{name} has no docstring"
    else:
        assert name.rpartition(".")[2] in WORDS, f"{name} stands in no page"


@pytest.mark.parametrize("thing", list(public_names()))
def test_documented_arguments_exist(thing):
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        return
    described = re.search(r"^Args:\n((?: {4}.*\n|\n)+)", (inspect.getdoc(thing) or "") + "\n", re.MULTILINE)
    names = re.findall(r"^ {4}\*{0,2}(\w+):", described[1], re.MULTILINE) if described else []
    known = {*inspect.signature(thing).parameters, *getattr(thing, "__annotations__", ())} if names else set()
    assert set(names) <= known


@pytest.mark.parametrize("kind", ["models", "datasets", "losses", "metrics"])
def test_every_built_in_stands_on_a_page(kind):
    registry = REGISTRIES[kind]
    missing = {name for name in registry.names() if registry.entry(name).builtin} - {
        code for text in TEXT.values() for code in re.findall(r"`([\w-]+)`", text)
    }
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_images_have_texts(page):
    for text, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", TEXT[page]):
        assert len(text) > 15, target
        if page.parent != DOCS and target.endswith(".svg"):
            assert "<desc" in (page.parent / target).read_text(encoding="utf-8"), target


def test_the_citation_is_of_this_package():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f'version: "{unetzoo.__version__}"' in text and "cff-version: 1.2.0" in text


def test_workflows_and_image_name_existing_targets():
    makefile = (ROOT / "Makefile").read_text()
    files = [*sorted((ROOT / ".github" / "workflows").glob("*.yml")), ROOT / "Dockerfile", ROOT / "CONTRIBUTING.md"]
    assert len(files) == 5
    for path in files:
        text = path.read_text(encoding="utf-8")
        for target in re.findall(r"\b(?:make|target:) ([a-z-]+)", text):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), (path.name, target)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lowest = project["requires-python"].removeprefix(">=")
    tests = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    assert f'{{ python: "{lowest}", target: test-lowest }}' in tests and "target: test-latest" in tests
