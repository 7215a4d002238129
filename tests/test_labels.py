import json

import pytest

from unetzoo import LabelSpec
from unetzoo.errors import ConfigError

FACE = LabelSpec(
    names=("background", "left_eye", "right_eye", "nose"),
    groups={"eyes": (1, 2)},
    swap_pairs=((1, 2),),
    side="viewer",
)


def test_survives_json():
    spec = LabelSpec(("road", "car"), ids=(7, 26), ignore_ids=(0, 1), ignore_index=255, groups={"all": (0, 1)})
    assert LabelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert LabelSpec.from_dict(json.loads(json.dumps(FACE.to_dict()))) == FACE


def test_lookup_maps_file_values():
    spec = LabelSpec(("road", "car"), ids=(7, 26), ignore_ids=(0, 1), ignore_index=255)
    assert spec.lookup() == {7: 0, 26: 1, 0: 255, 1: 255}
    assert FACE.lookup() == {0: 0, 1: 1, 2: 2, 3: 3}


def test_classes_without_names_are_named_by_index():
    assert LabelSpec.indexed(3).names == ("0", "1", "2")


@pytest.mark.parametrize("count", [1, 2, 19, 60])
def test_made_colours_are_distinct(count):
    palette = LabelSpec.indexed(count).palette
    assert len(set(palette)) == count
    assert palette[0] == (0, 0, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"names": ()},
        {"names": ("a", "a")},
        {"names": ("a", "b"), "ids": (1,)},
        {"names": ("a", "b"), "ids": (1, 1)},
        {"names": ("a", "b"), "ids": (0, 255), "ignore_ids": (255,), "ignore_index": 255},
        {"names": ("a", "b"), "ignore_ids": (9,)},
        {"names": ("a", "b"), "ignore_index": 1},
        {"names": ("a", "b"), "palette": ((0, 0, 0),)},
        {"names": ("a", "b"), "groups": {"x": (2,)}},
        {"names": ("a", "b"), "swap_pairs": ((0, 1),)},
    ],
    ids=str,
)
def test_contradictions_are_refused(wrong):
    with pytest.raises(ConfigError, match="inconsistent label set"):
        LabelSpec(**wrong)
