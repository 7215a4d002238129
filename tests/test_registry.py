"""Registries and packages that are laid out on disk as pip does: metadata and modules."""

import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
from conftest import GOOD

import unetzoo
from unetzoo.errors import (
    DuplicateNameError,
    PluginBuildError,
    PluginContractError,
    PluginLoadError,
    UnknownKeywordError,
    UnknownNameError,
)
from unetzoo.plugins import FIRST_PARTY, GROUPS, installed
from unetzoo.registry import DATASETS, MODELS, REGISTRIES, Registry


def test_a_plugin_is_listed_and_imported_when_used(install):
    install("acme-seg", ["tinyunet"])
    assert "tinyunet" in unetzoo.list_models("tiny*")
    assert "acme_seg" not in sys.modules
    assert unetzoo.build("tinyunet", classes=3) == ("made", 3, 8)
    assert unetzoo.build("Acme_Seg:tinyunet", width=2) == ("made", 1, 2)


def test_names_of_our_own_plugins_are_known_where_these_are_not_installed():
    for path in (Path(__file__).parents[1] / "plugins").glob("*/pyproject.toml"):
        project = tomllib.loads(path.read_text())["project"]
        points = project["entry-points"]
        added = {name for group in GROUPS for name in points.get(group, ())}
        if project["name"] != "unetzoo-template":
            assert set(FIRST_PARTY[project["name"]]) == added
    if "coco" not in DATASETS.names():
        with pytest.raises(UnknownNameError) as caught:
            DATASETS.get("coco")
        assert caught.value.hint == "pip install unetzoo-formats"


def test_unknown_names_and_keywords_suggest_similar_ones(install):
    install("acme-seg-two", ["tinyunet"])
    with pytest.raises(UnknownNameError) as caught:
        unetzoo.build("r2unett")
    assert "'r2unet'" in caught.value.hint
    with pytest.raises(UnknownKeywordError) as caught:
        unetzoo.build("tinyunet", widht=3)
    assert "'width'" in caught.value.hint
    with pytest.raises(UnknownNameError):
        unetzoo.build("acme-seg-three:tinyunet")
    with pytest.raises(UnknownNameError):
        unetzoo.build(3)


@pytest.mark.parametrize(
    ("case", "source", "error", "says"),
    [
        ("raises", "raise ValueError('boom')", PluginLoadError, "ValueError: boom"),
        ("exits", "raise SystemExit(3)", PluginLoadError, "SystemExit"),
        ("misses", "import not_there_at_all", PluginLoadError, "not_there_at_all"),
        ("lacks", "other = 1", PluginLoadError, "AttributeError"),
        ("wrongtype", "make = 3", PluginContractError, "int"),
        ("swallows", "def make(**kwargs): pass", PluginContractError, "**kwargs"),
    ],
)
def test_a_broken_plugin_fails_when_it_is_used(install, case, source, error, says):
    install(f"bad-{case}", [f"bad{case}"], source)
    assert f"bad{case}" in unetzoo.list_models()
    with pytest.raises(error) as caught:
        unetzoo.build(f"bad{case}")
    assert says in caught.value.found
    if error is PluginLoadError:
        assert caught.value.subject == f"bad-{case} 1.2 (bad_{case}:make)"
    else:
        assert caught.value.subject == f"bad-{case}:bad{case}"
    assert unetzoo.build("bnunet", encoder_channels=(2, 2, 2)) is not None


UNREADABLE = """
class Odd(Exception):
    def __str__(self):
        raise RuntimeError("no message")
def make(classes=1):
    raise {error}
"""


@pytest.mark.parametrize("error", ["SystemExit(3)", "GeneratorExit()", "BaseException('gone')", "Odd()"])
def test_any_error_of_a_constructor_names_the_plugin(install, error):
    install("bad-building", ["badbuilding"], UNREADABLE.format(error=error))
    with pytest.raises(PluginBuildError) as caught:
        unetzoo.build("badbuilding")
    assert caught.value.subject == "bad-building 1.2 (bad_building:make)"
    assert caught.value.found.startswith(error.partition("(")[0])


