"""Writing a plugin: a new package, its checks, its names in Python, in SMP and on the command line."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import plugin_layout
import pytest
import segmentation_models_pytorch as smp
import torch
from plugin_layout import io_of
from test_cli import unetzoo as command

import unetzoo
from unetzoo import plugins, template
from unetzoo.errors import (
    ConfigError,
    PluginContractError,
    PluginLoadError,
    UnknownNameError,
)
from unetzoo.registry import MODELS, REGISTRIES
from unetzoo.testing import cases_of

laid_out = plugin_layout.laid_out
ROOT = Path(__file__).parents[1]
PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]


def test_groups_and_registries_are_the_same():
    assert set(plugins.GROUPS) == {registry.group for registry in REGISTRIES.values()}


def test_our_plugins_import_only_documented_modules():
    documented = set(re.findall(r"^::: (\S+)", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE))
    sources = sorted((ROOT / "plugins").glob("*/src/**/*.py"))
    assert sources
    for path in sources:
        for module in re.findall(
            r"^(?:from|import) (unetzoo(?:\.\w+)*)\b", path.read_text(encoding="utf-8"), re.MULTILINE
        ):
            assert module in documented | {"unetzoo", "unetzoo.models", "unetzoo.training"}, (path, module)


# The template


def test_the_template_is_copied_under_its_new_name(tmp_path):
    made = template.create("acme-cells", tmp_path)
    texts = {path: path.read_text() for path in made.rglob("*") if path.is_file()}
    assert (made / "src" / "acme_cells" / "model.py") in texts
    for path, text in texts.items():
        assert not re.search(r"unetzoo[-_]template", text), path
    assert 'acme-cells-net = "acme_cells.model:SeparableUNet"' in texts[made / "pyproject.toml"]


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("Acme", "'acme'"),
        ("acme seg", "'acme-seg'"),
        ("../acme", "'acme'"),
        ("acme--seg", "'acme-seg'"),
        ("1acme", "'acme'"),
        ("", "acme-seg"),
        ("äöü", "acme-seg"),
        ("class", "'class-seg'"),
        ("unetzoo", "unetzoo-seg"),
        ("unetzoo-template", "my-unetzoo-template"),
        ("json", "json-seg"),
        ("torch", "torch-seg"),
    ],
)
def test_invalid_and_taken_names_are_errors(tmp_path, name, suggestion):
    with pytest.raises(ConfigError) as caught:
        template.create(name, tmp_path)
    assert caught.value.subject == repr(name) and suggestion in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_or_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "acme-cells").mkdir()
    with pytest.raises(ConfigError) as caught:
        template.create("acme-cells", tmp_path)
    assert caught.value.subject == tmp_path / "acme-cells"
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as caught:
        template.create("acme-cells", tmp_path / "file")
    assert caught.value.subject == tmp_path / "file" / "acme-cells"


# The page


def steps():
    """The commands and the change in the first part of the page, in order."""
    page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    part = page[page.index("## Create a package") : page.index("## Entry points")]
    place = re.search(r"in `(acme-seg/src/\S+\.py)`", part).group(1)
    for language, text in re.findall(r"```(sh|diff)\n(.*?)```", part, re.DOTALL):
        if language == "diff":
            old, new = (re.search(rf"^\{sign}(.*)$", text, re.MULTILINE).group(1) for sign in "-+")
            yield lambda folder, old=old, new=new: replace(folder / place, old, new)
        else:
            yield from text.strip().splitlines()


def replace(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def walk(folder, run):
    for step in steps():
        if callable(step):
            step(folder)
        else:
            run(step)


def test_the_commands_of_the_page_train_a_plugin(tmp_path, monkeypatch):
    """The commands of the page, in this process and without slow checks; the slow test runs all in new processes."""
    site = tmp_path / "site"
    printed = {}

    def run(text):
        if text.startswith("pip install -e"):
            subprocess.run([*PIP, "--target", str(site), text.split()[-1]], cwd=tmp_path, check=True)
            monkeypatch.syspath_prepend(str(site))
            monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
        elif text.startswith("unetzoo"):
            quick = ["--only", "[!ce]*"] if text.startswith("unetzoo plugin check") else []
            printed[text] = command(*text.split()[1:], *quick, cwd=tmp_path)

    walk(tmp_path, run)
    assert "✗" not in printed["unetzoo plugin check acme-seg"] and " passed" in printed["unetzoo plugin check acme-seg"]
    assert "nn.SiLU()" in (site / "acme_seg" / "model.py").read_text()
    scores = json.loads(next(tmp_path.glob("runs/*/scores.json")).read_text())
    assert scores["best"]["miou"] > 0.3
    for name in [name for name in sys.modules if name.partition(".")[0] == "acme_seg"]:
        del sys.modules[name]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_commands_of_the_page_in_a_new_environment(tmp_path):
    here = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(here)], check=True)
    (site,) = here.glob("lib/python*/site-packages")
    (site / "outer.pth").write_text(
        "\n".join(path for path in sys.path if path.endswith("site-packages")) + f"\n{ROOT}\n"
    )
    for name, module in (("unetzoo", "unetzoo.cli"), ("pytest", "pytest")):
        script = here / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {here}/bin/python -P -m {module} "$@"\n')
        script.chmod(0o755)
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {
        "PATH": f"{here}/bin{os.pathsep}{os.environ['PATH']}", "PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }  # fmt: skip

    def run(text):
        done = subprocess.run(text, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"

    walk(tmp_path, run)


# The command line


BROKEN = """
import torch
class Loss(torch.nn.Module):
    def __init__(self, mode: str = "binary"):
        super().__init__()
    def forward(self, output, target, *, weight=None):
        return (output.sigmoid() - target[:, None]).abs().mean()
