"""The layouts, errors of damaged ones, and training on each."""

import json
import shutil
import zipfile
from functools import partial

import numpy as np
import pytest
from PIL import Image
from unetzoo_extras.drive import DRIVE
from unetzoo_extras.isic2018 import ISIC2018
from unetzoo_extras.oxford_pet import OxfordPet

import unetzoo
from unetzoo.doctor import audit, recognize
from unetzoo.errors import (
    ConfigError,
    DataError,
    ImageDecodeError,
    LabelRangeError,
    PairingError,
    SizeMismatchError,
    UnetzooError,
)
from unetzoo.training import evaluate, train
from unetzoo.twins import FAULTS, LAYOUTS, plant, write

ALL = {
    "oxford-pet": (partial(write, "oxford-pet"), OxfordPet),
    "drive": (partial(write, "drive"), DRIVE),
    "isic2018": (partial(write, "isic2018"), ISIC2018),
}


@pytest.fixture(params=ALL)
def name(request):
    return request.param


@pytest.fixture
def root(name, tmp_path):
    return ALL[name][0](tmp_path / "data")


def save(path, rows, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(rows, np.uint8)).save(path, **options)


# What the files mean


@pytest.fixture
def pets(tmp_path):
    """Twelve listed pets of 2×3 pixels, with the other files of the archives."""
    names = [f"Bombay_{number}" for number in range(1, 13)]
    for name in [*names, "Bombay_99", "pug_1"]:
        save(tmp_path / "images" / f"{name}.jpg", np.full((2, 3, 3), 90))
        save(tmp_path / "annotations" / "trimaps" / f"{name}.png", [[1, 2, 3], [2, 3, 1]])
    (tmp_path / "images" / "Bombay_1.mat").write_bytes(b"MATLAB")
    (tmp_path / "annotations" / "trimaps" / "._Bombay_1.png").write_bytes(b"Mac OS X")
    rows = "".join(f"{name} 8 1 3\n" for name in names)
    (tmp_path / "annotations" / "trainval.txt").write_text("#Image CLASS-ID SPECIES BREED ID\n" + rows)
    (tmp_path / "annotations" / "test.txt").write_text("pug_1 24 2 16\r\n")
    return tmp_path


@pytest.mark.parametrize(
    ("border", "names", "mask"),
    [
        ("ignore", ("background", "pet"), [[1, 0, 255], [0, 255, 1]]),
        ("pet", ("background", "pet"), [[1, 0, 1], [0, 1, 1]]),
        ("class", ("background", "pet", "border"), [[1, 0, 2], [0, 2, 1]]),
    ],
)
def test_trimaps_mean_what_is_asked_of_them(pets, border, names, mask):
    data = OxfordPet(pets, border=border)
    assert data.labels.names == names and data[0]["mask"].tolist() == mask


def test_the_lists_divide_the_pets_and_every_tenth_line_is_val(pets):
    ids = {split: [sample["id"] for sample in OxfordPet(pets, split)] for split in ("train", "val", "trainval", "test")}
    assert ids["trainval"] == [f"Bombay_{number}" for number in range(1, 13)]
    assert ids["val"] == ["Bombay_1", "Bombay_11"] and ids["test"] == ["pug_1"]
    assert ids["train"] == [name for name in ids["trainval"] if name not in ids["val"]]


@pytest.fixture
def retinas(tmp_path):
    """Six training images of 2×2 pixels and one for test, whose two observers disagree."""
    vessel = [[255, 0], [255, 255]]
    for part, numbers in (("training", range(21, 27)), ("test", [1])):
        for number in numbers:
            save(tmp_path / part / "images" / f"{number:02d}_{part}.tif", np.full((2, 2, 3), 120))
            save(tmp_path / part / "1st_manual" / f"{number:02d}_manual1.gif", vessel)
            save(tmp_path / part / "mask" / f"{number:02d}_{part}_mask.gif", [[255, 255], [255, 0]])
    save(tmp_path / "test" / "2nd_manual" / "01_manual2.gif", [[0, 255], [0, 0]])
    return tmp_path


def test_vessels_count_inside_the_field_of_view(retinas):
    assert DRIVE(retinas)[0]["mask"].tolist() == [[1, 0], [1, 255]]
    assert DRIVE(retinas, field_of_view=False)[0]["mask"].tolist() == [[1, 0], [1, 1]]
    assert DRIVE(retinas, "test", observer=2)[0]["mask"].tolist() == [[0, 1], [0, 255]]