@pytest.mark.parametrize("error", ["GeneratorExit()", "BaseException('gone')"])
def test_any_error_at_import_names_the_plugin(install, error):
    install("bad-importing", ["badimporting"], f"raise {error}")
    with pytest.raises(PluginLoadError) as caught:
        unetzoo.build("badimporting")
    assert caught.value.subject == "bad-importing 1.2 (bad_importing:make)"


def test_ctrl_c_during_a_build_is_not_wrapped(install):
    install("bad-interrupt", ["interrupted"], "def make(classes=1):\n    raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        unetzoo.build("interrupted")


@pytest.mark.parametrize("points", ["bnunet = acme_impostor:make", "", "mine = unetzoo.models:BNUNet"])
def test_another_distribution_called_unetzoo_hides_no_built_in(tmp_path, monkeypatch, points):
    monkeypatch.syspath_prepend(str(tmp_path))
    info = tmp_path / "unetzoo-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: unetzoo\nVersion: 9.9\n")
    (info / "entry_points.txt").write_text(f"[unetzoo.models]\n{points}\n")
    MODELS.refresh()
    try:
        assert {"unet", "bnunet", "r2unet"} <= set(unetzoo.list_models()) and "mine" not in unetzoo.list_models()
        assert unetzoo.MODELS.get("bnunet") is unetzoo.models.BNUNet
        (impostor,) = [found for found in installed() if found.version == "9.9"]
        assert str(tmp_path) in impostor.name and impostor.fault and not impostor.builtin
    finally:
        MODELS.refresh()


def test_a_built_in_has_precedence_with_a_warning(install):
    install("taker", ["bnunet"])
    with pytest.warns(UserWarning, match="taker:bnunet"):
        assert MODELS.get("bnunet") is unetzoo.models.BNUNet
    assert unetzoo.build("taker:bnunet") == ("made", 1, 8)
    assert unetzoo.list_models("bnunet") == ["bnunet"]


def test_two_plugins_with_one_name_are_an_error_that_names_both(install):
    install("first-dist", ["same"])
    install("second-dist", ["same"], GOOD.replace("made", "second"))
    with pytest.raises(DuplicateNameError) as caught:
        unetzoo.build("same")
    assert all(name in caught.value.found for name in ("first-dist:same", "second-dist:same"))
    assert unetzoo.build("second-dist:same")[0] == "second"
    assert unetzoo.list_models("*same") == ["first-dist:same", "second-dist:same"]


def test_register_serves_notebooks():
    registry = Registry("model", "unetzoo.models")

    def define(value):
        @registry.register("mine")
        def made(classes=1):
            return value

        return made

    define(1)
    define(2)  # the same cell, run again
    assert registry.build("mine") == registry.build("__main__:mine") == 2
    assert "mine" in registry.names()

    @registry.register("other")
    def other():
        return 0

    with pytest.raises(DuplicateNameError):
        registry.register("mine")(other)
    with pytest.raises(DuplicateNameError) as caught:
        registry.register("unet")(other)
    assert caught.value.found == "unetzoo:unet"
    with pytest.raises(PluginContractError):
        registry.register("loose")(lambda **kwargs: 0)


@pytest.mark.parametrize("kind", [k for k in REGISTRIES if REGISTRIES[k].callable_values])
def test_every_built_in_loads_and_keeps_the_contract(kind):
    registry = REGISTRIES[kind]
    assert registry.names()
    for name in registry.names():
        assert callable(registry.get(name))
        assert registry.entry_of(registry.get(name)).name == name


def test_listing_a_fresh_process_imports_nothing_heavy():
    code = """
        import sys, unetzoo
        names = [r.names() for r in (unetzoo.MODELS, unetzoo.LOSSES, unetzoo.DATASETS, unetzoo.RECIPES)]
        assert all(names)
        heavy = {"torch", "numpy", "segmentation_models_pytorch", "albumentations", "PIL"} & set(sys.modules)
        assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(code)], check=True)
