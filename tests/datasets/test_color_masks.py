"""Masks of colors: reading, declaring, proposing."""

import io
import json
import random
from pathlib import Path

import numpy as np
import pytest
import tifffile
from mutants import mutants
from PIL import Image

from unetzoo import LabelSpec
from unetzoo.datasets import Csv, Folder, cached
from unetzoo.datasets.color_masks import read_color_mask, read_colors
from unetzoo.datasets.files import read_mask
from unetzoo.doctor import audit
from unetzoo.errors import ConfigError, DataError, ImageDecodeError, LabelRangeError, UnetzooError

COLORS = {"background": (0, 0, 0), "road": (128, 64, 128), "person": (220, 20, 60)}
SPEC = LabelSpec.from_colors(COLORS)
CLASSES = np.random.default_rng(0).integers(0, 3, (30, 40), np.uint8)
CLASSES[:10] = 0
RGB = np.array(list(COLORS.values()), np.uint8)[CLASSES]
LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,64,128::\nperson:220,20,60::hit,run\n"
TABLE = "name,r,g,b\nbackground,0,0,0\nroad,128,64,128\nperson,220,20,60\n"


def with_alpha(value):
    return Image.fromarray(np.dstack([RGB, np.full(CLASSES.shape, value, np.uint8)]))


def palette(path):
    image = Image.fromarray(2 - CLASSES)  # the indices are not the classes
    image.putpalette(np.array(list(COLORS.values())[::-1], np.uint8).tobytes())
    image.save(path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("rgb.png", lambda path: Image.fromarray(RGB).save(path)),
        ("rgb.bmp", lambda path: Image.fromarray(RGB).save(path)),
        ("rgb.tif", lambda path: tifffile.imwrite(path, RGB, photometric="rgb")),
        ("tiled.tif", lambda path: tifffile.imwrite(path, RGB, photometric="rgb", tile=(16, 16), compression="zlib")),
        ("planar.tif", lambda path: tifffile.imwrite(path, RGB.transpose(2, 0, 1), photometric="rgb",
                                                     planarconfig="separate")),
        ("opaque.png", lambda path: with_alpha(255).save(path)),
        ("transparent.png", lambda path: with_alpha(0).save(path)),
        ("palette.png", palette),
        ("palette.gif", palette),
    ],
)  # fmt: skip
def test_every_kind_of_file_gives_the_displayed_colors(name, write, tmp_path):
    write(tmp_path / name)
    mask = read_color_mask(tmp_path / name, SPEC)
    assert mask.dtype == np.uint8 and (mask == CLASSES).all()


def test_grays_are_colors(tmp_path):
    spec = LabelSpec.from_colors({"a": (0, 0, 0), "b": (255, 255, 255)})
    Image.fromarray(CLASSES == 1).save(tmp_path / "bits.png")
    Image.fromarray((CLASSES == 1).astype(np.uint8) * 255).save(tmp_path / "gray.png")
    for name in ("bits.png", "gray.png"):
        assert (read_color_mask(tmp_path / name, spec) == (CLASSES == 1)).all()


