"""Parts of the audit, compared with independent computations."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from unetzoo.doctor.alignment import inverted, swapped_pairs
from unetzoo.doctor.facts import MaskFacts
from unetzoo.doctor.probe import border_map, count_numbers, roughness
from unetzoo.doctor.propose import declaration, proposals

MASKS = arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 4))


class TestParts:
    @given(MASKS)
    @settings(max_examples=100, deadline=None)
    def test_roughness_equals_a_count_line_by_line(self, mask):
        changes = between = astray = 0
        for line in [*mask.tolist(), *mask.T.tolist()]:
            changes += sum(a != b for a, b in pairwise(line))
            for a, b, c in zip(line, line[1:], line[2:], strict=False):
                between += a < b < c or a > b > c
                astray += (b > a and b > c) or (b < a and b < c)
        assert tuple(roughness(mask)) == (changes, between, astray)

    @given(MASKS)
    @settings(max_examples=50, deadline=None)
    def test_numbers_are_counted_as_numpy_counts_them(self, mask):
        for array in (mask, mask.astype(np.uint16) * 257, mask.astype(np.int64) - 2):
            values, counts = np.unique(array, return_counts=True)
            assert count_numbers(array) == dict(zip(values.tolist(), counts.tolist(), strict=True))

    def test_borders_are_the_morphological_gradient_of_the_labels(self):
        mask = np.kron(np.random.default_rng(0).integers(0, 3, (16, 16)), np.ones((8, 8), int)).astype(np.uint8)
        cross = ndimage.generate_binary_structure(2, 1)
        gradient = ndimage.morphological_gradient(mask, footprint=cross, mode="nearest") > 0
        share = gradient.reshape(64, 2, 64, 2).mean(axis=(1, 3))
        assert np.abs(border_map(mask) - np.minimum(share * 255, 127)).max() <= 1

    def test_an_unlabeled_outline_is_the_border(self):
        mask = np.zeros((64, 64), np.uint8)
        mask[20:40, 20:40] = 1
        outlined = mask.copy()
        outlined[ndimage.morphological_gradient(mask, 3) > 0] = 255
        found = border_map(outlined, outlined == 255) > 0
        assert np.array_equal(found, outlined == 255)

    @given(st.integers(6, 30), st.integers(0, 10**6))
    @settings(max_examples=60, deadline=None)
    def test_swapped_masks_are_found(self, count, seed):
        rng = np.random.default_rng(seed)
        fits = rng.normal(0.1, 0.03, (count, count)) + np.diag(rng.uniform(0.4, 0.6, count))
        assert swapped_pairs(fits) == []
        i, j = sorted(rng.choice(count, 2, replace=False).tolist())
        order = np.arange(count)
        order[[i, j]] = j, i
        assert swapped_pairs(fits[:, order]) == [(i, j)]

    def test_masks_that_fit_no_image_are_not_reported_as_swapped(self):
        assert swapped_pairs(np.random.default_rng(0).normal(0, 0.3, (40, 40))) == []

    @given(st.integers(5, 40), st.integers(0, 10**6))
    @settings(max_examples=60, deadline=None)
    def test_inverted_masks_are_found(self, count, seed):
        rng = np.random.default_rng(seed)
        rows = np.clip(rng.normal(0.2, 0.05, (count, 67)), 0, 1)
        assert not inverted(rows).any()
        turned = int(rng.integers(count))
        rows[turned] = 1 - rows[turned]
        assert np.flatnonzero(inverted(rows)).tolist() == [turned]

    @pytest.mark.parametrize(
        ("values", "arguments"),
        [
            ((0, 255), {"names": ["background", "foreground"], "ids": [0, 255]}),
            ((0, 1), {"classes": 2}),
            ((0, 1, 2, 255), {"classes": 3, "ignore_ids": [255], "ignore_index": 255}),
            ((0, 1, 3), {"classes": 4}),
            ((0, 80, 160, 240), {"classes": 4, "ids": [0, 80, 160, 240]}),
            ((7,), None),
            ((), None),
        ],
    )
    def test_a_proposal_declares_the_values_found(self, values, arguments):
        masks = [MaskFacts("a", counts=dict.fromkeys(values, 10)), MaskFacts("b", counts=dict.fromkeys(values[:1], 10))]
        assert proposals(masks) == ([] if arguments is None else [arguments])
        if arguments:
            known = declaration(arguments).labels
            assert known is not None and set(values) <= set(known.lookup())

    def test_a_stray_number_in_one_mask_of_many_is_not_proposed(self):
        masks = [MaskFacts(str(i), counts={0: 5, 1: 5, 2: 5}) for i in range(9)]
        masks.append(MaskFacts("odd", counts={0: 5, 200: 1}))
        assert proposals(masks) == [{"classes": 3}]
