"""Annotation files are recognized without the plugin that reads them."""

import pytest
from PIL import Image

from unetzoo import DATASETS
from unetzoo.datasets import ANNOTATION_LAYOUTS, with_split
from unetzoo.doctor import audit, recognize
from unetzoo.errors import DataError

FILES = {
    "coco": ("annotations/instances.json", '{"info": {}, "images": [], "annotations": [], "categories": []}'),
    "labelme": ("a.json", '{"version": "5.4", "shapes": [{"label": "cell"}], "imagePath": "a.jpg"}'),
    "yolo-seg": ("labels/a.txt", "0 0.1 0.1 0.5 0.1 0.5 0.5\n"),
    "rle-csv": ("train.csv", "ImageId,EncodedPixels\na.jpg,1 3 10 5\n"),
    "cvat": ("annotations.xml", '<annotations><version>1.1</version><image id="0" name="a.jpg"></image></annotations>'),
    "label-studio": ("export.json", '[{"id": 1, "annotations": [{"result": []}], "data": {"image": "a.jpg"}}]'),
}


@pytest.fixture(params=FILES)
def format(request):
    return request.param


@pytest.fixture
def root(format, tmp_path):
    file, text = FILES[format]
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg")
    return tmp_path


def test_every_format_has_a_case():
    assert set(FILES) == set(ANNOTATION_LAYOUTS)


def test_the_format_is_named(format, root):
    assert [name for name, confidence in recognize(root) if confidence > 0.3] == [format]


@pytest.mark.skipif("coco" in DATASETS.names(), reason="unetzoo-formats is installed")
def test_the_doctor_names_the_plugin(format, root):
    with pytest.raises(DataError) as caught:
        audit(root)
    assert format in caught.value.found and caught.value.hint == "pip install unetzoo-formats"


def test_the_end_of_a_large_file_is_read(tmp_path):
    rows = ",".join('{"id": 1, "file_name": "a.jpg"}' for _ in range(20_000))
    (tmp_path / "c.json").write_text(f'{{"images": [{rows}], "annotations": [], "categories": []}}')
    assert recognize(tmp_path)[0][0] == "coco"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"images": 3}'), ("a.json", "[1, 2]"), ("notes.txt", "1 2 3\n4 5 6 7\n"), ("a.json", ""),
        ("a.xml", "<annotation></annotation>"), ("data.csv", "image,mask\n"),
    ],
)  # fmt: skip
def test_other_files_are_not_taken_for_annotations(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert not recognize(tmp_path)


def test_files_of_splits():
    assert with_split(["train/_annotations.coco.json", "valid/_annotations.coco.json"]) == (
        "{split}/_annotations.coco.json"
    )
    assert with_split(["strain.json", "other.json"]) is None and with_split([]) is None
