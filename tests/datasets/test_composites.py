"""Composites: their contents, blending and order."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from composing import same
from torch.utils.data import DataLoader

from unetzoo.datasets import Composites, Transform
from unetzoo.datasets.blending import Cutout, disturb, shift
from unetzoo.datasets.drawing import foreground
from unetzoo.datasets.scenery import background
from unetzoo.errors import ConfigError

SMALL = {"size": 48, "foregrounds": 20, "backgrounds": 20}


def parts_of(sample):
    """(foreground, background) parsed from the id of a sample."""
    _, fg, bg = sample["id"].split("-")
    return int(fg[2:]), int(bg[2:])


@pytest.fixture(scope="module")
def plain():
    return Composites(**SMALL)


def test_contract(plain):
    sample = plain[3]
    assert sample["image"].shape == (48, 48, 6) and sample["image"].dtype == np.uint8
    assert sample["mask"].dtype == np.uint8 and sample["depth"].dtype == np.float32 and isinstance(sample["id"], str)
    assert plain.labels.names == ("background", "foreground") and len(plain) == 1000
    assert Composites(channels=3, **SMALL)[3]["image"].shape == (48, 48, 3)
    assert (Composites(channels=3, **SMALL)[3]["image"] == sample["image"][..., :3]).all()


@pytest.mark.parametrize("jitter", [False, True])
def test_deterministic_in_any_order(jitter):
    state = np.random.get_state()[1].tolist()
    first, second = Composites(jitter=jitter, **SMALL), Composites(jitter=jitter, **SMALL)
    forward = [first[i] for i in range(6)]
    assert all(same(second[i], forward[i]) for i in reversed(range(6)))
    assert same(pickle.loads(pickle.dumps(first))[4], forward[4])
    assert len(pickle.dumps(first)) < 5000
    assert not same(Composites(seed=1, jitter=jitter, **SMALL)[4], forward[4])
    assert np.random.get_state()[1].tolist() == state


def test_samples_do_not_share_memory(plain):
    before = plain[5]
    plain[5]["image"][:] = 0
    assert same(plain[5], before)


def test_splits_share_no_identity():
    sets = {}
    for split, seed in (("train", 0), ("val", 1), ("test", 2)):
        data = Composites(split=split, seed=seed, length=200, **SMALL)
        seen = [parts_of(data[i]) for i in range(200)]
        sets[split] = {f for f, _ in seen}, {b for _, b in seen}
        assert sets[split] == (set(data.foregrounds), set(data.backgrounds))
    for kind in (0, 1):
        assert len(set.union(*(s[kind] for s in sets.values()))) == sum(len(s[kind]) for s in sets.values()) == 20
    assert set(Composites(split="val", size=48).foregrounds) & set(Composites(**SMALL).foregrounds) == set()


def test_identities_look_different():
    images = [foreground(i, 48) for i in range(20)]
    assert len({p.tobytes() for p in images}) == 20
    assert len({background(i, 32)[0].tobytes() for i in range(10)}) == 10


@pytest.mark.parametrize("positions", ["random", "grid"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_against_float_compositing(positions, split):
    """Image, mask and depth, recomputed from the drawn sources by trying every position."""
    data = Composites(split=split, positions=positions, **SMALL)
    for i in range(8):
        sample = data[i]
        fg, bg = parts_of(sample)
        rgba, (scene, rows) = foreground(fg, 48).astype(np.float64), background(bg, 48)
        assert (sample["image"][..., 3:] == scene).all()
        matches = 0
        for cut in (rgba, rgba[:, ::-1]):
            for top, left in places(sample["mask"], cut, positions):
                image, alpha = scene.astype(np.float64), np.zeros((48, 48))
                h, w = min(cut.shape[0], 48 - top), min(cut.shape[1], 48 - left)
                a = cut[:h, :w, 3:] / 255
                window = slice(top, top + h), slice(left, left + w)
                image[window] = cut[:h, :w, :3] * a + image[window] * (1 - a)
                alpha[window] = a[..., 0]
                depth = np.where(alpha >= 0.5, np.float32(0.75) * rows[top + h - 1], rows[:, None])
                exact = np.abs(np.rint(image) - sample["image"][..., :3]).max() == 0
                if exact and ((alpha >= 0.5) == sample["mask"]).all() and (depth == sample["depth"]).all():
                    matches += 1
        assert matches >= 1


def places(mask, cut, positions):
    """Where the cut-out's corner may be."""
    if positions == "grid":
        return [(7 * r, 7 * c) for r in range(1, 5) for c in range(5)]  # 28 · 48 / 192
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    inner = cut[..., 3] >= 127.5
    return [(rows[0] - np.flatnonzero(inner.any(1))[0], columns[0] - np.flatnonzero(inner.any(0))[0])]