def cases():
    from unetzoo.testing import Case
    return [Case("loss", "broken-loss", task="binary")]
"""


def test_check_names_each_failure_and_its_reason(laid_out):
    laid_out("acme-broken", {"losses": {"broken-loss": "Loss"}, "checks": {"x": "cases"}}, BROKEN)
    text = io_of("plugin", "check", "acme-broken", code=5)
    assert "check 'weight-has-effect' failed" in text and "Why it matters: " in text and "failed" in text
    rows = json.loads(io_of("plugin", "check", "acme-broken", "--only", "w*", "--json", code=5))
    outcomes = {row["check"]: row["outcome"] for row in rows}
    assert outcomes["weight-has-effect"] == "failed" and outcomes["weight-keyword"] == "passed"
    assert all(check.startswith("w") for check in outcomes)


def test_mistakes_of_check_and_new_end_with_a_fix(tmp_path, laid_out):
    (tmp_path / "acme-cells").mkdir()
    laid_out("acme-newer", {"models": {"acme-net": "Loss"}, "api": {"2": "Loss"}}, BROKEN)
    laid_out("acme-one", {"losses": {"one": "Loss"}, "checks": {"x": "BAD"}}, BROKEN + "BAD = [1]\n")
    for args, code, says in (
        (["check", "acme-two"], 2, "did you mean 'acme-one'"),
        (["check", "unetzoo", "--only", "nothing"], 2, "choose from: all-ignored"),
        (["check", "acme-one"], 5, "expected a list of unetzoo.testing.Case"),
        (["check", "acme-newer"], 5, "Fix: pip install --upgrade unetzoo"),
        (["new", "Acme", "--out", str(tmp_path)], 2, "'acme'"),
        (["new", "acme-cells", "--out", str(tmp_path)], 2, "acme-cells"),
        (["new", "acme-new", "--out", str(tmp_path / "acme_newer.py")], 2, "acme_newer.py"),
    ):
        assert says in command("plugin", *args, code=code).replace("\n", " ")


def test_a_plugin_provides_its_cases_and_the_rest_are_defaults(laid_out):
    laid_out("acme-some", {"losses": {"broken-loss": "Loss", "other": "Loss"}, "checks": {"x": "cases"}}, BROKEN)
    assert [(case.kind, case.target) for case in cases_of("acme-some")] == [
        ("loss", "broken-loss"),
        ("loss", "acme-some:other"),
    ]
    with pytest.raises(UnknownNameError) as caught:
        cases_of("acme-soem")
    assert "'acme-some'" in caught.value.hint


# Encoders, recipes, the API


ENCODER = """
from segmentation_models_pytorch.encoders._base import EncoderMixin
from torch import nn
class Strided(nn.Module, EncoderMixin):
    def __init__(self, in_channels=3, depth=5, output_stride=32):
        super().__init__()
        widths = [4 * (level + 1) for level in range(depth + 1)]
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, 1 if level == 0 else 2, 1), nn.BatchNorm2d(o), nn.ELU())
            for level, (i, o) in enumerate(zip([in_channels, *widths], widths)))
        self._out_channels, self._in_channels, self._depth, self._output_stride = widths, in_channels, depth, 2 ** depth
    def forward(self, x):
        maps = []
        for level in self.levels:
            x = level(x)
            maps.append(x)
        return maps
