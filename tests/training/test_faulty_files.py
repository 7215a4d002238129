"""Files that turn out to be faulty while a run trains on them."""

import shlex

import numpy as np
import pytest
from PIL import Image

from unetzoo import training
from unetzoo.errors import DataError, LabelRangeError

RECIPE = """
[model]
name = "bnunet"
classes = 2
encoder_channels = [4, 8, 8]
[data]
name = "folder"
root = {root!r}
classes = 2
[data.train]
split = {train!r}
[data.val]
split = {val!r}
[loss]
ce = 1.0
[metrics.mask]
name = "segmentation"
[train]
epochs = {epochs}
batch_size = 1
"""


@pytest.fixture
def start(tmp_path):
    """Train on a folder in which one mask of the given split has an undeclared value."""

    def run(faulty, **options):
        root = tmp_path / "my data"
        for split in ("train", "val"):
            for kind in ("images", "masks"):
                (root / split / kind).mkdir(parents=True, exist_ok=True)
            for i in range(8):
                mask = np.full((16, 16), i % 2, np.uint8)
                mask[0, 0] = 7 if split == faulty and i == 5 else 0
                Image.new("RGB", (16, 16), (30 * i, 0, 0)).save(root / split / "images" / f"{i}.png")
                Image.fromarray(mask).save(root / split / "masks" / f"{i}.png")
        recipe = tmp_path / "recipe.toml"
        recipe.write_text(RECIPE.format(root=str(root), train="train", val="val", epochs=1))
        training.train(recipe, out=tmp_path / "run", progress=False, **options)

    return run


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_error_names_the_doctor_and_leaves_no_run_without_a_checkpoint(start, tmp_path, split):
    with pytest.raises(LabelRangeError) as caught:
        start(split)
    root = tmp_path / "my data"
    assert str(caught.value.subject) == str(root / split / "masks" / "5.png")
    assert f"unetzoo doctor {shlex.quote(str(root))}" in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_a_folder_of_the_user_is_kept(start, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(DataError):
        start("train")
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