def test_integer_blending_is_exactly_rounded():
    values = np.arange(256, dtype=np.uint8)
    for alpha in range(0, 256, 5):
        rgba = np.zeros((256, 1, 4), np.uint8)
        rgba[..., :3], rgba[..., 3] = values[:, None, None], alpha
        ready = Cutout.from_rgba(rgba)
        for below in (0, 1, 100, 254, 255):
            blend = np.full((256, 1, 3), below, np.uint8) * ready.inverse + ready.premultiplied
            blend = (blend + (blend >> 8)) >> 8
            truth = np.floor((values * float(alpha) + below * (255.0 - alpha)) / 255 + 0.5)
            assert (blend[:, 0, 0] == truth).all()


def test_depth_is_in_range_and_the_foreground_nearer(plain):
    for i in range(20):
        sample = plain[i]
        depth, mask = sample["depth"], sample["mask"].astype(bool)
        rows = background(parts_of(sample)[1], 48)[1]
        assert 0.3 - 1e-6 <= depth.min() and depth.max() <= 1
        assert np.unique(depth[mask]).size == 1
        assert (depth[mask] < np.broadcast_to(rows[:, None], depth.shape)[mask]).all()
        assert (depth[~mask] == np.broadcast_to(rows[:, None], depth.shape)[~mask]).all()


def test_coverage_and_grid():
    coverage = [Composites(split="all", size=64)[i]["mask"].mean() for i in range(30)]
    assert min(coverage) > 0.05 and max(coverage) < 0.25
    grid = Composites(positions="grid", size=192)
    places = {grid._place((10, 10), u, v) for u in np.linspace(0, 0.999, 9) for v in np.linspace(0, 0.999, 11)}
    assert places == {(28 * r, 28 * c) for r in range(1, 5) for c in range(5)}
    assert all(grid[i]["mask"].any() for i in range(5))


def test_endless():
    data, counted = Composites(length="endless", **SMALL), Composites(length=2000, **SMALL)
    assert len(data) == 16 * 16 and data[10**12]["id"].startswith("1000000000000-")
    assert all(same(data[i], counted[i]) for i in (0, 255, 256, 1999))
    with pytest.raises(IndexError):
        counted[2000]
    with pytest.raises(IndexError):
        data[-257]
    moved = Composites(length="endless", transform=Transform(hflip=0.5), **SMALL)
    assert torch.equal(moved[999]["image"], moved[999]["image"]) and "endless" in repr(data)


@pytest.mark.parametrize("flip", [True, False])
def test_every_combination_once(flip):
    data = Composites("val", 32, "all", positions="grid", flip=flip, foregrounds=30, backgrounds=20)
    assert len(data) == 3 * 2 * 20 * (1 + flip)
    found = [data.combination(i) for i in range(len(data))]
    step = 28 * 32 / 192
    truth = {(f, b, m, round(step * r), round(step * c)) for f in (8, 18, 28) for b in (8, 18)
             for m in (False, True)[: 1 + flip] for r in (1, 2, 3, 4) for c in range(5)}  # fmt: skip
    assert len(found) == len(set(found)) and {tuple(one) for one in found} == truth
    stems = [data.stem(i) for i in range(len(data))]
    assert len(set(stems)) == len(stems) and stems[4] == "fg008_bg008_05"
    assert found[4] == (8, 8, False, round(4 * step), round(4 * step))  # the original counts from its lowest row
    assert not flip or stems[-1] == "fg028flip_bg018_20"
    sample = data[4]
    rgba = foreground(8, 32)[: 32 - found[4].top, : 32 - found[4].left]
    mask = np.zeros((32, 32), bool)
    mask[found[4].top :, found[4].left :][: rgba.shape[0], : rgba.shape[1]] = rgba[..., 3] >= 128
    assert (sample["mask"] == mask).all() and mask.any()
    jittered = Composites("val", 32, "all", positions="grid", jitter=True, foregrounds=30, backgrounds=20)
    assert same(jittered[7], jittered[7]) and not same(jittered[7], data[7])


