"""Every recipe for data on disk trains on tiny data in the official layout."""

import json

import layouts
import pytest

from unetzoo.training import train

SYSTEMS = {
    "helen": lambda root: layouts.helen(root, count=5, tests=1),
    "celebamask-eyes-lips": lambda root: layouts.celebamask(root, ids=range(6)),
    "unet-cityscapes": layouts.cityscapes,
    "r2unet-cityscapes": layouts.cityscapes,
    "ddunet-cityscapes": layouts.cityscapes,
    "carvana": lambda root: layouts.carvana(root, cars=4, views=2),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_recipe_trains_an_epoch(name, tmp_path):
    root = SYSTEMS[name](tmp_path / "data")
    size = "[20, 30]" if name == "carvana" else "16"
    sets = [f"data.root={root}", f"transform.size={size}", "model.encoder_channels=[4, 8, 8]"]
    result = train(name, [*sets, "train.epochs=1", "train.batch_size=2"], out=tmp_path / "run", progress=False)
    monitor = json.loads((tmp_path / "run" / "recipe.json").read_text())["train"]["monitor"]
    assert 0 <= result.scores[monitor] <= 1
    assert (tmp_path / "run" / "best").exists() and list((tmp_path / "run" / "predictions").iterdir())


def test_the_composites_recipe_trains_an_epoch_on_drawn_pictures(tmp_path):
    sets = ["data.size=32", "data.train.length=8", "data.val.length=4", "model.encoder_channels=[4, 8, 8]"]
    result = train("eva-mask-depth", [*sets, "train.epochs=1"], out=tmp_path / "run", progress=False)
    assert {"iou/foreground", "depth/rmse", "depth/delta1", "val/depth/ssim"} <= set(result.scores)
    assert "iou/foreground" in result.baseline
