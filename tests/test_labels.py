import dataclasses
import itertools
import json
import pickle

import numpy as np
import pytest

from unetzoo import LabelSpec
from unetzoo.datasets.files import map_labels
from unetzoo.errors import ConfigError

FACE = LabelSpec(
    names=("background", "left_eye", "right_eye", "nose"),
    groups={"eyes": (1, 2)},
    swap_pairs=((1, 2),),
    side="viewer",
)


def test_survives_json():
    spec = LabelSpec(
        ("road", "car"),
        ids=(7, 26),
        remap={27: 1, -3: 0},
        ignore_ids=(0, -1),
        ignore_index=-100,
        palette=((128, 64, 128), (0, 0, 142)),
        groups={"all": (0, 1)},
    )
    for each in (spec, FACE, LabelSpec.indexed(3)):
        written = each.to_dict()
        assert json.loads(json.dumps(written)) == written  # nothing is lost on the way
        again = LabelSpec.from_dict(json.loads(json.dumps(written)))
        assert again == each and hash(again) == hash(each) and again.to_dict() == written
        assert set(written) == {part.name for part in dataclasses.fields(LabelSpec)}
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert LabelSpec(("a", "b"), ids=np.array([3, 4])).to_dict()["ids"] == [3, 4]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("invalid", "subject"),
    [
        ({}, None),
        ({"names": "abc"}, "names"),
        ({"names": 3}, None),
        ({"names": ["a", 3]}, "names and groups"),
        ({"names": ["a"], "ids": [1.5]}, None),
        ({"names": ["a"], "ids": ["x"]}, None),
        ({"names": ["a"], "groups": [0]}, None),
        ({"names": ["a"], "palette": [[0, 0]]}, "palette"),
        ({"names": ["a"], "palette": [[0, 0, 256]]}, "palette"),
        ({"names": ["a"], "palette": ["red"]}, None),
        ({"names": ["a"], "remap": {"1": 1}}, "groups, swap pairs and remap"),
        ({"names": ["a"], "remap": {"0": 0}}, "ids, remap and ignore_ids"),
        ({"names": ["a"], "remap": {"5": 0}, "ignore_ids": [5], "ignore_index": 255}, "ids, remap and ignore_ids"),
    ],
    ids=str,
)
def test_from_dict_validates_its_input(invalid, subject):
    with pytest.raises(ConfigError) as caught:
        LabelSpec.from_dict(invalid)
    assert caught.value.subject == subject


def test_from_dict_suggests_the_nearest_key():
    with pytest.raises(ConfigError) as caught:
        LabelSpec.from_dict({"names": ["a"], "id": [1]})
    assert "'ids'" in caught.value.hint


def test_reflections_and_turns():
    """The new position of the left half shows the viewer's left; mirroring, the subject's."""
    spot = np.zeros((5, 5), int)
    spot[0, 1] = 1  # left of the middle; with the corner above it, it has a sense of rotation
    spot[0, 0] = 2
    for hflip, vflip, turns in itertools.product((False, True), (False, True), range(-4, 5)):
        image = spot[:, ::-1] if hflip else spot
        image = np.rot90(image[::-1] if vflip else image, turns)
        mirrored = not any(np.array_equal(image, np.rot90(spot, k)) for k in range(4))
        subject = dataclasses.replace(FACE, side="subject").swapped_by(hflip, vflip, turns)
        assert subject == ((0, 2, 1, 3) if mirrored else (0, 1, 2, 3))
        if turns % 2:
            with pytest.raises(ConfigError) as caught:
                FACE.swapped_by(hflip, vflip, turns)
            assert "left_eye/right_eye" in caught.value.found
            assert LabelSpec(("a", "b")).swapped_by(hflip, vflip, turns) == (0, 1)
            continue
        moved_right = np.argwhere(image == 1)[0, 1] > 2
        assert FACE.swapped_by(hflip, vflip, turns) == ((0, 2, 1, 3) if moved_right else (0, 1, 2, 3))


def test_lookup_maps_file_values():
    spec = LabelSpec(("road", "car"), ids=(7, 26), ignore_ids=(0, 1), ignore_index=255)
    assert spec.lookup() == {7: 0, 26: 1, 0: 255, 1: 255}
    merged = dataclasses.replace(spec, remap={27: 1})
    assert merged.lookup() == {7: 0, 26: 1, 27: 1, 0: 255, 1: 255}
    assert map_labels(np.array([[7, 27, 26, 1]]), merged, "a mask").tolist() == [[0, 1, 1, 255]]
    assert FACE.lookup() == {0: 0, 1: 1, 2: 2, 3: 3}


def test_classes_without_names_are_named_by_index():
    assert LabelSpec.indexed(3).names == ("0", "1", "2")


@pytest.mark.parametrize("count", [1, 2, 19, 60])
def test_made_colors_are_distinct(count):
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
        {"names": ("a", "b"), "swap_pairs": ((0, 1),), "side": "left"},
        {"names": ("a", "b"), "side": "left"},
        {"names": ("a", "b"), "swap_pairs": ((0, 0),), "side": "viewer"},
        {"names": ("a", "b", "c"), "swap_pairs": ((0, 1), (1, 2)), "side": "viewer"},
        {"names": ("a", "b", "c"), "swap_pairs": ((0, 1, 2),), "side": "viewer"},
        {"names": ("a", "b"), "remap": {5: 2}},
    ],
    ids=str,
)
def test_contradictions_are_errors(wrong):
    with pytest.raises(ConfigError) as caught:
        LabelSpec(**wrong)
    assert caught.value.subject and caught.value.expected
