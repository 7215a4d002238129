"""Every shipped recipe trains: those for data on disk on a drawn miniature of the official layout."""

import json

import pytest

from unetzoo import RECIPES
from unetzoo.training import train
from unetzoo.twins import LAYOUTS, write

TWINS = {
    "helen": "helen",
    "celebamask-eyes-lips": "celebamask",
    "unet-cityscapes": "cityscapes",
    "r2unet-cityscapes": "cityscapes",
    "ddunet-cityscapes": "cityscapes",
    "carvana": "carvana",
    "isbi2012": "isbi2012",
    "eva-mask-depth": "composites",
    "nuclei": "dsb2018",
}
SIZES = {
    "nuclei": ["transform.train.crop=16"],
    "carvana": ["transform.size=[20, 30]"],
    "isbi2012": ["transform.train.crop=60", "transform.train.mirror=16"],
    "eva-mask-depth": ["data.size=32", "data.train.length=8", "data.val.length=4"],
}


@pytest.mark.parametrize("name", TWINS)
def test_a_recipe_trains_an_epoch_on_its_twin(name, tmp_path):
    layout = LAYOUTS[TWINS[name]]
    root = write(TWINS[name], tmp_path / "data", count=layout.least, size=64 if layout.gray else 32)
    sets = [f"data.root={root}", *SIZES.get(name, ["transform.size=16"]), "model.encoder_channels=[4, 8, 8]"]
    result = train(name, [*sets, "train.epochs=1", "train.batch_size=2"], out=tmp_path / "run", progress=False)
    monitor = json.loads((tmp_path / "run" / "recipe.json").read_text())["train"]["monitor"]
    assert 0 <= result.scores[monitor] <= 1
    assert (tmp_path / "run" / "best").exists() and list((tmp_path / "run" / "predictions").iterdir())


def test_every_recipe_but_the_demo_has_a_twin():
    assert set(TWINS) == set(RECIPES.names()) - {"demo"}
    assert {LAYOUTS[layout].recipe for layout in TWINS.values()} <= set(TWINS)


def test_the_composites_recipe_trains_an_epoch_on_drawn_images(tmp_path):
    sets = ["data.size=32", "data.train.length=8", "data.val.length=4", "model.encoder_channels=[4, 8, 8]"]
    result = train("eva-mask-depth", [*sets, "train.epochs=1"], out=tmp_path / "run", progress=False)
    assert {"iou/foreground", "depth/rmse", "depth/delta1", "val/depth/ssim"} <= set(result.scores)
    assert "iou/foreground" in result.baseline
