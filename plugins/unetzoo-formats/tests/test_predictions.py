"""The COCO JSON that `unetzoo predict` writes, read back by the dataset `coco`."""

import numpy as np
import pytest
import torch
from PIL import Image
from unetzoo_formats.coco import Coco

import unetzoo
from unetzoo.inference import Predictor


class Brightest(torch.nn.Module):
    """Returns its input: the brightest channel is the class."""

    in_channels = 3

    def forward(self, x):
        return x


@pytest.mark.parametrize(("product", "file"), [("coco", "annotations.coco.json"),
                                               ("coco_rle", "annotations.coco_rle.json")])  # fmt: skip
def test_masks_are_equal(tmp_path, product, file):
    labels = unetzoo.LabelSpec(("background", "left", "right"))
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((40 + number, 30), 0).save(
            tmp_path / "images" / f"{number}.png"
        )
    predictor = Predictor(Brightest(), labels=labels, preprocess=unetzoo.Preprocess())
    assert not predictor.predict_files(tmp_path / "images", tmp_path / "out", products=["mask", product])
    data = Coco(tmp_path, annotations=f"out/{file}", images="images")
    assert data.labels.names == labels.names and data.ids == ["0", "1", "2", "3"]
    for sample in data:
        assert np.array_equal(sample["mask"], np.asarray(Image.open(tmp_path / "out" / f"{sample['id']}.png")))