def test_a_gifs_palette_may_number_its_colors_as_it_likes(retinas):
    path = retinas / "training" / "1st_manual" / "21_manual1.gif"
    numbers = Image.fromarray(np.array([[0, 1], [0, 0]], np.uint8), "P")
    numbers.putpalette([255, 255, 255, 0, 0, 0])
    numbers.save(path)
    assert DRIVE(retinas)[0]["mask"].tolist() == [[1, 0], [1, 255]]


def test_the_last_four_retinas_of_training_validate(retinas):
    ids = {split: [sample["id"] for sample in DRIVE(retinas, split)] for split in ("train", "val", "trainval", "test")}
    assert ids == {"train": ["21", "22"], "val": ["23", "24", "25", "26"], "test": ["01"],
                   "trainval": ["21", "22", "23", "24", "25", "26"]}  # fmt: skip


def test_the_folds_of_drive_cover_the_training_set(retinas):
    folds = [{sample["id"] for sample in DRIVE(retinas, "val", fold=f"{k}/5")} for k in range(1, 6)]
    together = {sample["id"] for sample in DRIVE(retinas, "trainval")}
    assert set.union(*folds) == together and sum(map(len, folds)) == len(together)
    assert {sample["id"] for sample in DRIVE(retinas, "train", fold="2/5")} == together - folds[1]
    assert len(DRIVE(retinas, "test", fold="2/5")) == len(DRIVE(retinas, "test"))


def test_lesions_come_from_the_challenges_folders(tmp_path):
    for part, number in (("Training", 0), ("Validation", 12255), ("Test", 12169)):
        name = f"ISIC_{number:07d}"
        save(tmp_path / f"ISIC2018_Task1-2_{part}_Input" / f"{name}.jpg", np.zeros((2, 2, 3)))
        save(tmp_path / f"ISIC2018_Task1_{part}_GroundTruth" / f"{name}_segmentation.png", [[0, 255], [0, 0]])
        (tmp_path / f"ISIC2018_Task1-2_{part}_Input" / "LICENSE.txt").write_text("CC-0")
    ids = [ISIC2018(tmp_path, split)[0]["id"] for split in ("train", "val", "test")]
    assert ids == ["ISIC_0000000", "ISIC_0012255", "ISIC_0012169"]
    assert ISIC2018(tmp_path)[0]["mask"].tolist() == [[0, 1], [0, 0]]
    assert ISIC2018(tmp_path).labels.names == ("skin", "lesion")


def test_splits_share_no_sample(name, root):
    data = ALL[name][1]
    parts = [{sample["id"] for sample in data(root, split)} for split in ("train", "val", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) and all(parts)


def test_every_file_that_is_read_is_named_as_a_source(name, root):
    data = ALL[name][1](root)
    sources = set(data.sources())
    for path in sources:
        path.write_bytes(b"broken")
        with pytest.raises(ImageDecodeError):
            list(data)
        shutil.rmtree(root)
        ALL[name][0](root)
    assert len(sources) == len(data) * (3 if name == "drive" else 2)


# Damage


def test_an_empty_and_a_missing_folder_show_the_layout(name, tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError) as caught:
            ALL[name][1](root)
        assert str(root) in str(caught.value) and ALL[name][1].how_to_get in str(caught.value)


def test_every_folder_that_is_missing_is_told(name, root):
    for folder in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
        for split in ("train", "test"):
            kept = folder.rename(root.parent / "elsewhere")
            try:
                ALL[name][1](root, split)
            except UnetzooError as error:
                assert ALL[name][1].how_to_get in str(error)
            else:
                assert not any(path.is_relative_to(folder) for path in ALL[name][1](root, split).sources())
            finally:
                kept.rename(folder)


def test_every_missing_file_is_named_and_so_are_all_of_them(name, root):
    data = ALL[name][1](root)
    first, second, *_ = data.files
    first.image.unlink()
    second.mask.unlink()
    with pytest.raises(PairingError) as caught:
        ALL[name][1](root)
    assert first.name in str(caught.value.found) and second.name in str(caught.value.found)


def test_a_missing_field_of_view_is_named(retinas):
    (retinas / "training" / "mask" / "24_training_mask.gif").unlink()
    with pytest.raises(PairingError, match=r"24_training\.tif has no field of view"):
        DRIVE(retinas)


def test_masks_of_other_values_sizes_and_kinds_are_refused(name, root):
    data = ALL[name][1](root)
    path = data.files[0].mask
    with Image.open(path) as image:
        whole = np.array(image.convert("L"))
    wrong = whole.copy()
    wrong[0, 0] = 7
    save(path, wrong)
    with pytest.raises(LabelRangeError, match="7"):
        data[0]
    save(path, whole[:-1])
    with pytest.raises(SizeMismatchError):
        data[0]
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(ImageDecodeError, match=path.name):
        data[0]


def test_a_field_of_view_of_another_size_is_refused(retinas):
    save(retinas / "training" / "mask" / "21_training_mask.gif", [[255, 0]])
    with pytest.raises(SizeMismatchError, match="field of view"):
        DRIVE(retinas)[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no names"),
        ("# only remarks\n", "no names"),
        ("Bombay_1 8 1 3\nBombay_2 8 1\n", "line 2: 'Bombay_2 8 1'"),
        ("<html>\n", "line 1: '<html>'"),
        ("Bombay_1 8 1 3\nBombay_1 8 1 3\n", "Bombay_1 twice"),
        ("Bombay_1 8 1 3\nBombay_77 8 1 3\n", "Bombay_77 is listed in annotations/trainval.txt"),
    ],
)
def test_broken_lists_are_refused(pets, text, says):
    (pets / "annotations" / "trainval.txt").write_text(text)
    with pytest.raises(DataError) as caught:
        OxfordPet(pets)
    assert says in str(caught.value)


