"""The package as shipped: cost and side effects of an import, contents of the wheel, import rules."""

import subprocess
import sys
import textwrap
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import unetzoo

ROOT = Path(__file__).parents[1]


def run(code, **kwargs):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True, text=True, **kwargs
    ).stdout


def test_import_is_free_of_torch_and_its_public_names_resolve():
    run("""
        import sys, unetzoo
        assert "torch" not in sys.modules and "numpy" not in sys.modules
        assert unetzoo.build is not None and unetzoo.LabelSpec is not None
        assert "torch" not in sys.modules
    """)
    for name in unetzoo.__all__:
        assert getattr(unetzoo, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'biuld'"):
        _ = unetzoo.biuld


NO_SOCKETS = """
import socket

def refuse(*args, **kwargs):
    raise AssertionError("a socket was opened")

socket.socket.connect = refuse
socket.create_connection = refuse
socket.getaddrinfo = refuse
"""

WORKERS = """
import sys
sys.path.insert(0, {folder!r})
import nosockets
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

def work(_):
    import nosockets, unetzoo, unetzoo.models, unetzoo.losses, unetzoo.metrics
    import unetzoo.training, unetzoo.inference, unetzoo.cli
    import numpy as np
    data = unetzoo.DATASETS.build("composites", size=32, length=2)
    data.transform = unetzoo.datasets.Transform(rotate=10, brightness=0.1)
    return tuple(data[0]["image"].shape)

if __name__ == "__main__":
    assert work(0) == (6, 32, 32)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(work, [0])) == [(6, 32, 32)]
"""


def test_no_import_opens_a_socket_also_in_spawned_workers(tmp_path):
    (tmp_path / "nosockets.py").write_text(NO_SOCKETS)
    script = tmp_path / "script.py"
    script.write_text(WORKERS.format(folder=str(tmp_path)))
    subprocess.run([sys.executable, str(script)], check=True, cwd=tmp_path, timeout=300)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_is_pure_and_contains_only_unetzoo(wheel):
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "unetzoo/report/templates/report.html.jinja" in names
    assert {name.partition("/")[0] for name in names} == {"unetzoo", f"unetzoo-{unetzoo.__version__}.dist-info"}
    assert "unetzoo/py.typed" in names
    template = {name for name in names if name.startswith("unetzoo/_template/")}
    assert "unetzoo/_template/src/unetzoo_template/model.py" in template
    assert not [name for name in template if name.endswith(".pyc") or "cache" in name]
    shipped = {Path(n).stem for n in names if n.startswith("unetzoo/recipes/") and n.endswith(".toml")}
    assert shipped == set(unetzoo.RECIPES.names("*"))


def test_the_wheel_works_outside_the_checkout(wheel, tmp_path):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    out = run(
        f"""
        import sys
        sys.path.insert(0, {str(site)!r})
        import unetzoo
        from unetzoo.template import create
        from unetzoo.training import load_recipe
        assert (create("acme-cells") / "src" / "acme_cells" / "demo.toml").is_file()
        assert unetzoo.__file__.startswith({str(site)!r})
        print(load_recipe("demo").model.name, unetzoo.build("unet", encoder_channels=[4, 4, 4]).name)
        """,
        cwd=tmp_path,
    )
    assert out.split() == ["dualunet", "unet"]


def test_the_version_has_one_source():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" not in project and "version" in project["dynamic"]
    assert f"## {unetzoo.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_constraints_pin_every_dependency_within_its_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), str(requirement)


def test_import_rules_hold():
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", sorted((ROOT / "unetzoo").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_in_the_package_executes_code_from_a_file(path):
    import ast

    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            error_alone = names == {"pickle", "UnpicklingError"}
            assert error_alone or not names & {"pickle", "marshal", "shelve", "dill", "yaml"}
        if isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            safe = any(word.arg == "weights_only" and ast.unparse(word.value) == "True" for word in node.keywords)
            assert call not in ("eval", "exec", "compile") and (call != "torch.load" or safe)
