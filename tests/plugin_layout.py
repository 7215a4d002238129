"""Distributions on the path, laid out as pip does, and the output of commands."""

import contextlib
import io
import sys

import pytest

from unetzoo import cli, plugins


@pytest.fixture
def laid_out(tmp_path, monkeypatch):
    """laid_out(dist, points, source): a distribution on the path, laid out as pip does."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = []

    def lay_out(dist, points, source, version="1.2"):
        module = dist.replace("-", "_")
        modules.append(module)
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n")
        text = "".join(
            f"[unetzoo.{group}]\n" + "".join(f"{name} = {module}:{target}\n" for name, target in names.items())
            for group, names in points.items()
        )
        (info / "entry_points.txt").write_text(text)
        plugins.clear_cache()

    yield lay_out
    for module in modules:
        sys.modules.pop(module, None)  # another test may lay out another one of this name
    plugins.clear_cache()


def io_of(*args, code):
    """Stdout of a command, for any exit code."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), pytest.raises(SystemExit) as ended:
        cli.main(list(args))
    assert ended.value.code == code
    return text.getvalue()