def test_flip():
    both = Composites(flip=True, **SMALL)
    never = Composites(flip=False, **SMALL)
    changed = [not same(both[i], never[i]) for i in range(40)]
    assert 8 < sum(changed) < 32


def test_jitter_disturbs_the_two_apart(plain):
    jittered = Composites(jitter=True, **SMALL)
    offsets = []
    for i in range(12):
        clean, sample = plain[i], jittered[i]
        outside = ~clean["mask"].astype(bool)
        difference = np.abs(sample["image"][..., :3].astype(int) - sample["image"][..., 3:])[outside]
        assert difference.mean() > 0.5 and np.abs(sample["image"].astype(int) - clean["image"]).mean() > 0.5
        found = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)
                 if (shift(clean["mask"], dy, dx) == sample["mask"]).all()
                 and (shift(clean["depth"], dy, dx) == sample["depth"]).all()]  # fmt: skip
        assert len(found) >= 1
        offsets += found
    assert len(set(offsets)) > 3


def test_jittered_shift_is_the_images():
    """With light and JPEG out of the way, composite and mask move as one."""

    class Calm:
        def __init__(self, offsets):
            self.offsets = offsets

        def integers(self, low, high, size=None):
            return 95 if size is None else np.array(self.offsets.pop(0))

        def uniform(self, low, high):
            return (low + high) / 2

    s = Composites(**SMALL)[0]
    bare = {**s, "image": s["image"][..., :3]}
    moved = disturb(bare, Calm([(1, -1), (-1, 0)]), s["image"][..., 3:])  # type: ignore[arg-type]
    image, mask, depth = moved["image"], moved["mask"], moved["depth"]
    assert (mask == shift(s["mask"], 1, -1)).all() and (depth == shift(s["depth"], 1, -1)).all()
    for start, offset in ((0, (1, -1)), (3, (-1, 0))):
        errors = {(dy, dx): np.abs(shift(s["image"][..., start : start + 3], dy, dx) - image[..., start : start + 3]
                                   .astype(float)).mean() for dy in (-1, 0, 1) for dx in (-1, 0, 1)}  # fmt: skip
        assert min(errors, key=errors.__getitem__) == offset


@pytest.mark.parametrize(
    "wrong",
    [{"split": "vall"}, {"size": 8}, {"size": 10**6},
     {"length": -1}, {"seed": -1}, {"channels": 4}, {"positions": "line"},
     {"foregrounds": 0}, {"split": "val", "backgrounds": 5}, {"length": "every"}, {"length": "all"}, {"length": True},
     {"depth": "depth"}, {"depth_gaps": True}, {"depth_scale": 0.1}],
)  # fmt: skip
def test_arguments(wrong):
    with pytest.raises(ConfigError):
        Composites(**wrong)


@pytest.mark.parametrize("workers", [0, 2])
def test_loader(workers):
    data = Composites(length=6, transform=Transform(hflip=0.5, normalize="unit"), jitter=True, **SMALL)
    context = "fork" if workers else None
    batches = list(DataLoader(data, batch_size=3, num_workers=workers, multiprocessing_context=context))  # type: ignore[arg-type]
    assert batches[0]["image"].shape == (3, 6, 48, 48) and batches[0]["depth"].shape == (3, 1, 48, 48)
    for i, row in enumerate(torch.cat([b["image"] for b in batches])):
        assert torch.equal(row, data[i]["image"])


def test_baseline_is_the_thresholded_difference():
    data = Composites(split="val", size=32, length=4)
    for sample in data:
        predicted, mask = data.baseline(sample), sample["mask"] > 0
        assert predicted.shape == mask.shape
        assert (predicted & mask).sum() / (predicted | mask).sum() > 0.6  # without jitter it nearly is the mask
    assert Composites(size=32, channels=3).baseline(data[0]) is None
