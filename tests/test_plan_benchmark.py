"""benchmarks.plans divides data without overlap; every method trains, and is scored on images it has not seen."""

import numpy as np
import pytest
from PIL import Image

from benchmarks import plans
from unetzoo import planning


def drawn(root, count, value=255):
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for n in range(count):
        mask = np.zeros((64, 64), np.uint8)
        top, left = rng.integers(0, 40, 2)
        mask[top : top + 20, left : left + 20] = value
        image = np.stack([mask // 2 + rng.integers(0, 60, mask.shape, np.uint8)] * 3, -1)
        Image.fromarray(image).save(root / "images" / f"{n:02d}.png")
        Image.fromarray(mask).save(root / "masks" / f"{n:02d}.png")
    return plans.pairs(root / "images", root / "masks")


def test_blocks_keep_their_order_and_share_nothing():
    found = [(n, n) for n in range(10)]
    assert plans.ordered(found, 2, 3) == {"train": found[:5], "val": found[5:7], "test": found[7:]}


def test_every_kind_is_in_every_part(tmp_path):
    found = drawn(tmp_path, 25)
    kinds = {f"{n:02d}": "rare" if n % 5 == 0 else "common" for n in range(25)}
    parts = plans.stratified(found, kinds)
    assert sorted(parts["train"] + parts["val"] + parts["test"]) == found
    for part, count in (("train", 15), ("val", 5), ("test", 5)):
        assert len(parts[part]) == count
        assert {kinds[image.stem] for image, _ in parts[part]} == {"rare", "common"}
    assert sorted(parts["test-rare"] + parts["test-common"]) == sorted(parts["test"])


@pytest.mark.parametrize(
    ("method", "recipe"),
    [("plan", None), ("hand", None), ("hand", plans.DATA["cars"].recipe), ("smp", None), ("milesial", None)],
)
def test_methods_are_scored_on_kept_images(tmp_path, monkeypatch, method, recipe):
    monkeypatch.setattr(planning.machine, "SIDES", (16, 32))
    found = drawn(tmp_path / "source", 12)
    data = plans.Data(
        "source", lambda root: plans.ordered(found, 2, 2), lambda pair: plans._values(pair[1]) > 0,
        ("background", "square"), "iou/square", recipe, ("train.monitor=iou/square",),
    )  # fmt: skip
    plans.write(data, tmp_path / "source", tmp_path / "parts")
    row = plans.METHODS[method](data, tmp_path / "parts", 0.01, 0)
    assert set(row["scores"]) == {"test"}
    assert 0 <= row["scores"]["test"]["f1/square"] <= 1
