"""Training on images with a declared range that does not fit them."""

import pytest
from many_channels import draw

import unetzoo
from unetzoo import training
from unetzoo.datasets import Folder, statistics
from unetzoo.errors import DataError


def run(root, high=None, more=(), **options):
    limits = '"percentile"' if high is None else f"[0, {high}]"
    sets = [
        'model={name="bnunet", in_channels=5, classes=1, encoder_channels=[4, 4, 8]}',
        f'data={{name="folder", root="{root}", names=["background", "cell"], ids=[0, 255], channels=5, '
        f"range={limits}}}",
        'transform={normalize="standard"}', "loss={bce=1.0}", 'metrics={mask={name="segmentation"}}',
        "train.epochs=1", "train.monitor=iou/cell", "train.batch_size=2", "train.workers=0", *more,
    ]  # fmt: skip
    return training.train("demo", sets, out=root / "run", progress=False, **options)


@pytest.mark.parametrize("sets", [[], ["data.cache=true"], ["data.repeat=2"]], ids=str)
def test_a_range_that_clips_is_a_warning_with_the_share_and_a_range(tmp_path, monkeypatch, sets):
    monkeypatch.setenv("UNETZOO_CACHE", str(tmp_path / "cache"))
    with pytest.warns(UserWarning, match="25.0%") as caught:
        run(draw(tmp_path), 1000, more=sets)
    (text,) = (str(warning.message) for warning in caught if "25.0%" in str(warning.message))
    assert " to 2999" in text and "range = [" in text


def test_a_range_that_clips_everything_is_refused_before_the_run(tmp_path):
    with pytest.raises(DataError) as caught:
        run(draw(tmp_path), 50)
    assert all(range in caught.value.hint for range in ("percentile", "data.range = ["))
    assert not (tmp_path / "run").exists()


def test_percentiles_of_the_training_images_are_computed_and_recorded(tmp_path):
    run(draw(tmp_path))
    recorded = training.recipe.recorded(tmp_path / "run").data.of("train")
    known = Folder(**recorded | {"range": "percentile"})
    assert recorded["range"] == [list(pair) for pair in statistics(known).range]
    assert unetzoo.load(tmp_path / "run").pixels.range == statistics(known).range
    run(tmp_path, resume=True)
