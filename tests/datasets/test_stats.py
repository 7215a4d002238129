"""Statistics against NumPy on everything at once, in any order and division."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from refusals import refused

from unetzoo.datasets import Composites, SegmentationDataset, Transform, statistics
from unetzoo.datasets.tally import Moments, Tally
from unetzoo.errors import ConfigError, DataError, ImageDecodeError
from unetzoo.labels import LabelSpec

SMALL = {"size": 32, "foregrounds": 10, "backgrounds": 10}


class Made(SegmentationDataset):
    """Samples from a list."""

    def __init__(self, samples, labels=None, **attributes):
        super().__init__(labels=labels or LabelSpec(("background", "thing")))
        self.samples = samples
        self.__dict__.update(attributes)

    def __len__(self):
        return len(self.samples)

    def load(self, index):
        if isinstance(self.samples[index], Exception):
            raise self.samples[index]
        return self.samples[index]


def image(rng, height, width, channels=3):
    return rng.integers(0, 256, (height, width, channels), np.uint8)


def test_against_numpy_on_everything_at_once():
    rng = np.random.default_rng(0)
    samples = []
    for height, width in ((7, 5), (30, 20), (1, 1), (12, 40)):
        depth = rng.normal(1000, 0.1, (height, width)).astype(np.float32)
        valid = rng.random((height, width)) < 0.7
        depth[~valid] = np.nan
        mask = rng.integers(0, 4, (height, width)).astype(np.uint8)
        mask[mask == 3] = 255
        samples.append({"image": image(rng, height, width), "mask": mask, "depth": depth, "valid": valid, "id": "a"})
    labels = LabelSpec(("sky", "sea", "ship"), ignore_ids=(255,), ignore_index=255)
    found = statistics(Made(samples, labels))
    pixels = np.concatenate([s["image"].reshape(-1, 3) for s in samples]).astype(np.float64) / 255
    for channel, values, name in zip(found.image, pixels.T, ("red", "green", "blue"), strict=True):
        assert channel.name == f"image {name}" and channel.count == values.size
        assert channel.mean == pytest.approx(values.mean(), abs=1e-15)
        assert channel.std == pytest.approx(values.std(), abs=1e-15)
        assert (channel.minimum, channel.maximum) == (values.min(), values.max())
    depth = np.concatenate([s["depth"][s["valid"]] for s in samples]).astype(np.float64)
    assert found.depth.count == depth.size and found.depth.mean == pytest.approx(depth.mean(), rel=1e-13)
    assert found.depth.std == pytest.approx(depth.std(), rel=1e-9)  # a thousand times smaller than the mean
    assert (found.depth.minimum, found.depth.maximum) == (depth.min(), depth.max())
    masks = np.concatenate([s["mask"].ravel() for s in samples])
    assert found.classes == {name: (masks == value).mean() for name, value in
                             (("sky", 0), ("sea", 1), ("ship", 2), ("ignored", 255))}  # fmt: skip
    assert found.samples == 4 and json.loads(json.dumps(found.to_dict()))["depth"]["count"] == depth.size


def test_eight_bits_are_exact():
    """No rounding may gather: a huge mean beside a tiny deviation, by hand."""
    image = np.full((1000, 1000, 1), 254, np.uint8)
    image[0, 0, 0] = 255
    found = statistics(Made([{"image": image, "id": "a"}] * 3)).image[0]
    share = 1 / 10**6
    assert found.name == "image" and found.count == 3 * 10**6
    assert found.mean == (254 + share) / 255
    assert found.std == pytest.approx(math.sqrt(share * (1 - share)) / 255, rel=1e-15)


def test_order_and_processes_change_no_bit():
    data = Composites(**SMALL, length=70)
    once = statistics(data)
    counts = []
    assert statistics(data, workers=2, tell=counts.append) == once and sum(counts) == 70
    backwards = statistics(Made([data[i] for i in reversed(range(70))], data.labels, image_kinds=data.image_kinds))
    assert backwards.image == once.image and backwards.classes == once.classes
    assert backwards.depth.mean == pytest.approx(once.depth.mean, rel=1e-14)


@settings(max_examples=60, deadline=None)
@given(st.lists(hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(2))), min_size=1,
                max_size=8), st.randoms(), st.data())  # fmt: skip
def test_any_order_and_division_of_images(arrays, random, data):
    random.shuffle(arrays)
    parts = []
    for array in arrays:
        if not parts or data.draw(st.booleans()):
            parts.append(Tally())
        parts[-1].add({"image": array})
    random.shuffle(parts)
    total = Tally()
    for part in parts:
        total.merge(part)
    pixels = np.concatenate([array.reshape(-1, 2) for array in arrays]) / 255
    for summary, values in zip(total.image(("a", "b")), pixels.T, strict=True):
        assert summary.mean == pytest.approx(values.mean(), abs=1e-14)
        assert summary.std == pytest.approx(values.std(), abs=1e-14)


FLOATS = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(FLOATS, max_size=20), min_size=1, max_size=8), st.randoms())
def test_any_order_and_division_of_moments(lists, random):
    parts = [Moments.of(np.array(values)) for values in lists]
    while len(parts) > 1:
        a, b = (parts.pop(random.randrange(len(parts))) for _ in range(2))
        parts.append(a.merged(b))
    values, merged = np.array([value for values in lists for value in values]), parts[0]
    assert merged.count == values.size
    if not values.size:
        assert math.isnan(merged.summary("x").mean)
        return
    scale = max(np.abs(values).max(), 1e-30)
    assert merged.mean == pytest.approx(values.mean(), abs=1e-14 * scale)
    assert merged.summary("x").std == pytest.approx(values.std(), abs=3e-8 * scale, rel=1e-9)
    assert (merged.minimum, merged.maximum) == (values.min(), values.max())


def test_after_a_transform():
    data = Composites(**SMALL, length=10)
    raw = statistics(data)
    data.transform = Transform(normalize={"mean": raw.normalize["mean"], "std": raw.normalize["std"]}, train=False)
    found = statistics(data)
    for channel in found.image:
        assert channel.mean == pytest.approx(0, abs=1e-5) and channel.std == pytest.approx(1, abs=1e-5)
    assert found.classes == raw.classes and found.depth.mean == pytest.approx(raw.depth.mean, rel=1e-12)


def test_names_and_the_recipe_line():
    found = statistics(Composites(**SMALL, length=5))
    assert [channel.name for channel in found.image] == [
        f"{kind} {color}" for kind in ("fg_bg", "bg") for color in ("red", "green", "blue")
    ]
    import tomllib

    table = tomllib.loads(found.recipe_line)
    assert table["normalize"] == found.normalize
    Transform(**table)
    flat = statistics(Made([{"image": np.full((4, 4, 2), 51, np.uint8), "id": "a"}]))
    assert flat.normalize == {"mean": [0.2, 0.2], "std": [1.0, 1.0]} and flat.image[1].std == 0
    assert [channel.name for channel in flat.image] == ["image 0", "image 1"]
    assert flat.classes == {} and flat.depth is None


def test_multilabel_masks():
    mask = np.zeros((2, 4, 4), np.int64)
    mask[1, :2] = 1
    found = statistics(Made([{"image": np.zeros((4, 4, 3), np.uint8), "mask": mask, "id": "a"}]))
    assert found.classes == {"background": 0, "thing": 0.5}


def test_limit_is_spread_evenly():
    data = Made([{"image": np.full((1, 1, 1), i, np.uint8), "id": str(i)} for i in range(100)])
    found = statistics(data, limit=4)
    assert found.samples == 4 and found.image[0].mean == pytest.approx(np.mean([0, 25, 50, 75]) / 255)
    assert statistics(data, limit=1000).samples == 100
    for limit in (0, 1.5):
        with pytest.raises(ConfigError, match="limit"):
            statistics(data, limit=limit)


def test_faults():
    good = {"image": np.zeros((4, 4, 3), np.uint8), "id": "good"}
    for bad, says in (
        ({**good, "image": np.zeros((4, 4, 1), np.uint8)}, "3 8-bit and 1 8-bit"),
        ({**good, "image": np.zeros((4, 4, 3), np.float32)}, "3 8-bit and 3 float"),
        ({**good, "image": np.zeros((4, 4), np.uint8)}, "not an image: good"),
        ({"id": "none"}, "not an image: none"),
        ({**good, "image": np.full((4, 4, 3), np.nan)}, "NaN"),
        ({**good, "depth": np.full((4, 4), np.inf, np.float32)}, "not finite: good"),
        (KeyError("lost"), r"Made\[20\].*KeyError"),
        (DataError("broken", subject="here"), "broken: here"),
    ):
        with pytest.raises(DataError, match=says):
            statistics(Made([good] * 20 + [bad]))
    with pytest.raises(DataError, match="no samples"):
        statistics(Made([]))


def test_errors_of_processes_keep_their_parts(tmp_path):
    for i in range(10):
        for kind, mode in (("fg", "RGBA"), ("bg", "RGB")):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.new(mode, (20, 20), "white").save(tmp_path / kind / f"{i}.png")
    data = Composites("all", 32, 40, root=tmp_path)
    (tmp_path / "bg" / "7.png").write_bytes(b"no image")
    with refused(ImageDecodeError, subject="7.png") as caught:
        statistics(data, workers=2)
    assert caught.value.hint
