"""Training on images with a declared range that does not fit them."""

import pytest
from many_channels import draw

from unetzoo import training
from unetzoo.errors import DataError


def run(root, high, **options):
    sets = [
        'model={name="bnunet", in_channels=5, classes=1, encoder_channels=[4, 4, 8]}',
        f'data={{name="folder", root="{root}", names=["background", "cell"], ids=[0, 255], channels=5, '
        f"range=[0, {high}]}}",
        'transform={normalize="standard"}', "loss={bce=1.0}", 'metrics={mask={name="segmentation"}}',
        "train.epochs=1", "train.monitor=iou/cell", "train.batch_size=2", "train.workers=0",
    ]  # fmt: skip
    return training.train("demo", sets, out=root / "run", progress=False, **options)


def test_a_range_that_clips_is_a_warning_with_the_share(tmp_path):
    with pytest.warns(UserWarning, match="25.0%"):
        run(draw(tmp_path), 1000)


def test_a_range_that_clips_everything_is_refused_before_the_run(tmp_path):
    with pytest.raises(DataError) as caught:
        run(draw(tmp_path), 50)
    assert "stats" in caught.value.hint and not (tmp_path / "run").exists()
