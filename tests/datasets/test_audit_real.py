"""Real data sets: no errors, only known warnings and notes."""

import shutil
from pathlib import Path

import pytest

from unetzoo.doctor import audit, recognize

pytestmark = pytest.mark.realdata

SETS = {
    "isbi2012": ("isbi2012", {"train": 20, "val": 4, "test": 6}),
    "camvid": ("camvid", {"train": 367, "val": 101}),
    "cityscapes_mini": ("cityscapes", {"train": 8, "val": 9}),
    "faces/celebamask_hq": ("celebamask", {"train": 10, "val": 1, "test": 1}),
    "cars/carvana_10": ("folder", {"train": 8, "val": 2}),
    "cars/camvid_car_crops": ("folder", {"train": 220, "val": 26}),
    "dsb2018": ("dsb2018", {"train": 373, "val": 46, "test": 46}),
    "dsb2018/raw": ("dsb2018", {"train": 6, "val": 1, "test": 1}),
    "fgbg_depth": ("composites", {"train": 189, "val": 23, "test": 23}),
    "fgbg_depth/composites": ("composites-export", {"train": 13, "val": 1, "test": 1}),
}
WARNINGS = {  # the official val frames lie between training frames of one video
    "camvid": {
        "neighbors-in-two-splits": "images/val/0016E5_08159.jpg: val; next to images/train/0016E5_08190.jpg, train"
    }
}
DECLARED = {
    "cars/carvana_10": {"names": ("background", "car"), "mask_suffix": "_mask"},
    "cars/camvid_car_crops": {"names": ("background", "car"), "ids": (0, 255)},
    "fgbg_depth/composites": {"mask_threshold": 128},
}


@pytest.mark.parametrize(
    ("folder", "declared"),
    [pytest.param(folder, declared, id=folder + "-declared" * declared)
     for folder in SETS for declared in (False, True) if not declared or folder in DECLARED],
)  # fmt: skip
def test_a_real_set_is_recognized_and_found_sound(folder, declared, real):
    dataset, splits = SETS[folder]
    report = audit(real / folder, options=DECLARED.get(folder) if declared else None)
    assert recognize(real / folder)[0][0] == report.dataset == dataset
    found = {finding.code: str(finding.cases[0]) for finding in (*report.errors, *report.warnings)}
    assert found == WARNINGS.get(folder, {})
    assert report.splits == splits and report.audited == report.samples == sum(splits.values())
    if dataset != "composites":
        assert sum(share.pixels for share in report.classes) > 0
    assert bool(report.proposal) == (folder in DECLARED and not declared)


def test_the_two_label_files_of_one_frame_contradict_each_other(real):
    """In this copy, labelTrainIds differs from the mapped labelIds in 77 pixels along borders."""
    report = audit(real / "cityscapes_mini")
    (note,) = [finding for finding in report.notes if finding.code == "label-files-disagree"]
    assert note.count == 1 and note.cases[0].detail.startswith("77 pixels")


@pytest.mark.parametrize(
    ("folder", "first", "second"), [("isbi2012", "03", "17"), ("camvid", "0006R0_f00930", "0016E5_00390")]
)
def test_two_swapped_real_masks_are_found(folder, first, second, real, tmp_path):
    root = shutil.copytree(real / folder, tmp_path / "data")
    masks = [next((root / "labels").rglob(f"{name}.png")) for name in (first, second)]
    content = [path.read_bytes() for path in masks]
    for path, other in zip(masks, reversed(content), strict=True):
        path.write_bytes(other)
    (warning,) = [warning for warning in audit(root, folder).warnings if warning.code not in WARNINGS.get(folder, ())]
    assert warning.code == "misaligned-mask"
    assert {Path(case.file).stem for case in warning.cases} == {first, second}