"""


@pytest.mark.slow
def test_a_plugins_encoder_serves_smp_and_us(laid_out):
    laid_out("acme-encoders", {"encoders": {"acme-strided": "Strided"}}, ENCODER)
    unetzoo.testing.check_encoder("acme-strided")
    code = """
import torch, unetzoo, unetzoo.models, segmentation_models_pytorch as smp
assert "acme_encoders" not in __import__("sys").modules
x = torch.randn(2, 2, 64, 64)
for make in (smp.Unet, smp.UnetPlusPlus, smp.FPN, smp.MAnet, smp.Linknet):
    net = make("acme-strided", encoder_weights=None, in_channels=2, classes=3)
    assert net(x).shape == (2, 3, 64, 64)
net = unetzoo.build("smp-unet", encoder_name="acme-strided", in_channels=2, classes=3)
assert net(x).shape == (2, 3, 64, 64) and type(net.encoder).__name__ == "Strided"
net = unetzoo.build("dualunet", encoder_name="acme-strided", encoder_depth=3)
net.eval()(torch.randn(1, net.in_channels, 64, 64))
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-P", "-c", code], check=True, env=env)


RECIPE = """
from pathlib import Path
DEMO = '''
[model]
name = "bnunet"
in_channels = 6
encoder_channels = [4, 4, 4]
[data]
name = "composites"
size = 24
[data.train]
length = 4
[data.val]
length = 4
[loss]
acme-half = 0.5
smp-dice = 0.5
[train]
epochs = 1
batch_size = 2
'''
FILE = Path(__file__).with_name("acme.toml")
FILE.write_text(DEMO)
class Half:
    def __call__(self, output, target, *, weight=None):
        return (output.sigmoid()[:, 0] - 0.5).square().mean()
def half():
    return Half()
"""


def test_recipes_of_a_plugin_train_from_text_and_from_a_file(laid_out, tmp_path):
    points = {"recipes": {"acme-text": "DEMO", "acme-file": "FILE"}, "losses": {"acme-half": "half"}}
    laid_out("acme-recipes", points, RECIPE)
    assert {"acme-text", "acme-file"} <= set(unetzoo.RECIPES.names())
    command("train", "acme-text", "--out", tmp_path / "text", "--quiet")
    command("train", "acme-recipes:acme-file", "--out", tmp_path / "file", "--quiet")
    rows = [json.loads((tmp_path / run / "metrics.jsonl").read_text().splitlines()[0]) for run in ("text", "file")]
    assert rows[0]["train/loss"] == rows[1]["train/loss"]
    assert {"train/acme-half", "train/smp-dice"} <= set(rows[0])


@pytest.mark.parametrize(
    ("apis", "fix"),
    [(["2"], "upgrade unetzoo"), (["0"], "upgrade acme-api"), (["one"], "upgrade acme-api"), (["1", "2"], None)],
)
def test_a_plugin_for_another_api_is_refused_with_the_package_to_update(laid_out, apis, fix):
    points = {"models": {"acme-net": "make"}, "api": dict.fromkeys(apis, "make")}
    laid_out("acme-api", points, "def make(classes=1):\n    return 'made'\n")
    if fix is None:
        assert MODELS.build("acme-net") == "made"
        return
    with pytest.raises(PluginLoadError) as caught:
        MODELS.build("acme-net")
    assert "acme_api" not in sys.modules
    assert caught.value.hint == f"pip install --{fix}" and caught.value.subject == "acme-api 1.2"


def test_a_broken_sibling_does_not_keep_a_network_from_being_saved(laid_out, tmp_path):
    source = "from unetzoo.models import BNUNet\nclass Net(BNUNet):\n    pass\n"
    laid_out("acme-pair", {"models": {"a-broken": "missing", "b-net": "Net"}}, source)
    unetzoo.build("b-net", encoder_channels=(2, 2, 2)).save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["_unetzoo"]["name"] == "b-net"


def test_a_value_without_a_signature_is_refused(laid_out):
    laid_out("acme-odd", {"models": {"odd": "make"}}, "make = type\n")
    with pytest.raises(PluginContractError):
        MODELS.get("odd")


def test_a_network_that_states_no_geometry_is_described(laid_out):
    laid_out(
        "acme-plain",
        {"models": {"plain": "Net"}},
        (ROOT / "tests/testing/broken_models.py").read_text() + "\nNet = GoodSMP\n",
    )
    assert unetzoo.info("plain").legal_sizes == "not stated"
    assert isinstance(unetzoo.build("plain"), smp.base.SegmentationModel) and torch.is_grad_enabled()
