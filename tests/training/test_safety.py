"""The package never executes what it reads: no pickle, no eval, no unsafe loaders."""

import ast
import sys
from pathlib import Path

import pytest

import unetzoo
from unetzoo.errors import ConfigError, UnetzooError
from unetzoo.training.recipe import load

FILES = sorted(Path(unetzoo.__file__).parent.rglob("*.py"))
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
ERRORS = {"PickleError", "UnpicklingError"}  # to be caught
CALLS = {"eval", "exec", "compile", "__import__"}


def faults(tree):
    """Places in a syntax tree that could execute what they read."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            harmless = isinstance(node, ast.ImportFrom) and {alias.name for alias in node.names} <= ERRORS
            unsafe = [name for name in names if name.partition(".")[0] in MODULES and not harmless]
            yield from (f"{node.lineno}: import {name}" for name in unsafe)
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if isinstance(node.func, ast.Name) and called in CALLS:
            yield f"{node.lineno}: {called}"
        if called == "torch.load" and given.get("weights_only") != "True":
            yield f"{node.lineno}: torch.load without weights_only=True"
        if called in (
            "yaml.load",
            "yaml.unsafe_load",
            "yaml.full_load",
            "torch.jit.load",
            "torch.package.PackageImporter",
        ):
            yield f"{node.lineno}: {called}"
        if given.get("allow_pickle", "False") != "False":
            yield f"{node.lineno}: {called} with allow_pickle"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_loader_in_the_package_executes_files(path):
    assert list(faults(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from pickle import loads", "import joblib.numpy_pickle", "eval('1')", "exec(x)",
        "torch.load(p)", "torch.load(p, weights_only=False)", "yaml.load(x)", "np.load(p, allow_pickle=True)",
    ],
)  # fmt: skip
def test_the_rule_sees_each_of_them(line):
    assert len(list(faults(ast.parse(line)))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "net.eval()",
        "from pickle import UnpicklingError",
        "torch.load(p, weights_only=True)",
        "re.compile('x')",
        "np.load(p)",
    ],
)
def test_the_rule_lets_the_harmless_pass(line):
    assert not list(faults(ast.parse(line)))


HOSTILE = [
    '[model]\nname = "bnunet"\n_target_ = "os.system"\n',
    '[model]\nname = "os:system"\n',
    '[model]\nname = "__main__:x"\n',
    '[data]\nname = "!!python/object/apply:os.system"\n',
    "[loss]\n\"__import__('os').system('touch canary')\" = 1.0\n",
    '[optimizer]\nname = "${oc.env:HOME}"\n',
    '[metrics.mask]\nname = "{{7*7}}"\n',
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_recipe_executes_no_code(text, tmp_path):
    base = '[model]\nname = "bnunet"\n[data]\nname = "composites"\n[loss]\nce = 1.0\n'
    kept = [part for part in base.split("[") if part and not text.startswith("[" + part.partition("]")[0])]
    path = tmp_path / "recipe.toml"
    path.write_text(text + "".join("[" + part for part in kept))
    watched = []
    active = [True]

    def hook(event, args):
        if active[0] and event in ("os.system", "subprocess.Popen", "exec", "pickle.find_class", "os.exec"):
            watched.append(event)

    unetzoo.LOSSES.names()
    try:  # everything that a recipe may import is imported before
        load("demo")
    finally:
        sys.addaudithook(hook)
    try:
        with pytest.raises((ConfigError, UnetzooError)):
            load(path)
    finally:
        active[0] = False
    assert [event for event in watched if event != "exec"] == []
    assert not Path("canary").exists() and not (tmp_path / "canary").exists()
