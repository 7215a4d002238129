"""A broken plugin affects only itself: wheels of broken plugins, built and installed beside fifty good ones."""

import json
import os
import resource
import subprocess
import sys
import textwrap

import pytest
from wheels import install, project

GOOD = "def make(classes=1, width=8):\n    return ('{name}', classes, width)\n"
BAD = {
    "bad-raises": "raise ValueError('boom')",
    "bad-exits": "raise SystemExit(3)",
    "bad-dies": "import os\nos._exit(7)",
    "bad-misses": "import not_there_at_all",
    "bad-lacks": "other = 1",
    "bad-type": "make = 3",
    "bad-kwargs": "def make(**kwargs):\n    return 1",
    "bad-sleeps": "import time\ntime.sleep(3600)\ndef make():\n    return 1",
    "bad-prints": "print('welcome to acme')\ndef make():\n    return 1",
    "bad-builtin": "make = print.__class__.__call__",
}
UNBUILT = {  # these import, and go wrong when they are built
    "unbuilt-raises": "class Odd(Exception):\n    pass\ndef make(classes=1):\n    raise Odd('no weights')",
    "unbuilt-exits": "def make(classes=1):\n    raise SystemExit(3)",
    "unbuilt-lies": "def make(classes=1):\n    return 3",
}
REASON = {
    "unbuilt-raises": "Odd: no weights",
    "unbuilt-exits": "SystemExit: 3",
    "unbuilt-lies": "found int",
}
SAYS = {
    "bad-raises": "ValueError: boom",
    "bad-exits": "SystemExit: 3",
    "bad-dies": "exit code 7",
    "bad-misses": "No module named 'not_there_at_all'",
    "bad-lacks": "has no attribute 'make'",
    "bad-type": "expected a callable with explicit keyword parameters, found int",
    "bad-kwargs": "expected explicit keyword parameters, found **kwargs",
    "bad-prints": "prints to stdout at import: 'welcome to acme'",
    "bad-builtin": "arbitrary keywords",
    "bad-recipe": "expected a path or a text, found int",
    "bad-newer": "pip install --upgrade unetzoo",
    "bad-older": "pip install --upgrade bad-older",
}
MANY = 50


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Fifty good plugins and all bad ones, in a folder that is only on the path of child processes."""
    folder = tmp_path_factory.mktemp("plugins")
    projects = [
        project(
            folder, name, source, {"models": {name: "{package}:make"}, "encoders": {f"{name}-enc": "{package}:make"}}
        )
        for name, source in BAD.items()
    ]
    for number in range(MANY):
        name = f"good-{number}"
        points = {kind: {f"{name}-{kind}": "{package}:make"} for kind in ("models", "losses", "metrics")}
        projects.append(project(folder, name, GOOD.format(name=name), points))
    for name, points in {
        "bad-recipe": {"recipes": {"bad-recipe": "{package}:number"}},
        "bad-newer": {"models": {"newer": "{package}:make"}, "api": {"2": "{package}"}},
        "bad-older": {"models": {"older": "{package}:make"}, "api": {"0": "{package}"}},
        "both-apis": {"models": {"both": "{package}:make"}, "api": {"1": "{package}", "2": "{package}"}},
        "twin-a": {"models": {"same": "{package}:make"}},
        "twin-b": {"models": {"same": "{package}:make"}},
        "taker": {"models": {"bnunet": "{package}:make"}, "losses": {"dice": "{package}:make"}},
    }.items():
        projects.append(project(folder, name, GOOD.format(name=name) + "number = 3\n", points))
    for name, source in UNBUILT.items():
        points = {kind: {name: "{package}:make"} for kind in ("models", "losses", "metrics", "datasets")}
        projects.append(project(folder, name, source, points))
    return install(projects, folder / "site", folder / "wheels")


def child(site, *args, code=0, timeout=230, **env):
    """A process that sees the plugins."""
    done = subprocess.run(
        [sys.executable, "-P", *args],
        env={**os.environ, "PYTHONPATH": str(site), "COLUMNS": "300", "PYTHONWARNINGS": "", **env},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def python(site, source, **env):
    return child(site, "-c", textwrap.dedent(source), **env).stdout


def test_built_ins_work_next_to_broken_plugins_and_none_is_imported(site):
    python(
        site,
        """
        import sys, torch, unetzoo
        from unetzoo.registry import REGISTRIES
        for registry in REGISTRIES.values():
            for name in registry.names():
                entries = [e for e in registry.entries().get(name, []) if e.builtin]
                if entries:
                    registry.get(f"unetzoo:{name}")
        net = unetzoo.build("unetzoo:bnunet", encoder_channels=(4, 4, 4), classes=2)
        loss = unetzoo.LOSSES.build("unetzoo:dice", mode="multiclass")
        output = net(torch.zeros(2, 3, 16, 16))
        loss(output, torch.zeros(2, 16, 16, dtype=torch.int64)).backward()
        import segmentation_models_pytorch as smp
        assert "bad-dies-enc" in smp.encoders.encoders
        smp.Unet("unetzoo-bn", encoder_weights=None)
        seen = {name for name in sys.modules if name.startswith(("bad_", "good_", "twin_", "taker"))}
        assert not seen, seen
        """,
    )


def test_a_bad_one_is_an_error_when_it_is_used_and_the_next_one_works(site):
    python(
        site,
        """
        import warnings, unetzoo
        from unetzoo.errors import DuplicateNameError, PluginContractError, PluginError, PluginLoadError
        expected = {"bad-raises": PluginLoadError, "bad-exits": PluginLoadError, "bad-misses": PluginLoadError,
                    "bad-lacks": PluginLoadError, "bad-type": PluginContractError, "bad-kwargs": PluginContractError,
                    "bad-builtin": PluginContractError, "newer": PluginLoadError, "older": PluginLoadError}
        for name, kind in expected.items():
            try:
                unetzoo.build(name)
            except kind as error:
                assert "Fix: " in str(error) or kind is PluginContractError, error
                assert ("1.2" in str(error)) == (kind is PluginLoadError), error
            else:
                raise AssertionError(name)
            assert unetzoo.build("good-3-models", classes=2) == ("good-3", 2, 8)
        assert unetzoo.build("both")[0] == "both-apis"
        try:
            unetzoo.build("same")
        except DuplicateNameError as error:
            assert "twin-a:same" in str(error) and "twin-b:same" in str(error)
        assert unetzoo.build("twin-b:same")[0] == "twin-b"
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert unetzoo.MODELS.get("bnunet") is unetzoo.models.BNUNet
        assert "hides taker:bnunet" in str(caught[0].message)
        assert unetzoo.build("taker:bnunet")[0] == "taker"
        from unetzoo.training import load_recipe
        try:
            load_recipe("bad-recipe")
        except PluginContractError as error:
            assert "a path or a text" in str(error)
        """,
    )


def test_one_that_cannot_be_built_is_one_line_that_names_it(site, tmp_path):
    """In one process, which continues after each."""
    parts = {"model": "model={{name='{0}'}}", "loss": "loss={{{0}=1.0}}", "metrics": "metrics.mask.name='{0}'",
             "data": "data={{name='{0}'}}"}  # fmt: skip
    runs = {f"{name} info": ["info", name] for name in UNBUILT}
    for name in ("unbuilt-raises", "unbuilt-exits"):
        for part, change in parts.items():
            runs[f"{name} {part}"] = ["train", "demo", "--out", str(tmp_path / name / part), "--quiet",
                                      "--set", "data.train.length=2", "--set", change.format(name)]  # fmt: skip
            if part == "data":
                del runs[f"{name} {part}"][-4:-2]
    printed = python(
        site,
        f"""
        import contextlib, io, json
        from unetzoo.cli import main
        ends = {{}}
        for key, words in {runs!r}.items():
            text = io.StringIO()
            with contextlib.redirect_stderr(text):
                try:
                    main(words)
                except SystemExit as end:
                    ends[key] = end.code, text.getvalue()
        print(json.dumps(ends))
        """,
    )
    ends = json.loads(printed.splitlines()[-1])
    for key in runs:
        name, (code, text) = key.split()[0], ends[key]
        assert code == 5 and text.splitlines()[-1].startswith("error: ") and "Traceback" not in text, (key, text)
        assert f"{name} 1.2 ({name.replace('-', '_')}:make)" in text and REASON[name] in text, (key, text)


def test_listing_fifty_plugins_imports_nothing(site):
    printed = python(
        site,
        """
        import sys
        from unetzoo.cli import main
        try:
            main(["list", "--json"])
        except SystemExit as end:
            assert not end.code
        heavy = {name.partition(".")[0] for name in sys.modules} & {"torch", "numpy", "PIL", "pydantic_settings"}
        assert not heavy, heavy
        assert not [name for name in sys.modules if name.startswith(("bad_", "good_", "twin_", "taker"))]
        """,
    )
    names = json.loads(printed)
    assert sum(name.startswith("good-") for name in names["models"]) == MANY
    assert {"bad-dies", "bad-sleeps", "twin-a:same", "twin-b:same", "bnunet"} <= set(names["models"])
    assert names["losses"].count("dice") == 1


@pytest.mark.slow  # a figure of this machine
def test_listing_fifty_plugins_is_quick(site):
    assert min(cpu_seconds(site, "-m", "unetzoo.cli", "list", "--json") for _ in range(7)) < 0.3


def cpu_seconds(site, *args):
    """Elapsed time would depend on other processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    child(site, *args)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_plugin_list_shows_the_faults_of_each(site):
    def rows_of(names, *options):
        done = child(site, "-m", "unetzoo.cli", "plugin", "list", "--json", *options, UNETZOO_PLUGINS=",".join(names))
        return {row["distribution"]: row for row in json.loads(done.stdout) if row["state"] != "off"}

    others = {path.name.partition("-1.2")[0].replace("_", "-") for path in site.glob("*.dist-info")} - {"bad-sleeps"}
    rows = rows_of(others) | rows_of(["bad-sleeps"], "--timeout", "1")
    assert rows["unetzoo"]["state"] == "importable"
    for number in range(MANY):
        assert rows[f"good-{number}"]["state"] == "importable", rows[f"good-{number}"]
    assert rows["good-7"]["version"] == "1.2"
    assert rows["good-7"]["adds"] == {kind: [f"good-7-{kind}"] for kind in ("models", "losses", "metrics")}
    assert rows["bad-sleeps"]["state"] == "slow" and "not imported within 1 s" in rows["bad-sleeps"]["faults"][0]
    for name, text in SAYS.items():
        assert rows[name]["state"] == "broken", rows[name]
        assert text in " ".join(rows[name]["faults"]), rows[name]
        if name == "bad-prints":
            assert len(rows[name]["faults"]) == 1
    assert {rows[name]["state"] for name in ("twin-a", "twin-b", "taker", "both-apis", *UNBUILT)} == {"importable"}


