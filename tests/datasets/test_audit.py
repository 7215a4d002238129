"""Audits of unusual folders, and the contact sheet."""

import json
import os
import re
import shutil
import tomllib
import zipfile

import numpy as np
import pytest
from auditing import codes, size_of
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import unetzoo
from unetzoo.datasets import ISBI2012, Folder
from unetzoo.datasets.tree import Tree
from unetzoo.doctor import audit, recognize
from unetzoo.doctor.recognize import looks_like
from unetzoo.errors import ConfigError, DataError, LayoutError, UnknownNameError
from unetzoo.twins import LAYOUTS, write

TWO = {"names": ("background", "cell"), "ids": (0, 255)}


def pairs(root, count=6, images="images", masks="masks", ending="", values=(0, 255)):
    """Discs on noise at different positions; masks of two values."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:40, 0:40]
    for folder in (images, masks):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        disc = (y - rng.integers(8, 32)) ** 2 + (x - rng.integers(8, 32)) ** 2 < 36
        image = np.where(disc[..., None], (200, 60, 50), (60, 90, 160)) + rng.integers(-8, 8, (40, 40, 3))
        Image.fromarray(image.astype(np.uint8)).save(root / images / f"p{i}.png")
        Image.fromarray(np.where(disc, values[1], values[0]).astype(np.uint8)).save(root / masks / f"p{i}{ending}.png")
    return root


class TestFolders:
    @pytest.mark.parametrize(
        ("name", "prepare", "expected"),
        [
            ("missing", lambda root: None, "no such folder"),
            ("file", lambda root: root.write_text("x"), "not a folder"),
            ("empty", lambda root: root.mkdir(), "the folder is empty"),
            ("strange", lambda root: write_text(root / "a" / "b.txt"), "unknown layout"),
        ],
    )
    def test_a_path_without_data_is_our_error(self, name, prepare, expected, tmp_path):
        prepare(tmp_path / name)
        with pytest.raises(DataError, match=expected) as caught:
            audit(tmp_path / name)
        assert caught.value.hint

    def test_the_error_of_an_unknown_layout_names_known_ones_and_subfolders(self, tmp_path):
        write("camvid", tmp_path / "deep" / "CamVid")
        with pytest.raises(DataError) as caught:
            audit(tmp_path / "deep")
        for part in ("leftImg8bit/", "images/ and masks/", "CamVid/ looks like 'camvid'"):
            assert part in str(caught.value)

    def test_an_ambiguous_layout_is_an_error(self, tmp_path):
        pairs(tmp_path, images="images", masks="labels")
        with pytest.raises(DataError) as caught:
            audit(tmp_path)
        tables = [tomllib.loads(f"{line}}}")["data"] for line in re.findall(r"data = {[^}]*", caught.value.hint)]
        assert len(tables) >= 2 and {"name": "folder", "root": str(tmp_path), "masks": "labels"} in tables
        assert all(f"--dataset {table['name']}" in caught.value.hint for table in tables)
        report = audit(tmp_path, "folder")
        assert report.proposal == {"names": ["background", "foreground"], "ids": [0, 255]}
        assert report.options["masks"] == "labels" and codes(report, "error", "warning") == set()

    def test_other_folder_names_are_recognized_and_reported(self, tmp_path):
        report = audit(pairs(tmp_path, masks="annotations", ending="_mask"))
        assert report.options == {"masks": "annotations", "mask_suffix": "_mask"}
        (note,) = [finding for finding in report.findings if finding.code == "other-folders"]
        assert note.cases[0].detail == "a recipe needs --set data.masks=annotations --set data.mask_suffix=_mask"
        data = Folder(tmp_path, **report.options, **report.proposal)
        assert len(data) == report.samples

    @pytest.mark.parametrize("build", ["cityscapes", "helen", "carvana", "celebamask", "isbi2012", "folder"])
    def test_the_error_of_a_wrong_folder_names_its_dataset(self, build, tmp_path):
        root = write("camvid", tmp_path / "x")
        with pytest.raises(LayoutError) as caught:
            unetzoo.DATASETS.build(build, root=root, **({"classes": 2} if build == "folder" else {}))
        assert "'camvid'" in looks_like(caught.value.subject)

    def test_the_error_of_a_wrong_dataset_names_the_likely_one(self, tmp_path):
        with pytest.raises(LayoutError) as caught:
            audit(write("carvana", tmp_path / "x"), "cityscapes")
        assert "'carvana'" in caught.value.found

    def test_unknown_names_and_arguments_suggest_similar_ones(self, tmp_path):
        pairs(tmp_path)
        with pytest.raises(UnknownNameError, match="folder"):
            audit(tmp_path, "foldre")
        with pytest.raises(UnknownNameError, match="names"):
            audit(tmp_path, "folder", options={"namse": ("a", "b")})
        for wrong in ({"names": 5}, {"names": ("a", "b"), "classes": 3}, {"names": ("a", "a")}):
            with pytest.raises(ConfigError):
                audit(tmp_path, "folder", options=wrong)

    def test_an_archive_is_audited_like_its_folder(self, tmp_path, monkeypatch):
        monkeypatch.setenv("UNETZOO_CACHE", str(tmp_path / "cache"))
        root = pairs(tmp_path / "data")
        (root / "masks" / "p3.png").unlink()
        with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
            for path in sorted(root.rglob("*.png")):
                archive.write(path, path.relative_to(tmp_path))
        packed, plain = audit(tmp_path / "data.zip", options=TWO), audit(root, options=TWO)
        assert [f.to_dict() for f in packed.findings] == [f.to_dict() for f in plain.findings]
        assert codes(packed, "error") == {"missing-mask"} and packed.source.endswith("data.zip")

    def test_a_manifest_itself_may_be_named(self, tmp_path):
        root = write("csv", tmp_path / "x")
        report = audit(root / "manifest.csv", options={"names": ("background", "object")})
        assert report.dataset == "csv" and not report.errors
        (root / "two.csv").write_text("image,mask\nphotos/scene_000.png,masks/scene_000.png\n")
        with pytest.raises(DataError, match="several manifests"):
            audit(root, "csv")

    def test_all_faults_of_a_manifest_are_reported(self, tmp_path):
        pairs(tmp_path, 3)
        (tmp_path / "list.csv").write_text(
            "image;mask\nimages/p0.png;masks/p0.png\nimages/gone.png;masks/p1.png\nimages/p2.png;\nimages/p1.png\n"
        )
        report = audit(tmp_path, "csv", options=TWO)
        assert codes(report, "error") == {"missing-image", "missing-mask", "broken-row"}

    def test_a_fault_of_all_splits_is_reported_once(self, tmp_path):
        pairs(tmp_path, 3)
        rows = [f"images/p{i}.png,masks/p{i}.png,other" for i in range(3)]
        (tmp_path / "list.csv").write_text("\n".join(["image,mask,split", *rows]) + "\n")
        (refused,) = audit(tmp_path, "csv", options=TWO).errors
        assert (refused.code, refused.count) == ("refused", 1) and refused.cases[0].file == "train, val, test"

    def test_a_part_is_read_on_request_and_names_are_compared_for_all(self, tmp_path):
        root = pairs(tmp_path, 12)
        (root / "masks" / "p7.png").unlink()
        calls = []
        report = audit(root, options=TWO, limit=3, progress=lambda done, total: calls.append((done, total)))
        assert (report.samples, report.audited, calls[-1]) == (12, 3, (3, 3))
        assert codes(report, "error") == {"missing-mask"}

    def test_links_that_lead_back_or_nowhere_do_no_harm(self, tmp_path):
        root = pairs(tmp_path / "data")
        os.symlink(root, root / "images" / "loop")
        os.symlink(tmp_path / "gone.png", root / "images" / "p9.png")
        report = audit(root, "folder", options=TWO)
        assert codes(report, "error") == {"missing-mask", "missing-image"}

    def test_a_linked_folder_is_followed(self, tmp_path):
        pairs(tmp_path / "real")
        (tmp_path / "data").mkdir()
        for folder in ("images", "masks"):
            os.symlink(tmp_path / "real" / folder, tmp_path / "data" / folder)
        assert audit(tmp_path / "data", options=TWO).samples == 6

    def test_an_unreadable_folder_is_a_finding(self, tmp_path, monkeypatch):
        root = pairs(tmp_path / "data")
        (root / "secret").mkdir()
        scandir = os.scandir

        def guarded(path):
            if str(path).endswith("secret"):
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", guarded)
        report = audit(root, options=TWO)
        assert codes(report, "error") == {"unreadable-folder"} and report.audited == 6
        with pytest.raises(DataError, match="unreadable folder"):
            monkeypatch.setattr(os, "scandir", lambda path: guarded("secret"))
            audit(root)

    def test_other_errors_of_the_dataset_are_findings(self, tmp_path):
        report = audit(pairs(tmp_path, 1), "folder", options=TWO)  # one image cannot be divided
        assert codes(report, "error") == {"refused"}
        assert "too few images to divide" in report.errors[0].cases[0].detail

    def test_several_accidents_in_one_set_keep_their_names(self, tmp_path):
        root = pairs(tmp_path, 12)
        for i in range(3):
            path = root / "masks" / f"p{i}.png"
            with Image.open(path) as mask:
                mask.load()
            if i == 0:
                mask.resize((25, 25), Image.Resampling.BILINEAR).resize((40, 40), Image.Resampling.BILINEAR).save(path)
            elif i == 1:
                Image.fromarray(np.asarray(mask) // 255).save(path)
            else:
                mask.save(path.with_suffix(".jpg"))
                path.unlink()
        report = audit(root, "folder", options=TWO)
        assert codes(report, "error", "warning") == {"interpolated-ids", "zero-one", "jpeg-mask"}

    def test_absent_declared_classes_are_warnings(self, tmp_path):
        report = audit(pairs(tmp_path, values=(0, 1)), "folder", options={"classes": 3})
        assert codes(report, "warning") == {"absent-class"} and report.warnings[0].cases[0].file == "2"

    def test_the_splits_of_a_recipe_are_taken(self, tmp_path):
        root = pairs(tmp_path, 10)
        shutil.copy(root / "images" / "p0.png", root / "images" / "p5.png")
        shutil.copy(root / "masks" / "p0.png", root / "masks" / "p5.png")
        own = {"train": {"split": "train"}, "val": {"split": "val"}}
        found = set()
        for seed in range(12):
            report = audit(root, "folder", options={**TWO, "split_seed": seed}, splits=own)
            found |= codes(report, "error", "warning")
        assert found == {"leakage", "duplicate-image"}  # by the seed, the two lie in one split or in two

    def test_a_report_is_plain_data(self, tmp_path):
        write("folder", tmp_path / "x")
        (tmp_path / "x" / "masks" / "photo_1.png").unlink()
        report = audit(tmp_path / "x")
        plain = json.loads(json.dumps(report.to_dict()))
        assert plain["summary"]["error"] == 1 and plain["findings"][0]["code"] == "missing-mask"
        assert plain["findings"][0]["files"] == [{"file": "images/photo_1.jpg", "detail": ""}]
        assert plain["proposal"] == {"classes": 4, "ignore_ids": [255], "ignore_index": 255}

    def test_a_file_name_that_is_not_utf_8_can_be_printed(self, tmp_path):
        root = pairs(tmp_path)
        name = os.fsdecode(b"\xff.png")
        Image.new("RGB", (8, 8), "red").save(os.path.join(root, "images", name))
        report = audit(root, "folder", options=TWO)
        (error,) = report.errors
        assert error.code == "missing-mask" and str(error.cases[0]) == "images/\\udcff.png"
        json.dumps(report.to_dict()).encode()

    def test_numbers_that_no_declaration_fits_are_judged_all_the_same(self, tmp_path):
        root = pairs(tmp_path)
        for path in (root / "masks").iterdir():
            with Image.open(path) as mask:
                small = mask.resize((27, 27), Image.Resampling.BILINEAR)
            small.resize((40, 40), Image.Resampling.BILINEAR).save(path)
        report = audit(root)
        assert report.proposal is None and codes(report, "error") == {"interpolated-ids"}

    def test_a_glance_at_a_folder_is_bounded(self, tmp_path):
        (tmp_path / "many").mkdir()
        for i in range(1100):
            (tmp_path / "many" / f"{i}.png").touch()
        assert len(Tree.walk(tmp_path, glance=True).files) == 1000
        assert not Tree.walk(tmp_path, glance=True).whole and Tree.walk(tmp_path).whole
        assert recognize(tmp_path) == [] and recognize(tmp_path / "none") == []


def write_text(path):
    path.parent.mkdir(parents=True)
    path.write_text("text")


def tile_colors(path):
    with Image.open(path) as image:
        return {color for _, color in image.convert("RGB").getcolors(1 << 24)}


def test_the_sheet_shows_the_classes_in_their_colors_and_frames_the_bad(tmp_path):
    root = write("folder", tmp_path / "x", count=6)
    options = {"names": ("background", "disc", "square", "triangle"), "ignore_ids": (255,), "ignore_index": 255}
    labels = Folder(root, **options).labels
    audit(root, "folder", options=options, sheet=tmp_path / "clean.png")
    clean = tile_colors(tmp_path / "clean.png")
    assert set(labels.palette) <= clean and (220, 30, 30) not in clean
    (root / "masks" / "photo_2.png").write_bytes(b"")
    audit(root, "folder", options=options, sheet=tmp_path / "bad.png")
    assert (220, 30, 30) in tile_colors(tmp_path / "bad.png")
    with pytest.raises(DataError, match="cannot write the sheet"):
        audit(root, "folder", options=options, sheet=tmp_path / "no" / "sheet.png")


@pytest.mark.parametrize("name", ["celebamask", "carvana", "isbi2012-tif", "eva", "composites", "csv"])
def test_every_kind_of_layout_can_be_drawn(name, tmp_path):
    layout = LAYOUTS[name]
    audit(write(name, tmp_path / "x"), layout.dataset, options=dict(layout.options), sheet=tmp_path / "s.png")
    assert size_of(tmp_path / "s.png")[1] > 300


def test_slices_of_a_stack_are_in_the_splits_of_the_dataset(tmp_path):
    report = audit(write("isbi2012-tif", tmp_path / "x"))
    assert report.splits == {name: len(ISBI2012(tmp_path / "x", name)) for name in ("train", "val", "test")}


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_mutated_files_give_findings_and_no_traceback(data, tmp_path_factory):
    root = pairs(tmp_path_factory.mktemp("mutants") / "data", 5)
    for _ in range(data.draw(st.integers(1, 4))):
        path = data.draw(st.sampled_from(sorted(root.rglob("*.png"))))
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(0, 5))):
            if content:
                content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    report = audit(root, "folder", options=TWO)
    assert report.audited == 5
    for index, sample in enumerate(Folder(root, **TWO).files):
        wrong = {case.file for finding in report.errors for case in finding.cases}
        if not {path.relative_to(root).as_posix() for path in sample.files.values()} & wrong:
            Folder(root, **TWO)[index]  # the dataset reads everything that passes the audit