def test_a_missing_or_binary_list_is_refused(pets):
    (pets / "annotations" / "test.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot read the list"):
        OxfordPet(pets, "test")
    (pets / "annotations" / "test.txt").unlink()
    with pytest.raises(DataError, match="cannot read the list"):
        OxfordPet(pets, "test")


def test_wrong_arguments_are_refused(pets, retinas):
    for make, says in (
        (lambda: OxfordPet(pets, border="rim"), "ignore | pet | class"),
        (lambda: OxfordPet(pets, "validation"), "train | val | trainval | test"),
        (lambda: DRIVE(retinas, "train", observer=2), 'split="test"'),
        (lambda: DRIVE(retinas, "test", observer=3), "1, or 2"),
    ):
        with pytest.raises(ConfigError) as caught:
            make()
        assert says in str(caught.value)


def test_too_few_retinas_are_not_divided(retinas):
    for number in (21, 22):
        for path in (retinas / "training").rglob(f"{number}_*"):
            path.unlink()
    with pytest.raises(DataError, match="too few"):
        DRIVE(retinas)
    assert len(DRIVE(retinas, "trainval")) == 4


# Together with the library


def test_archives_are_read(name, root, tmp_path, monkeypatch):
    monkeypatch.setenv("UNETZOO_CACHE", str(tmp_path / "cache"))
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for path in root.rglob("*"):
            archive.write(path, path.relative_to(root.parent))
    assert len(unetzoo.DATASETS.build(name, root=str(tmp_path / "data.zip"))) == len(ALL[name][1](root))


def test_the_doctor_recognizes_a_sound_twin_and_finds_it_sound(name, root):
    (likeliest, _), *others = recognize(root)
    assert likeliest == name and all(confidence < 0.8 for _, confidence in others)
    report = audit(root)
    assert report.dataset == name and not report.errors and not report.warnings
    assert set(report.splits) >= {"train", "val", "test"}


PLANTS = [(name, code) for code, fault in FAULTS.items() for name in ALL if name in fault.layouts]


def test_most_faults_can_be_planted():
    assert all(sum(name == planted for planted, _ in PLANTS) >= 22 for name in ALL)


@pytest.mark.parametrize(("layout", "code"), [plant for plant in PLANTS if plant[1] != "no-permission"])
def test_a_planted_fault_is_found_and_nothing_else_is(layout, code, tmp_path):
    root = write(layout, tmp_path / "data", count=max(10, LAYOUTS[layout].least))
    plant(root, layout, code)
    report = audit(root, layout)
    assert code in report.codes
    assert not {finding.code for finding in (*report.errors, *report.warnings)} - {code}


def test_recipes_train_and_score_the_test_set(name, root, tmp_path):
    from unetzoo_extras.checks import CASES

    (case,) = [case for case in CASES if case.kind == "recipe" and case.target == name]
    settings = {**case.options, "data.root": str(root), "train.epochs": 1}
    sets = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    result = train(name, sets, out=tmp_path / "run", progress=False)
    assert 0 <= result.scores["miou"] <= 1
    scores = evaluate(tmp_path / "run", ["data.val.split=test"], progress=False)
    assert 0 <= scores["miou"] <= 1
