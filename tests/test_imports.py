"""No module imports itself through others, at any distance, including imports inside functions."""

import sys
from pathlib import Path

import grimp
import networkx
import pytest

ROOT = Path(__file__).parents[1]


def circles(package):
    """The groups of modules that import each other, deferred imports and those for type checkers included."""
    graph = grimp.build_graph(package, cache_dir=None)
    imports = networkx.DiGraph(
        (module, imported) for module in graph.modules for imported in graph.find_modules_directly_imported_by(module)
    )
    return [sorted(group) for group in networkx.strongly_connected_components(imports) if len(group) > 1]


@pytest.mark.parametrize("package", ["unetzoo", "benchmarks"])
def test_no_import_circles(package, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    found = circles(package)
    assert not found, "\n".join(", ".join(group) for group in found)


def test_a_circle_would_be_found(tmp_path, monkeypatch):
    folder = tmp_path / "circular"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "a.py").write_text("from . import b\n")
    (folder / "b.py").write_text("def late():\n    from .c import d\n    return d\n")
    (folder / "c.py").write_text("import typing\nif typing.TYPE_CHECKING:\n    from . import a\nd = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert circles("circular") == [["circular.a", "circular.b", "circular.c"]]
    assert "circular" not in sys.modules