def test_more_classes_than_a_byte_holds(tmp_path):
    colors = {str(i): (i // 16 % 256, i % 16, 7) for i in range(400)}
    classes = np.arange(400, dtype=np.int32).reshape(20, 20)
    Image.fromarray(np.array(list(colors.values()), np.uint8)[classes]).save(tmp_path / "a.png")
    assert (read_color_mask(tmp_path / "a.png", LabelSpec.from_colors(colors)) == classes).all()


def test_undeclared_colors_are_counted(tmp_path):
    drawn = RGB.copy()
    drawn[0, :5], drawn[1, :2] = (127, 64, 128), (1, 255, 3)
    Image.fromarray(drawn).save(tmp_path / "a.png")
    with pytest.raises(LabelRangeError) as caught:
        read_color_mask(tmp_path / "a.png", SPEC)
    error = caught.value
    assert error.subject == str(tmp_path / "a.png") and "unknown_color" in str(error.hint)
    assert "(127, 64, 128): 5 px, nearest road (128, 64, 128)" in str(error.found)
    assert str(error.found).index("(127") < str(error.found).index("(1, 255, 3): 2 px")
    ignoring = LabelSpec.from_colors(COLORS, [(1, 255, 3)], 255)
    with pytest.raises(LabelRangeError) as caught:
        read_color_mask(tmp_path / "a.png", ignoring)
    assert "(1, 255, 3)" not in str(caught.value.found)
    mask = read_color_mask(tmp_path / "a.png", ignoring, ignore_unknown=True)
    assert (mask[0, :5] == 255).all() and (mask[1, :2] == 255).all() and (mask[2:] == CLASSES[2:]).all()


def test_a_photo_is_not_listed_color_by_color(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(LabelRangeError) as caught:
        read_color_mask(tmp_path / "a.png", SPEC)
    assert len(str(caught.value)) < 2000 and "8,100 px" in str(caught.value.found)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("a.jpg", Image.fromarray(RGB)),
        ("cmyk.tif", Image.fromarray(RGB).convert("CMYK")),
        ("float.tif", Image.fromarray(CLASSES.astype(np.float32))),
        ("deep.png", Image.fromarray(CLASSES.astype(np.uint16))),
    ],
)
def test_files_without_exact_colors_are_refused(name, image, tmp_path):
    image.save(tmp_path / name)
    with pytest.raises(ImageDecodeError) as caught:
        read_color_mask(tmp_path / name, SPEC)
    assert caught.value.subject == str(tmp_path / name) and caught.value.hint


def test_masks_of_numbers_refuse_colors_with_the_way_out(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    with pytest.raises(ImageDecodeError) as caught:
        read_mask(tmp_path / "a.png", SPEC)
    assert "colors" in str(caught.value.hint) and "doctor" in str(caught.value.hint)


@pytest.fixture
def pairs(tmp_path):
    """A folder of six images with masks of colors."""
    rng = np.random.default_rng(1)
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for number in range(6):
        photo = rng.integers(0, 256, RGB.shape, np.uint8)
        Image.fromarray(photo).save(tmp_path / "data" / "images" / f"{number}.png")
        Image.fromarray(np.roll(RGB, number, 0)).save(tmp_path / "data" / "masks" / f"{number}.png")
    return tmp_path / "data"


@pytest.mark.parametrize(("file", "text"), [("labelmap.txt", LABELMAP), ("classes.csv", TABLE), (None, "")])
def test_the_datasets_read_them(pairs, file, text):
    if file:
        (pairs / file).write_text(text)
    colors = file or {name: list(color) for name, color in COLORS.items()}
    (pairs / "list.csv").write_text("image,mask\n" + "".join(f"images/{i}.png,masks/{i}.png\n" for i in range(6)))
    for data in (Folder(pairs, colors=colors), Csv(pairs, colors=colors), cached(Folder(pairs, colors=colors))):
        assert data.labels.names == tuple(COLORS) and data.labels.palette == tuple(COLORS.values())
        assert all((sample["mask"] == np.roll(CLASSES, i, 0)).all() for i, sample in enumerate(data))
        assert LabelSpec.from_dict(json.loads(json.dumps(data.labels.to_dict()))) == data.labels


def test_the_cache_follows_the_file_of_colors(pairs, tmp_path):
    (pairs / "labelmap.txt").write_text(LABELMAP)
    before = cached(Folder(pairs, colors="labelmap.txt"), folder=tmp_path / "cache")
    (pairs / "labelmap.txt").write_text("background:0,0,0::\nperson:220,20,60::\nroad:128,64,128::\n")
    after = cached(Folder(pairs, colors="labelmap.txt"), folder=tmp_path / "cache")
    assert before.path != after.path and (after[0]["mask"] == np.array([0, 2, 1])[CLASSES]).all()


def test_unknown_colors_can_be_ignored(pairs):
    known = {"background": [0, 0, 0], "road": [128, 64, 128]}
    data = Folder(pairs, colors=known, unknown_color="ignore")
    assert data.labels.ignore_index == 255 and ((data[0]["mask"] == 255) == (CLASSES == 2)).all()
    data = Folder(pairs, colors=known, ignore_colors=[COLORS["person"]], ignore_index=7)
    assert ((data[0]["mask"] == 7) == (CLASSES == 2)).all()
    with pytest.raises(LabelRangeError):
        Folder(pairs, colors=known)[0]


@pytest.mark.parametrize(
    "options",
    [
        {"colors": {}},
        {"colors": [[0, 0, 0]]},
        {"colors": {"a": [0, 0]}},
        {"colors": {"a": [0, 0, 256]}},
        {"colors": {"a": "red"}},
        {"colors": {"a": [0, 0, 0], "b": [0, 0, 0]}},
        {"colors": COLORS, "names": ["a", "b", "c"]},
        {"colors": COLORS, "ids": [0, 1, 2]},
        {"colors": COLORS, "unknown_color": "skip"},
        {"colors": COLORS, "ignore_colors": [[0, 0, 0]]},
        {"names": ["a", "b"], "unknown_color": "ignore"},
        {"classes": 2, "ignore_colors": [[0, 0, 0]]},
    ],
    ids=str,
)
def test_declarations_are_checked(options, pairs):
    with pytest.raises(ConfigError):
        Folder(pairs, **options)


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("labelmap.txt", "a:0,0,0::\nb:0,0::\nc:0,0,256::\n:1,2,3::\na:4,5,6::\nd:0,0,0::\n", (2, 3, 4, 5, 6)),
        ("classes.csv", "name,r,g,b\na,0,0,0\nb,x,0,0\nc,1,2,-3\nd,1,2,3,4\n", (3, 4, 5)),
    ],
)
def test_all_faults_of_a_file_of_colors_are_reported_together(name, text, lines, pairs):
    (pairs / name).write_text(text)
    with pytest.raises(DataError) as caught:
        Folder(pairs, colors=name)
    assert caught.value.subject == pairs / name
    assert all(f"line {line}:" in str(caught.value.found) for line in lines)


