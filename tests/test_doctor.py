"""The command `unetzoo doctor`, with a path and without."""

import contextlib
import io
import json
import re
import shlex

import plugin_layout
import pytest
from PIL import Image
from rich.console import Console

from unetzoo import cli
from unetzoo.doctor import audit, registries
from unetzoo.doctor.propose import as_options
from unetzoo.doctor.registries import audit_install
from unetzoo.probing import Probe, probe
from unetzoo.registry import MODELS
from unetzoo.terminal import PlainConsole
from unetzoo.training.recipe import load, parse_sets
from unetzoo.twins import plant, write
from unetzoo.wording import printable

laid_out = plugin_layout.laid_out


def doctor(*args, code=0):
    """Run the command in this process and return stdout and stderr."""
    texts = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(texts[0]),
        contextlib.redirect_stderr(texts[1]),
        pytest.raises(SystemExit) as ended,
    ):
        cli.main(["doctor", *map(str, args)])
    printed, complained = (text.getvalue() for text in texts)
    assert (ended.value.code or 0) == code, f"exit code {ended.value.code}\n{printed}\n{complained}"
    assert "Traceback" not in printed + complained
    return printed, complained


@pytest.fixture(autouse=True, scope="module")
def wide_terminal():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "160")
        yield


@pytest.fixture
def twin(tmp_path):
    return write("folder", tmp_path / "twin")


def test_sound_data_are_exit_code_0(twin):
    printed, complained = doctor(twin)
    assert "recognized by file names" in printed and "proposed arguments" in printed
    assert complained == ""


RECIPE = """
model = {name = "bnunet", classes = 4}
data = {name = "isbi2012", root = "elsewhere"}
loss = {ce = 1.0}
"""


@pytest.mark.parametrize("layout", ["folder", "folder-binary", "csv", "eva"])
def test_proposed_commands_work(tmp_path, layout):
    root = write(layout, tmp_path / "my data" / "1")
    if layout == "folder-binary":
        (root / "masks").rename(root / "gt")
    printed = doctor(root)[0].splitlines()
    audit, training = (shlex.split(line) for line in printed if line.startswith("    unetzoo "))
    assert audit[:2] == ["unetzoo", "doctor"] and training[:3] == ["unetzoo", "train", "RECIPE"]
    again, _ = doctor(*audit[2:])
    assert "undeclared" not in again and re.search(r"(kinds of findings|nothing found).* s\)$", again.strip())
    (tmp_path / "r.toml").write_text(RECIPE)
    for split in ("train", "val"):
        data = load(tmp_path / "r.toml", training[4::2]).data.build(split)
        assert len(data) and data[0]["mask"] is not None


def test_proposed_commands_for_a_manifest_work(tmp_path):
    root = write("csv", tmp_path / "twin")
    audit, training = (line for line in doctor(root / "manifest.csv")[0].splitlines() if line.startswith("    unetzoo"))
    assert "undeclared" not in doctor(*shlex.split(audit)[2:])[0]
    assert {f"data.root={root}", "data.manifest=manifest.csv"} <= set(shlex.split(training))


def test_options_are_written_as_the_command_line_reads_them():
    arguments = {"names": ["a b", "c"], "ids": [0, 255], "classes": 2, "masks": "labels", "mask_suffix": "_mask"}
    arguments |= {"root": "2024", "images": "it's", "delimiter": ";", "other": "true", "none": ""}
    arguments |= {"manifest": "[/x]", "mask": "{a", "image": '"quoted"'}
    assert parse_sets(shlex.split(as_options(arguments))[1::2]) == arguments
    assert parse_sets(shlex.split(as_options(arguments, "data."))[1::2]) == {"data": arguments}


def test_errors_are_exit_code_3_with_files_reason_and_fix(twin, tmp_path):
    plant(twin, "folder", "truncated-mask")
    plant(twin, "folder", "missing-image", seed=1)
    printed, _ = doctor(twin, "--dataset", "folder", "--sheet", tmp_path / "sheet.png", code=3)
    for part in ("truncated-mask (1)", "masks/photo_", "is truncated", "Fix: ", "missing-image (1)", "2 errors"):
        assert part in printed
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"
    assert sorted(path.name for path in twin.iterdir()) == ["images", "masks"]  # nothing is written into the data


