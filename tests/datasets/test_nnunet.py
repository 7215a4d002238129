"""Raw folders of nnU-Net, and volumes in folders: reading, splits, prediction, audit."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from auditing import codes
from PIL import Image

import unetzoo
from unetzoo.datasets import Folder, NnUNet, cached
from unetzoo.doctor import audit, recognize
from unetzoo.errors import ConfigError, DataError, LayoutError, PairingError, SizeMismatchError, UnsupportedImageError
from unetzoo.images import Pixels
from unetzoo.inference import Predictor

nibabel = pytest.importorskip("nibabel")
AFFINE = np.diag([0.5, 0.5, 2.0, 1.0])
PLAN = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "tumor": 1}, "file_ending": ".nii.gz"}


def draw(number, shape=(12, 10, 6)):
    """A ball, brighter in two channels of int16."""
    rng = np.random.default_rng(number)
    grid = np.meshgrid(*map(np.arange, shape), indexing="ij")
    center = [rng.integers(3, side - 2) for side in shape]
    ball = sum((axis - place) ** 2 for axis, place in zip(grid, center, strict=True)) < 9
    noise = rng.integers(0, 300, (2, *shape))
    return (noise + 700 * ball).astype(np.int16), ball.astype(np.uint8)


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), path)


def write_raw(root, count=5, plan=PLAN, ending=".nii.gz"):
    for number in range(count):
        channels, labels = draw(number)
        for index, channel in enumerate(channels):
            save(root / "imagesTr" / f"case_{number}_{index:04d}{ending}", channel)
        save(root / "labelsTr" / f"case_{number}{ending}", labels)
    (root / "dataset.json").write_text(json.dumps(plan))
    return root


def write_decathlon(root, count=3):
    for number in range(count):
        channels, labels = draw(number)
        save(root / "imagesTr" / f"brats_{number:03d}.nii.gz", np.moveaxis(channels, 0, 3))
        save(root / "labelsTr" / f"brats_{number:03d}.nii.gz", labels)
    plan = {"modality": {"0": "T1", "1": "T2"}, "labels": {"0": "background", "1": "tumor"}}
    (root / "dataset.json").write_text(json.dumps(plan))
    return root


@pytest.mark.parametrize("write", [write_raw, write_decathlon])
@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_slices_are_those_of_nibabel(write, axis, tmp_path):
    data = NnUNet(write(tmp_path), "all", axis=axis, range=[0, 1000])
    number, side = "xyz".index(axis), (12, 10, 6)["xyz".index(axis)]
    channels, labels = draw(1)
    assert len(data) % side == 0 and data.labels.names == ("background", "tumor")
    for index in range(side):
        sample = data[side + index]
        assert sample["id"].endswith(f"1_{index:03d}")
        assert (sample["mask"] == np.take(labels, index, number).T).all()
        expected = np.stack([np.take(channel, index, number).T for channel in channels], 2) / np.float32(1000)
        assert np.allclose(sample["image"], np.clip(expected, 0, 1), atol=1e-6)
    assert (pickle.loads(pickle.dumps(data))[3]["image"] == data[3]["image"]).all()
    assert all(path.is_file() for path in data.sources())


def test_volumes_are_never_divided(tmp_path):
    root, seen = write_raw(tmp_path, 6), []
    for fold in ("1/3", "2/3", "3/3"):
        train, val = ({s.name[:6] for s in NnUNet(root, part, fold=fold).files} for part in ("train", "val"))
        assert len(val) == 2 and not train & val and len(train | val) == 6
        seen += val
    assert len(set(seen)) == 6
    with pytest.raises(DataError):
        NnUNet(root, "val", fold="1/7")


def test_png_files_are_images(tmp_path):
    for number in range(2):
        for folder, name, mode in (("imagesTr", f"a{number}_0000", "RGB"), ("labelsTr", f"a{number}", "L")):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.new(mode, (8, 6), 1).save(tmp_path / folder / f"{name}.png")
    plan = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"a": 0, "b": 1, "ignore": 2}}
    (tmp_path / "dataset.json").write_text(json.dumps(plan))
    data = NnUNet(tmp_path, "all")
    assert len(data) == 2 and data[0]["image"].shape == (6, 8, 3) and data[0]["image"].dtype == np.uint8
    assert data.labels.ignore_ids == (2,) and data.labels.ignore_index == 255


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({**PLAN, "labels": {"background": 0, "whole": [1, 2]}}, ["region", "whole"]),
        ({"labels": {"a": "b", "c": 0, "d": 0}}, ["channel_names", "'b'", "twice"]),
        ({}, ["labels", "channel_names"]),
        ([], ["labels"]),
        ({**PLAN, "labels": {"ignore": 1}}, ["no labels"]),
    ],
)
def test_all_faults_of_the_plan_are_in_one_error(plan, words, tmp_path):
    with pytest.raises(DataError) as caught:
        NnUNet(write_raw(tmp_path, 2, plan), "all")
    assert caught.value.subject == tmp_path / "dataset.json"
    assert all(word in caught.value.found for word in words)


def test_other_faults(tmp_path):
    with pytest.raises(LayoutError):
        NnUNet(tmp_path, "all")
    root = write_raw(tmp_path, 3)
    (root / "dataset.json").write_bytes(b"{" * 100)
    with pytest.raises(DataError, match="cannot read"):
        NnUNet(root, "all")
    (root / "dataset.json").unlink()
    with pytest.raises(LayoutError) as caught:
        NnUNet(root, "all")
    assert caught.value.expected == "dataset.json"
    write_raw(tmp_path, 3)
    save(root / "labelsTr" / "case_1.nii.gz", draw(1)[1][:, :, 1:])
    with pytest.raises(SizeMismatchError) as caught:
        NnUNet(root, "all")
    assert "case_1" in caught.value.found
    (root / "labelsTr" / "case_1.nii.gz").unlink()
    (root / "imagesTr" / "case_2_0001.nii.gz").unlink()
    with pytest.raises(PairingError) as caught:
        NnUNet(root, "all")
    assert "case_1" in caught.value.found and "case_2_0001" in caught.value.found


def write_stacks(root, kind):
    for number in range(5):
        (channel, _), labels = draw(number)
        if kind == "tif":
            for folder, values in (("images", channel.astype(np.uint16)), ("masks", labels)):
                (root / folder).mkdir(parents=True, exist_ok=True)
                tifffile.imwrite(root / folder / f"s{number}.tif", values.T, photometric="minisblack")
        else:
            save(root / "images" / f"s{number}.nii", channel)
            save(root / "masks" / f"s{number}.nii", labels)
    return root


STACK = {"classes": 2, "channels": 1, "range": [0, 1000], "axis": "z"}


@pytest.mark.parametrize("kind", ["tif", "nii"])
def test_a_folder_of_volumes(kind, tmp_path):
    root = write_stacks(tmp_path, kind)
    train, val = (Folder(root, split, **STACK) for split in ("train", "val"))
    assert len(train) == 24 and len(val) == 6 and len({s.name[:2] for s in val.files}) == 1
    data = Folder(root, **STACK)
    for number in range(5):
        (channel, _), labels = draw(number)
        for index in range(6):
            sample = data[6 * number + index]
            assert (sample["mask"] == labels[:, :, index].T).all()
            assert np.allclose(sample["image"][..., 0], channel[:, :, index].T / 1000, atol=1e-6)
    kept = cached(data, folder=tmp_path / "cache", progress=False)
    assert (kept[7]["image"] == data[7]["image"]).all()
    with pytest.raises((UnsupportedImageError, DataError)):
        Folder(root, **{**STACK, "axis": None})[0]
    if kind == "tif":
        with pytest.raises(ConfigError):
            Folder(root, **{**STACK, "axis": "x"})


@pytest.mark.parametrize(("kind", "axis"), [("tif", "z"), ("nii", "z"), ("nii", "x"), ("nnunet", "z"), ("nnunet", "y")])
def test_predictions_are_joined_to_volumes(kind, axis, tmp_path):
    options = {**STACK, "axis": axis}
    if kind == "nnunet":
        data = NnUNet(write_raw(tmp_path / "raw"), "all", axis=axis)
        volumes = tmp_path / "raw" / "imagesTr"
    else:
        data, volumes = Folder(write_stacks(tmp_path / "raw", kind), **options), tmp_path / "raw" / "images"
    net = unetzoo.build("bnunet", classes=3, in_channels=data.pixels.channels, encoder_channels=[4, 4, 4])
    predictor = Predictor(net, preprocess=unetzoo.Preprocess(), pixels=data.pixels)
    assert predictor.predict_files(volumes, tmp_path / "out") == []
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    ending = {"tif": ".tif", "nii": ".nii", "nnunet": ".nii.gz"}[kind]
    stems = [f"case_{n}" if kind == "nnunet" else f"s{n}" for n in range(5)]
    assert found == sorted(f"{stem}{end}" for stem in stems for end in (ending, ".json"))
    count = len(data) // 5
    for number, stem in enumerate(stems):
        path = tmp_path / "out" / (stem + ending)
        if kind == "tif":
            joined = tifffile.imread(path)
        else:
            image = nibabel.load(path)
            assert np.array_equal(image.affine, AFFINE) and image.get_data_dtype() == np.uint8
            joined = np.moveaxis(np.asarray(image.dataobj), "xyz".index(axis), 0).swapaxes(1, 2)
        for index in range(count):
            assert (joined[index] == predictor.segment(data[number * count + index]["image"]).label_map).all()
        facts = json.loads((tmp_path / "out" / f"{stem}.json").read_text())
        assert facts["slices"] == count and sum(c["voxels"] for c in facts["classes"].values()) == joined.size


def test_what_volumes_cannot_be(tmp_path):
    root = write_stacks(tmp_path / "raw", "nii")
    for labels in ({"instances": True}, {"colors": {"a": [0, 0, 0], "b": [0, 0, 1]}}):
        with pytest.raises(ConfigError) as caught:
            Folder(root, channels=1, range="image", axis="z", **labels)
        assert "class numbers" in caught.value.what
    net = unetzoo.build("bnunet", classes=3, in_channels=1, encoder_channels=[4, 4, 4])
    predictor = Predictor(net, preprocess=unetzoo.Preprocess(), pixels=Pixels(1, range=[0, 1000], axis="z"))
    with pytest.raises(ConfigError) as caught:
        predictor.predict_file(root / "images" / "s0.nii")
    assert "predict_files" in caught.value.hint
    with pytest.raises(ConfigError):
        predictor.predict_files(root / "images", tmp_path / "out", products="mask,coco")
    assert not (tmp_path / "out").exists()


def test_a_broken_volume_does_not_stop_the_others(tmp_path):
    root = write_stacks(tmp_path / "raw", "nii") / "images"
    (root / "s1.nii").write_bytes((root / "s1.nii").read_bytes()[:900])
    net = unetzoo.build("bnunet", classes=3, in_channels=1, encoder_channels=[4, 4, 4])
    predictor = Predictor(net, preprocess=unetzoo.Preprocess(), pixels=Pixels(1, range=[0, 1000], axis="z"))
    (error,) = predictor.predict_files(root, tmp_path / "out")
    assert "s1.nii" in str(error.subject) and len(list((tmp_path / "out").glob("*.nii"))) == 4


@pytest.mark.slow
def test_train_and_predict_from_the_command_line(tmp_path):
    write_raw(tmp_path / "raw")
    (tmp_path / "r.toml").write_text(
        '[model]\nname = "bnunet"\nclasses = 1\nin_channels = 2\nencoder_channels = [4, 4, 4]\n'
        '[data]\nname = "nnunet"\nroot = "raw"\n[loss]\ndice_ce = 1.0\n[metrics.mask]\nname = "segmentation"\n'
        "[train]\nepochs = 1\nbatch_size = 8\n"
    )
    for command in (["train", "r.toml", "--out", "run", "--quiet"], ["predict", "run", "raw/imagesTr", "out"]):
        subprocess.run([sys.executable, "-m", "unetzoo.cli", *command], cwd=tmp_path, check=True, capture_output=True)
    assert nibabel.load(tmp_path / "out" / "case_4.nii.gz").shape == (12, 10, 6)


def test_the_doctor_recognizes_raw_folders(tmp_path):
    root = write_raw(tmp_path)
    assert recognize(root)[0] == ("nnunet", 1.0)
    report = audit(root)
    assert report.dataset == "nnunet" and report.splits == {"train": 24, "val": 6}
    assert codes(report, "error", "warning") == set() and report.labels.names == ("background", "tumor")


@pytest.mark.parametrize("kind", ["tif", "nii"])
def test_the_doctor_proposes_the_declaration_of_volumes(kind, tmp_path):
    root = write_stacks(tmp_path, kind)
    report = audit(root)
    assert report.dataset == "folder" and codes(report, "error", "warning") == set()
    proposed = {"axis": "z", "channels": 1, "range": "image", "classes": 2}
    assert report.proposal == proposed and len(Folder(root, **proposed)) == 30
    declared = {key: proposed[key] for key in ("axis", "classes")}
    assert audit(root, options=declared).proposal == {"channels": 1, "range": "image"}


def test_the_doctor_names_broken_volumes(tmp_path):
    root = write_raw(tmp_path)
    path = root / "imagesTr" / "case_2_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])
    report = audit(root)
    assert codes(report, "error") == {"sample-error"} and report.errors[0].count == 6
    assert "case_2_0000" in report.errors[0].cases[0].detail
