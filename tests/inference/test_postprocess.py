"""From probabilities to classes; small regions, largest regions and holes, beside scikit-image and plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import label as regions
from skimage.morphology import flood_fill

import unetzoo
from unetzoo import METRICS
from unetzoo.bundle import ModelBundle
from unetzoo.cleaning import best_candidate, candidate_counts
from unetzoo.errors import ConfigError, UnknownNameError
from unetzoo.inference import Cleaning, Predictor
from unetzoo.inference.decide import Decision, probabilities_of
from unetzoo.inference.images import class_map
from unetzoo.labels import LabelSpec

SPEC = LabelSpec(("background", "cell", "wall"))
BINARY = LabelSpec(("background", "cell"))


def probabilities(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).softmax(-3)


def decided_by_hand(p, limits):
    """The rule in words: the most probable of the classes that pass their threshold, else of those without one."""
    found = np.zeros(p.shape[1:], np.uint8)
    for row, column in np.ndindex(*p.shape[1:]):
        here = p[:, row, column].tolist()
        passing = [c for c, limit in enumerate(limits) if limit is not None and here[c] > limit]
        rest = [c for c, limit in enumerate(limits) if limit is None]
        found[row, column] = max(passing or rest, key=lambda c: here[c])
    return found


@pytest.mark.parametrize("threshold", [None, 0.3, 0.8, {"wall": 0.2}, {"cell": 0.5, "background": 0.4}])
def test_thresholds_of_several_classes(threshold):
    p = probabilities(3, 20, 30)
    limits = {None: [None] * 3, 0.3: [None, 0.3, 0.3], 0.8: [None, 0.8, 0.8]}.get(
        threshold if not isinstance(threshold, dict) else 0,
        [threshold.get(name) for name in SPEC.names] if isinstance(threshold, dict) else None,
    )
    found = Decision.of(threshold, SPEC, 3)(p).numpy()
    assert np.array_equal(found, decided_by_hand(p.numpy(), limits))
    assert np.array_equal(Decision.of(threshold, SPEC, 3)(p[None])[0].numpy(), found)


@pytest.mark.parametrize("threshold", [0.5, 0.27, 0.9])
@pytest.mark.parametrize("channels", [1, 2])
def test_two_classes_are_decided_as_the_metric_counts_them(threshold, channels):
    logits = torch.randn(2, channels, 24, 31, generator=torch.Generator().manual_seed(1)) * 2
    metric = METRICS.build("segmentation", labels=BINARY, threshold=threshold)
    p = probabilities_of(torch.nn.Identity(), logits)
    for found in (
        Decision.of(threshold, BINARY, channels)(p),
        torch.from_numpy(np.stack([class_map(each, (threshold,)) for each in logits])),
    ):
        metric.reset()
        metric.update(logits, found.long())
        assert metric.confusion.diagonal().sum() == found.numel()


def test_thresholds_of_several_labels_per_pixel():
    p = torch.rand(3, 9, 8, generator=torch.Generator().manual_seed(0))
    limits = np.array([0.5, 0.2, 0.5])
    found = Decision.of({"cell": 0.2}, SPEC, 3, mode="multilabel")(p).numpy()
    assert np.array_equal(found, p.numpy() > limits[:, None, None])
    assert np.array_equal(Decision.of([0.5, 0.2, 0.5], SPEC, 3, mode="multilabel")(p).numpy(), found)


@pytest.mark.parametrize(
    ("threshold", "channels", "error", "says"),
    [
        ({"cel": 0.4}, 3, UnknownNameError, "did you mean 'cell'"),
        ({"background": 0.4}, 1, ConfigError, "for 'cell'"),
        (0.0, 3, ConfigError, "probability in"),
        (1.5, 1, ConfigError, "probability in"),
        ([0.1, 0.2], 3, ConfigError, "1 or 3"),
        ({"background": 0.1, "cell": 0.2, "wall": 0.3}, 3, ConfigError, "takes the rest"),
    ],
)
def test_wrong_thresholds(threshold, channels, error, says):
    with pytest.raises(error, match=says):
        Decision.of(threshold, SPEC if channels == 3 else BINARY, channels)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.integers(0, 1)))
@settings(max_examples=60, deadline=None)
def test_regions_of_one_class_as_scikit_image_finds_them(mask):
    found = regions(mask, connectivity=2)
    sizes = np.bincount(found.ravel())
    sizes[0] = 0
    large = (mask == 1) & (sizes[found] >= 4)
    assert np.array_equal(Cleaning(min_area=4).apply(mask, BINARY) == 1, large)
    largest = (mask == 1) & (found == sizes.argmax())
    assert np.array_equal(Cleaning(largest_component="cell").apply(mask, BINARY) == 1, largest)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.integers(0, 1)))
@settings(max_examples=60, deadline=None)
def test_holes_as_a_flood_from_outside_leaves_them(mask):
    framed = np.pad(mask, 1)
    flooded = flood_fill(framed, (0, 0), 9, connectivity=1)[1:-1, 1:-1]
    assert np.array_equal(Cleaning(fill_holes="all").apply(mask, BINARY), (flooded != 9).astype(np.uint8))


def test_removed_pixels_take_the_nearest_class():
    mask = np.array([
        [2, 2, 2, 2, 0, 0],
        [2, 1, 2, 2, 0, 1],
        [2, 2, 2, 2, 0, 0],
    ], np.uint8)  # fmt: skip
    cleaned = Cleaning(min_area={"cell": 2}).apply(mask, SPEC)
    assert cleaned[1, 1] == 2 and cleaned[1, 5] == 0
    assert (cleaned != mask).sum() == 2
    assert np.array_equal(Cleaning().apply(mask, SPEC), mask)
    assert not Cleaning(min_area=99).apply(np.ones((4, 4), np.uint8), BINARY).any()


def test_only_background_in_holes_is_filled():
    mask = np.ones((5, 7), np.uint8)
    mask[2, 2], mask[2, 4] = 0, 2
    filled = Cleaning(fill_holes=["cell"]).apply(mask, SPEC)
    assert filled[2, 2] == 1 and filled[2, 4] == 2


def test_planes_are_cleaned_separately():
    planes = np.zeros((3, 6, 6), np.uint8)
    planes[0, :3, :3] = 1
    planes[0, 1, 1] = 0
    planes[1, 0, 0] = planes[2, 5, 5] = 1
    cleaned = Cleaning(min_area={"wall": 2}, fill_holes="background").apply(planes, SPEC, mode="multilabel")
    assert cleaned[0, 1, 1] == 1 and cleaned[1, 0, 0] == 1 and not cleaned[2].any()


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ({"min_area": -1}, "number of pixels"),
        ({"min_area": 2.5}, "number of pixels"),
        ({"largest_component": "cel"}, "did you mean 'cell'"),
        ({"fill_holes": ["x"]}, "unknown class"),
        ({"min_area": {"x": 3}}, "unknown class"),
    ],
)
def test_wrong_cleaning(rules, says):
    with pytest.raises(ConfigError, match=says):
        Cleaning(**rules).apply(np.ones((3, 3), np.uint8), SPEC)


def test_networks_that_return_probabilities():
    class Head(torch.nn.Module):
        def __init__(self, last):
            super().__init__()
            self.segmentation_head = torch.nn.Sequential(last)

    answer = torch.tensor([[[0.2]], [[1.4]]])
    assert torch.equal(probabilities_of(Head(torch.nn.Softmax(1)), answer), answer)
    assert torch.equal(probabilities_of(Head(torch.nn.Identity()), answer), answer.softmax(0))
    assert torch.equal(probabilities_of(Head(torch.nn.Identity()), answer, mode="multilabel"), answer.sigmoid())
    assert torch.equal(probabilities_of(Head(torch.nn.Identity()), answer[:1]), answer[:1].sigmoid())


@pytest.mark.parametrize("several", [False, True])
def test_the_cleanup_with_the_best_f1_is_chosen(several):
    truth, ignored = np.zeros((40, 60), np.uint8), np.zeros((40, 60), bool)
    truth[5:25, 5:25] = 1
    predicted = truth.copy()
    predicted[30:34, 30:34] = predicted[2:5, 50:53] = 1  # removed by min_area, and by largest_component
    ignored[36:, :] = True
    predicted[36:, 40:] = 1  # does not count

    def counts(found):
        masks = [mask[None] if several else mask for mask in (found, truth)]
        return candidate_counts(*masks, ~ignored, LabelSpec(("cell",)) if several else BINARY)

    assert counts(predicted)[0].tolist() == [[400, 25, 0]]
    assert best_candidate(counts(predicted)) == Cleaning(min_area=64)
    assert best_candidate(counts(truth)) is None and best_candidate(counts(0 * truth)) is None
    holes = truth.copy()
    holes[10:20, 10:20] = 0
    assert best_candidate(counts(holes)) == Cleaning(fill_holes="all")


def test_a_network_keeps_its_cleanup(tmp_path):
    net = unetzoo.build("bnunet", encoder_channels=(4, 8, 8)).eval()
    preprocess = unetzoo.Preprocess(normalize="unit")
    ModelBundle(net, BINARY, preprocess, cleaning=Cleaning(min_area={"cell": 10**6}, fill_holes=["cell"])).attach()
    net.save_pretrained(tmp_path)
    image = np.random.default_rng(0).integers(0, 255, (32, 48, 3)).astype(np.uint8)
    raw = Predictor(net, cleaning=Cleaning()).segment(image).label_map
    assert raw.any() and not unetzoo.load(tmp_path).predict(image).label_map.any()
    made = unetzoo.export(unetzoo.load(tmp_path), tmp_path / "net.pt2", size=(32, 48), verify=False)
    assert not Predictor(unetzoo.load(made.path)).segment(image).label_map.any()