def test_one_sample_is_no_samples(tmp_path):
    for part, mode in (("images", "RGB"), ("masks", "L")):
        (tmp_path / part).mkdir()
        Image.new(mode, (8, 8)).save(tmp_path / part / "a.png")
    printed, _ = doctor(tmp_path, "--set", "classes=2", code=3)  # one image cannot be divided into train and val
    assert "\n1 sample\n" in printed


def test_json_is_all_of_it(twin):
    plant(twin, "folder", "missing-mask")
    report = json.loads(doctor(twin, "--json", "--limit", 5, code=3)[0])
    assert report["dataset"] == "folder" and report["audited"] == 5 and report["samples"] == 20
    assert [finding["code"] for finding in report["findings"] if finding["severity"] == "error"] == ["missing-mask"]


def test_labels_are_declared_by_set(twin):
    declared = "--set", "classes=3", "--set", "ignore_ids=[255]", "--set", "ignore_index=255"
    printed, _ = doctor(twin, *declared, code=3)
    assert "out-of-range-id (20)" in printed and "3 (" in printed  # the fourth class is not declared


def test_a_recipe_names_its_data(tmp_path):
    root = write("isbi2012", tmp_path / "cells")
    printed, _ = doctor("isbi2012", "--set", f"data.root={root}")
    assert "isbi2012" in printed and "10 samples (train 7, val 1)" in printed
    plant(root, "isbi2012", "zero-one")
    assert "zero-one (10)" in doctor("isbi2012", "--set", f"data.root={root}", code=3)[0]


def test_a_recipe_without_a_folder_is_audited_by_its_samples():
    sets = [part for text in ("data.size=32", "data.train.length=12", "data.val.length=6") for part in ("--set", text)]
    printed, _ = doctor("demo", *sets)
    assert "18 samples (train 12, val 6)" in printed and "foreground" in printed


