"""Crops that are centered on a class."""

import numpy as np
import pytest

from unetzoo.datasets import Transform
from unetzoo.errors import ConfigError
from unetzoo.labels import LabelSpec

LABELS = LabelSpec(("road", "crack"), ignore_index=255)


def sample(height=60, width=80, at=((5, 70),)):
    mask = np.zeros((height, width), np.uint8)
    for place in at:
        mask[place] = 1
    return {"image": np.repeat(mask[..., None], 3, axis=2), "mask": mask, "id": "a"}


def share(move, data, draws=300):
    """Share of crops with a pixel of class 1."""
    return np.mean([bool((move(data, np.random.default_rng(i))["mask"] == 1).any()) for i in range(draws)])


@pytest.mark.parametrize("name", ["crack", 1, "1"])
def test_the_crop_contains_the_class_with_the_given_probability(name):
    data = sample()
    assert share(Transform(crop=8), data) < 0.1
    assert share(Transform(crop=8, focus={name: 1.0}, labels=LABELS), data) == 1
    assert 0.25 < share(Transform(crop=8, focus={name: 0.33}, labels=LABELS), data) < 0.45


@pytest.mark.parametrize("place", [(0, 0), (59, 79), (30, 40)])
@pytest.mark.parametrize("options", [{}, {"mirror": 6}, {"size": (30, 40)}, {"size": (120, 160)}, {"on": "device"}])
def test_pixels_anywhere_are_in_the_crop(place, options):
    move = Transform(crop=9, focus={"crack": 1}, labels=LABELS, **options)
    data = sample()
    data["mask"][:] = 0
    rows, columns = (slice(max(0, at - 2), at + 3) for at in place)  # large enough to survive shrinking
    data["mask"][rows, columns] = 1
    if options.get("on") == "device":
        top, left, height, width = move.draw(60, 80, np.random.default_rng(0), data["mask"]).window
        assert (data["mask"][top : top + height, left : left + width] == 1).any()
    else:
        assert share(move, data, 20) == 1


def test_an_interior_pixel_is_in_the_middle():
    move = Transform(crop=9, focus={1: 1})
    out = move(sample(at=((30, 40),)), np.random.default_rng(0))["mask"]
    assert out[4, 4] == 1


def test_balanced_takes_every_class_present_and_never_the_ignored_one():
    data = sample()
    data["mask"][:, :40] = 255
    centers = [data["mask"][r + 4, c + 4] for r, c, *_ in (
        Transform(crop=8, focus="balanced", labels=LABELS).draw(60, 80, np.random.default_rng(i), data["mask"]).window
        for i in range(100))]  # fmt: skip
    assert 255 not in centers
    assert 0.3 < share(Transform(crop=8, focus="balanced", labels=LABELS), data, 100) < 0.7


def test_multilabel_masks():
    planes = np.zeros((40, 40, 3), np.uint8)
    planes[3, 37, 2] = 1
    data = {"image": np.zeros((40, 40, 3), np.uint8), "mask": planes, "id": "a"}
    assert Transform(crop=6, focus={2: 1})(data, np.random.default_rng(1))["mask"][2].any()
    assert Transform(crop=6, focus="balanced")(data, np.random.default_rng(1))["mask"][2].any()


def test_images_without_the_class_are_cropped_at_random():
    data = sample(at=())
    plain, focused = Transform(crop=8), Transform(crop=8, focus={1: 1})
    windows = {focused.draw(60, 80, np.random.default_rng(i), data["mask"]).window for i in range(9)}
    assert windows == {plain.draw(60, 80, np.random.default_rng(i)).window for i in range(9)}


def test_validation_crops_stay_in_the_center():
    move = Transform(crop=8, focus={1: 1}, train=False)
    assert move.draw(60, 80, np.random.default_rng(0), sample()["mask"]).window == (26, 36, 8, 8)


@pytest.mark.parametrize(
    "options",
    [
        {"crop": 8, "focus": {"crak": 0.5}},
        {"crop": 8, "focus": {2: 0.5}},
        {"crop": 8, "focus": {-1: 0.5}},
        {"crop": 8, "focus": {"crack": 0}},
        {"crop": 8, "focus": {"road": 0.6, "crack": 0.6}},
        {"crop": 8, "focus": {"crack": "often"}},
        {"crop": 8, "focus": "balance"},
        {"crop": 8, "focus": 0.3},
    ],
)
def test_wrong_settings(options):
    with pytest.raises(ConfigError) as caught:
        Transform(labels=LABELS, **options)
    assert caught.value.hint


def test_focus_without_crop():
    with pytest.raises(ConfigError) as caught:
        Transform(labels=LABELS, focus={"crack": 0.5})
    assert "crop" in caught.value.hint


def test_names_need_labels():
    move = Transform(crop=8, focus={"crack": 1})  # allowed: recipes are checked without data
    with pytest.raises(ConfigError):
        move(sample(), np.random.default_rng(0))