def test_damaged_metadata_affect_only_their_plugin(tmp_path):
    info = tmp_path / "damaged-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: damaged\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[unetzoo.models]\nno equals sign\n")
    assert "bnunet" in child(tmp_path, "-m", "unetzoo.cli", "list").stdout  # torch could not even be imported
    rows = json.loads(child(tmp_path, "-m", "unetzoo.cli", "plugin", "list", "--json").stdout)
    (row,) = [row for row in rows if row["distribution"] == "damaged"]
    assert row["state"] == "broken" and "unreadable metadata" in row["faults"][0]


def test_plugin_check_of_a_broken_import_is_an_error(site):
    for name in ("bad-dies", "bad-newer", "bad-prints"):
        done = child(site, "-m", "unetzoo.cli", "plugin", "check", name, code=5)
        assert SAYS[name] in done.stderr and done.stdout == ""


def test_plugin_check_of_a_slow_import_names_the_limit(site):
    done = child(site, "-m", "unetzoo.cli", "plugin", "check", "bad-sleeps", "--timeout", "1", code=5)
    assert "is slow" in done.stderr and "--timeout" in done.stderr and "reinstall" not in done.stderr


def test_the_switch_enables_none_or_the_named_plugins(site):
    names = "import unetzoo; print(*unetzoo.list_models('*'))"
    assert "bad-raises" in python(site, names).split()
    off = python(site, names, UNETZOO_PLUGINS="none").split()
    assert "bnunet" in off and not [name for name in off if name.startswith(("good", "bad"))]
    some = python(site, names, UNETZOO_PLUGINS="Good_1, good-2").split()
    assert [name for name in some if name.startswith(("good", "bad"))] == ["good-1-models", "good-2-models"]
    done = child(site, "-m", "unetzoo.cli", "info", "good-1-models", code=2, UNETZOO_PLUGINS="none")
    assert "UNETZOO_PLUGINS=none" in done.stderr
    done = child(site, "-m", "unetzoo.cli", "plugin", "list", "--json", UNETZOO_PLUGINS="good-1,god-2")
    states = {row["distribution"]: row["state"] for row in json.loads(done.stdout)}
    assert states["good-1"] == "importable" and states["good-2"] == states["bad-dies"] == "off"
    assert "'god-2', which is not installed" in done.stderr