@pytest.mark.parametrize(
    ("args", "code", "part"),
    [
        (["no/such/folder"], 3, "no such recipe or folder"),
        (["isbi2021"], 2, "did you mean 'isbi2012'"),
        (["helen"], 2, "data.root"),
        (["{twin}", "--dataset", "foldr"], 2, "did you mean 'folder'"),
        (["{twin}", "--dataset", "cityscapes"], 3, "looks like 'folder'"),
        (["{twin}", "--set", "clases=4"], 2, "did you mean 'classes'"),
        (["{twin}", "--set", "classes"], 2, "wrong --set"),
        (["{twin}/images/photo_1.jpg"], 3, "not a folder"),
        (["--dataset", "folder"], 2, "expected a path"),
        (["demo", "--dataset", "folder"], 2, "composites"),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(args, code, part, twin):
    _, complained = doctor(*(arg.format(twin=twin) for arg in args), code=code)
    assert complained.startswith("error: ") and complained.count("\n") == 1 and part in complained


def test_files_outside_of_a_manifests_folder_are_one_finding_with_the_fix(tmp_path):
    data = write("csv", tmp_path / "data")
    head, *rows = (data / "manifest.csv").read_text().splitlines()
    (tmp_path / "list").mkdir()
    lines = [re.sub(r"(?<=,)(?=photos/|masks/|depth/)", f"{data}/", row) for row in rows]
    (tmp_path / "list" / "manifest.csv").write_text("\n".join([head, *lines]))
    report = audit(tmp_path / "list" / "manifest.csv")
    (error,) = report.errors
    assert (error.code, error.count) == ("outside-folder", 3 * len(rows)) and "allow_outside=true" in error.fix
    assert report.proposal["allow_outside"] is True and report.splits == {"train": 16, "val": 4}
    printed, _ = doctor(tmp_path / "list" / "manifest.csv", code=3)
    assert len(printed.splitlines()) < 30
    pasted = next(line for line in printed.splitlines() if line.startswith("    unetzoo doctor"))
    assert "outside-folder" not in doctor(*shlex.split(pasted)[2:])[0]


def test_the_same_error_of_every_split_is_one_case(tmp_path):
    root = write("csv", tmp_path / "data")
    text = (root / "manifest.csv").read_text().replace(",val", ",test").replace(",train", ",tset")
    (root / "manifest.csv").write_text(text)
    report = audit(root)
    (refused,) = [finding for finding in report.findings if finding.code == "refused"]
    assert refused.count == 1 and "tset" in refused.cases[0].detail


HOSTILE = ("[/bold]", "person [sitting]", "cell\x1b[31m", "a\u202eb")


@pytest.mark.parametrize("make", [PlainConsole, Console])
def test_names_of_files_and_classes_are_printed_literally(tmp_path, make):
    for part, mode in (("images", "RGB"), ("masks", "L")):
        (tmp_path / part).mkdir()
        for number, name in enumerate(HOSTILE):
            name = name.replace("/", "_")
            Image.new(mode, (8, 8), number if mode == "L" else (number, 0, 0)).save(tmp_path / part / f"{name}.png")
    (tmp_path / "images" / "[red].png").write_bytes(b"")
    report = audit(tmp_path, "folder", options={"names": HOSTILE}, sheet=tmp_path / "sheet.png")
    file = io.StringIO()
    make(file=file, width=300, color_system=None).print(report)
    text = file.getvalue()
    assert all(printable(name) in text for name in HOSTILE) and "images/[red].png" in text
    assert "\x1b" not in text and "\u202e" not in text
    json.loads(json.dumps(report.to_dict()))


@pytest.fixture
def own_names_load(monkeypatch):
    """Do not import our own names again; another test does."""
    monkeypatch.setattr(
        registries, "probe",
        lambda entries, timeout: [Probe(entry) for entry in entries] if entries and entries[0].builtin
        else probe(entries, timeout=timeout),
    )  # fmt: skip


@pytest.mark.usefixtures("own_names_load")
class TestPlugins:
    @pytest.mark.parametrize("name", ["[/bold]", "[red]net", "net [wide]"])
    def test_a_name_that_looks_like_markup(self, install, name):
        install("acme-odd", [name], "raise ImportError('[/x] \x1b[2J')")
        printed, _ = doctor(code=5)
        assert f"acme-odd:{name}" in printed and "[/x] \ufffd[2J" in printed
        file = io.StringIO()
        with contextlib.redirect_stdout(file), pytest.raises(SystemExit) as ended:
            cli.main(["list"])
        assert not ended.value.code and name in file.getvalue()

    def test_a_slow_import_is_a_warning_that_names_the_limit(self, install):
        install("acme-slow", ["slownet"], "import time\ntime.sleep(60)")
        install("acme-busy", ["busynet"], "while True:\n    pass")
        printed, _ = doctor("--timeout", "1")
        assert "slow-plugin (2)" in printed and "--timeout" in printed and "reinstall" not in printed
        report = audit_install(1)
        assert report.errors == () and {finding.code for finding in report.findings} == {"slow-plugin"}

    def test_children_take_one_thread_each(self, install, monkeypatch):
        source = "import os\nwords = os.environ['OMP_NUM_THREADS'], os.environ['OMP_WAIT_POLICY']\n"
        install("acme-threads", ["threads"], source + "raise ImportError(' '.join(words))")
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        (error,) = audit_install().errors
        assert "1 passive" in error.cases[0].detail

    def test_a_dataset_that_breaks_while_it_declares_its_layouts_affects_no_data(self, laid_out, twin):
        source = "class Data:\n    @staticmethod\n    def layouts_for(**options):\n        raise SystemExit(3)\n"
        laid_out("acme-data", {"datasets": {"acme-data": "Data"}}, source)
        assert audit(twin).dataset == "folder"

    @pytest.mark.parametrize("error", ["SystemExit(3)", "GeneratorExit()"])
    def test_whatever_a_dataset_raises_becomes_a_finding(self, laid_out, error):
        source = f"""
class Data:
    def __init__(self, root, split='train'):
        if split == 'test':
            raise {error}
    def __len__(self):
        return 2
    def __getitem__(self, index):
        raise {error}
"""
        laid_out("acme-data", {"datasets": {"acme-data": "Data"}}, source)
        report = audit("/", "acme-data")
        found = {finding.code: finding for finding in report.findings}
        assert found["sample-error"].count == 4 and error.partition("(")[0] in found["sample-error"].cases[0].detail


class TestInstallation:
    def test_ours_is_sound(self):
        report = audit_install()
        assert report.errors == ()
        packages = {package.name: package for package in report.packages}
        assert packages["torch"].fits and packages["torch"].wanted and packages["python"].found
        (ours,) = [kinds for owner, kinds in report.distributions.items() if owner.startswith("unetzoo ")]
        assert {"unet", "r2unet"} <= set(ours["models"]) and "folder" in ours["datasets"]

    @pytest.mark.usefixtures("own_names_load")
    def test_a_broken_plugin_is_named_with_its_reason_and_affects_no_other(self, install):
        install("acme-good", ["goodnet"])
        install("acme-raises", ["badnet"], "raise ImportError('libfoo is missing')")
        install("acme-exits", ["exitnet"], "import sys; sys.exit(3)")
        install("acme-loose", ["loosenet"], "def make(**options):\n    return options\n")
        install("acme-quits", ["quitnet"], "import os; os._exit(7)")
        printed, _ = doctor(code=5)
        for part in ("acme-raises:badnet", "libfoo is missing", "acme-exits:exitnet", "SystemExit", "acme-loose"):
            assert part in printed
        report = audit_install()
        assert {str(case).split(":")[0] for finding in report.errors for case in finding.cases} == {
            "model acme-raises", "model acme-exits", "model acme-loose", "model acme-quits"
        }  # fmt: skip
        assert report.distributions["acme-good 1.2"] == {"models": ["goodnet"]}

    @pytest.mark.usefixtures("own_names_load")
    def test_another_distribution_called_unetzoo_is_an_error(self, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(str(tmp_path))
        info = tmp_path / "unetzoo-9.9.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: unetzoo\nVersion: 9.9\n")
        (info / "entry_points.txt").write_text("[unetzoo.models]\nbnunet = acme_impostor:make\n")
        MODELS.refresh()
        try:
            report = audit_install()
        finally:
            MODELS.refresh()
        (error,) = report.errors
        assert error.code == "broken-plugin" and str(tmp_path) in error.cases[0].file
        assert {"torch", "python"} <= {package.name for package in report.packages if package.wanted}

    @pytest.mark.usefixtures("own_names_load")
    def test_names_claimed_twice_are_a_warning(self, install):
        install("acme-one", ["twinnet", "unet"])
        install("acme-two", ["twinnet"])
        report = audit_install()
        assert report.errors == ()
        (clash,) = [finding for finding in report.findings if finding.code == "name-clash"]
        assert [case.file for case in clash.cases] == ["model: twinnet", "model: unet"]
        assert "unetzoo:unet is used" in clash.cases[1].detail

    @pytest.mark.usefixtures("own_names_load")
    def test_disabled_plugins_are_reported_and_not_imported(self, install, monkeypatch):
        install("acme-raises", ["badnet"], "raise ImportError('no')")
        monkeypatch.setenv("UNETZOO_PLUGINS", "none")
        report = audit_install()
        assert report.errors == () and [finding.code for finding in report.findings] == ["switched-off"]

    @pytest.mark.usefixtures("own_names_load")
    def test_a_package_that_does_not_fit_is_an_error(self, monkeypatch):
        from importlib import metadata

        real = metadata.version
        monkeypatch.setattr(metadata, "version", lambda name: "0.0.1" if name == "timm" else real(name))
        report = json.loads(doctor("--json", code=5)[0])
        (unfit,) = [finding for finding in report["findings"] if finding["code"] == "unfit-version"]
        (file,) = unfit["files"]
        assert file["file"] == "timm" and file["detail"].endswith("found 0.0.1")


@pytest.mark.parametrize("name", ["a" * 300 + ".jpg", "photos/" * 2000 + "a.jpg"])
def test_names_in_a_manifest_that_no_file_can_have(name, tmp_path):
    data = write("csv", tmp_path / "data")
    head, first, *rows = (data / "manifest.csv").read_text().splitlines()
    (data / "manifest.csv").write_text("\n".join([head, re.sub(r"photos/[^,]*", name, first), *rows]))
    (error,) = audit(data).errors
    assert (error.code, error.count) == ("missing-image", 1)