@pytest.mark.parametrize("name", ["labelmap.txt", "classes.csv"])
def test_a_file_of_colors_must_exist_and_list_some(name, pairs):
    with pytest.raises(DataError):
        Folder(pairs, colors=name)
    (pairs / name).write_text("# nothing\n")
    with pytest.raises(DataError):
        Folder(pairs, colors=name)
    (pairs / name).write_bytes(b"a" * 2**21)
    with pytest.raises(DataError):
        Folder(pairs, colors=name)


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.soak)])
@pytest.mark.parametrize(("name", "text"), [("labelmap.txt", LABELMAP), ("classes.csv", TABLE)])
def test_mutated_files_of_colors(name, text, count, tmp_path):
    path, read = tmp_path / name, 0
    for number, made in enumerate(mutants({name: text.encode()}, 5, count)):
        path.write_bytes(made.data)
        try:
            colors = read_colors(path)
        except UnetzooError as error:
            assert error.hint and str(path) in str(error), (number, made.how)
        else:
            read += 1
            assert all(isinstance(part, int) and 0 <= part <= 255 for color in colors.values() for part in color)
    assert count / 20 < read < count * 0.95


class TestDoctor:
    def test_colors_are_listed_and_proposed(self, pairs):
        drawn = RGB.copy()
        drawn[0, 0] = (127, 64, 128)  # a stray pixel
        Image.fromarray(drawn).save(pairs / "masks" / "3.png")
        report = audit(pairs)
        (error,) = report.errors
        assert (error.code, error.cases[0].file, error.count) == ("unknown-color", "masks/3.png", 1)
        assert "(127, 64, 128) (1 px, nearest" in error.cases[0].detail
        listed = next(note for note in report.notes if note.code == "undeclared-labels").cases[0].detail
        assert "(220, 20, 60)" in listed and "(127, 64, 128) (1 px)" in listed
        proposed = report.proposal["colors"]
        assert proposed["background"] == [0, 0, 0] and sorted(proposed.values()) == sorted(map(list, COLORS.values()))
        (pairs / "masks" / "3.png").write_bytes((pairs / "masks" / "2.png").read_bytes())
        assert not audit(pairs, "folder", options=report.proposal).errors

    @pytest.mark.parametrize(("name", "text"), [("labelmap.txt", LABELMAP), ("classes.csv", TABLE)])
    def test_a_file_of_colors_is_found(self, name, text, pairs):
        (pairs / name).write_text(text)
        report = audit(pairs)
        assert report.proposal == {"colors": name} and not report.errors and not report.warnings
        assert [share.name for share in report.classes] == list(COLORS)
        assert [share.pixels for share in report.classes] == (6 * np.bincount(CLASSES.ravel())).tolist()
        (pairs / name).write_text(text.replace("220", "221"))
        assert isinstance(audit(pairs).proposal["colors"], dict)

    @pytest.mark.parametrize("save", [palette, lambda path: Image.fromarray(RGB).save(path)], ids=["palette", "RGB"])
    def test_an_export_of_cvat_in_the_layout_of_voc(self, save, tmp_path):
        for kind in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
            (tmp_path / kind).mkdir(parents=True)
        for number in range(4):
            photo = np.random.default_rng(number).integers(0, 256, RGB.shape, np.uint8)
            Image.fromarray(photo).save(tmp_path / "JPEGImages" / f"{number}.jpg")
            save(tmp_path / "SegmentationClass" / f"{number}.png")
        (tmp_path / "labelmap.txt").write_text(LABELMAP)
        (tmp_path / "ImageSets" / "Segmentation" / "default.txt").write_text("0\n1\n2\n3\n")
        report = audit(tmp_path)
        assert report.dataset == "folder" and not report.errors and not report.warnings
        assert report.proposal["colors"] == "labelmap.txt"
        data = Folder(tmp_path, **report.options, **report.proposal)
        assert (data[2]["mask"] == CLASSES).all() and data.labels.names == tuple(COLORS)

    def test_the_table_to_paste_declares_them(self, pairs):
        import tomllib

        from rich.console import Console

        report = audit(pairs)
        out = Console(width=400, file=io.StringIO())
        out.print(report)
        text = out.file.getvalue()
        table = text[text.index("[data]") :].split("\n\n")[0].split("\n  \n")[0]
        lines = [line.strip() for line in table.splitlines() if "=" in line or "[data]" in line]
        data = tomllib.loads("\n".join(lines))["data"]
        name, root = data.pop("name"), data.pop("root")
        assert name == "folder" and Path(root) == pairs
        assert (Folder(root, **data)[0]["mask"] > 0).tolist() == (CLASSES > 0).tolist()

    def test_unknown_colors_that_are_ignored_are_a_note(self, pairs):
        known = {"background": [0, 0, 0], "road": [128, 64, 128]}
        report = audit(pairs, "folder", options={"colors": known, "unknown_color": "ignore"})
        assert not report.errors and "unknown-color" in {note.code for note in report.notes}
        assert "unknown-color" in {error.code for error in audit(pairs, "folder", options={"colors": known}).errors}

    def test_smoothed_masks_are_recognized(self, pairs):
        y, x = np.mgrid[:150, :200]
        for number in range(6):
            classes = (np.hypot(x - 60 - 9 * number, y - 60) < 40) + 2 * (np.hypot(x - 130, y - 100 + 9 * number) < 30)
            large = Image.fromarray(np.array(list(COLORS.values()), np.uint8)[np.minimum(classes, 2)])
            large.resize((100, 75), Image.Resampling.BILINEAR).save(pairs / "masks" / f"{number}.png")
            photo = np.random.default_rng(number).integers(0, 256, (75, 100, 3), np.uint8)
            Image.fromarray(photo).save(pairs / "images" / f"{number}.png")
        report = audit(pairs)
        assert {error.code for error in report.errors} == {"interpolated-ids"}
        assert sorted(report.proposal["colors"].values()) == sorted(map(list, COLORS.values()))

    def test_random_masks_do_not_hang_the_doctor(self, pairs):
        rng = random.Random(0)
        for path in (pairs / "masks").iterdir():
            Image.frombytes("RGB", (40, 30), rng.randbytes(3600)).save(path)
        assert audit(pairs).proposal is None
