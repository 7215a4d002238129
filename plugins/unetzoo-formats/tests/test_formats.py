"""LabelMe, YOLO, CVAT, run-length CSV and Label Studio: masks pixel for pixel, and the rules of each format."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from unetzoo_formats.checks import NAMES, PATCH, SIZE, WRITERS, brush, drawn, miniature, pairs, png
from unetzoo_formats.cvat import Cvat
from unetzoo_formats.label_studio import Brush, LabelStudio
from unetzoo_formats.labelme import LabelMe
from unetzoo_formats.rle_csv import RleCsv
from unetzoo_formats.shapes import Canvas, decode_counts
from unetzoo_formats.yolo import YoloSeg

from unetzoo import DATASETS
from unetzoo.errors import ConfigError, DataError, LayoutError, PairingError, SizeMismatchError

WIDTH, HEIGHT = SIZE
BOX, INNER = [[4, 5], [34, 5], [34, 25], [4, 25]], [[10, 8], [20, 8], [20, 18], [10, 18]]


def polygon(points, size=SIZE):
    """A mask by pycocotools."""
    runs = coco_mask.frPyObjects([np.ravel(points).astype(float).tolist()], size[1], size[0])
    mask = np.zeros(size[0] * size[1], bool)
    edges = np.cumsum(decode_counts(runs[0]["counts"]))
    for start, end in zip(edges[::2], edges[1::2], strict=False):
        mask[start:end] = True
    return mask.reshape(size).T


def painted(*objects):
    """Masks painted in order: (value, mask or vertices)."""
    found = np.zeros((HEIGHT, WIDTH), int)
    for value, shape in objects:
        found[shape if isinstance(shape, np.ndarray) and shape.dtype == bool else polygon(shape)] = value
    return found


@pytest.fixture
def image(tmp_path):
    def image(name="a.png", size=SIZE):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (1, 2, 3)).save(tmp_path / name)
        return tmp_path

    return image


@pytest.mark.parametrize("format", WRITERS)
def test_polygons_are_those_of_pycocotools(format, tmp_path):
    objects = drawn(tmp_path / "other")
    data = DATASETS.build(format, root=miniature(format, tmp_path / "data"))
    assert data.labels.names == ("background", *NAMES) and data.ids == [f"photo_{n}" for n in range(5)]
    for number in (0, 4):
        expected = painted(*((NAMES.index(name) + 1, points) for name, points in objects[f"photo_{number}.png"]))
        different = data[number]["mask"] != expected
        # six digits of relative coordinates may round a vertex to another fifth of a pixel
        assert different.sum() <= (4 if format == "yolo-seg" else 0)


@pytest.mark.parametrize("format", WRITERS)
def test_instances_and_missing_images(format, tmp_path):
    root = miniature(format, tmp_path)
    data = DATASETS.build(format, root=root, instances=True)
    assert np.unique(data[0]["instances"]).tolist() == [0, 1, 2]
    assert ((data[0]["instances"] > 0) == (data[0]["mask"] > 0)).all()
    for number in range(3):
        (root / "images" / f"photo_{number}.png").unlink()
    with pytest.raises(DataError) as caught:
        DATASETS.build(format, root=root)
    assert "3 faults" in str(caught.value.found) and "photo_1" in str(caught.value.found)


@pytest.mark.parametrize("format", WRITERS)
def test_damaged_files_are_named(format, tmp_path):
    root = miniature(format, tmp_path)
    file = next(path for path in sorted(root.rglob("*"), reverse=True) if path.is_file() and path.suffix != ".png")
    for content in (b"", b"\xff\xfe\x00", b"{", b"<", b"[1]", b"a,b\n1,2\n", b"[" * 100_000):
        file.write_bytes(content)
        options = {"annotations": file.name} if file.parent == root else {}
        if format == "yolo-seg" and not content:
            continue  # an image without objects
        with pytest.raises(DataError) as caught:
            DATASETS.build(format, root=root, **options)
        assert file.name in str(caught.value)


# LabelMe


def labelme(root, *shapes, file="a.json", image="a.png", size=SIZE, **more):
    items = [{"label": label, "points": points, "shape_type": kind, **extra}
             for label, kind, points, *rest in shapes for extra in [rest[0] if rest else {}]]  # fmt: skip
    content = {"shapes": items, "imagePath": image, "imageHeight": size[1], "imageWidth": size[0], **more}
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(content))
    return root


def test_labelme_shapes(image):
    root = labelme(
        image(), ("b", "polygon", BOX), ("a", "rectangle", [[20, 18], [10, 8]]), ("b", "circle", [[50, 30], [56, 30]]),
        ("a", "mask", [[40, 3], [43, 4]], {"mask": png(PATCH)}), ("c", "line", [[0, 0], [9, 9]]),
        ("a", "point", [[1, 1]]), ("b", "rectangle", [[1, 30], [9, 30], [9, 40], [1, 40]]),
    )  # fmt: skip
    data = LabelMe(root)
    assert data.labels.names == ("background", "a", "b")
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[3:5, 40:44] = PATCH
    circle = (columns - 50) ** 2 + (rows - 30) ** 2 < 36
    expected = painted((2, BOX), (1, INNER), (2, circle), (1, mask), (2, [[1, 30], [9, 30], [9, 40], [1, 40]]))
    different = data[0]["mask"] != expected
    assert different.sum() <= 4 and not different[:22].any()


def test_labelme_labels_with_a_meaning(image):
    root = labelme(image(), ("a", "polygon", BOX), ("__ignore__", "polygon", [[0, 0], [64, 0], [64, 9], [0, 9]]),
                   ("_background_", "polygon", INNER))  # fmt: skip
    data = LabelMe(root, instances=True)
    everything = painted((255, [[0, 0], [64, 0], [64, 9], [0, 9]]), (1, BOX), (0, INNER))
    assert data.labels.names == ("background", "a") and np.array_equal(data[0]["mask"], everything)


def test_labelme_groups_are_one_object(image):
    part = [[50, 30], [60, 30], [60, 40], [50, 40]]
    root = labelme(image(), ("a", "polygon", BOX, {"group_id": 7}), ("b", "polygon", INNER, {"group_id": 7}),
                   ("a", "polygon", part, {"group_id": 7}), ("a", "polygon", INNER))  # fmt: skip
    found = LabelMe(root, instances=True)[0]["instances"]
    assert found[35, 55] == found[6, 5] == 1 and found[10, 12] == 3


def test_labelme_finds_images_of_other_computers(image):
    for path in ("..\\..\\photos\\a.png", "C:\\photos\\a.png", "/home/me/a.png", "gone.png", ""):
        assert len(LabelMe(labelme(image(), ("a", "polygon", BOX), image=path))) == 1
    image("images/b.png")
    root = labelme(image(), ("a", "polygon", BOX), file="labels/b.json", image="..\\images\\b.png")
    assert LabelMe(root).ids == ["a", "images/b"]
    assert LabelMe(root, annotations="labels", images="images").ids == ["b"]


def test_labelme_splits_are_folders(image):
    for folder, label in (("train", "a"), ("valid", "b"), ("valid/more", "b")):
        image(f"{folder}/{label}.png")
        root = labelme(image(f"{folder}/{label}.png"), (label, "polygon", BOX), file=f"{folder}/{label}.json",
                       image=f"{label}.png")  # fmt: skip
    assert LabelMe(root, "train").ids == ["train/a"] and len(LabelMe(root, "val")) == 2 and len(LabelMe(root)) == 3
    assert LabelMe(root, "val").labels.names == LabelMe(root, "train").labels.names == ("background", "a", "b")
    with pytest.raises(ConfigError):
        LabelMe(root, "test")
    with pytest.raises(ConfigError):
        LabelMe(root, "train", fold="1/2")


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (("a", "polygon", [[1, 2], [3, 4]]), "2 points"),
        (("a", "polygon", 7), "points"),
        (("", "polygon", None), "points"),
        ((3, "polygon", BOX), "label"),
        (("a", "cube", BOX), "cube"),
        (("a", "circle", BOX), "circle of 4"),
        (("a", "mask", [[1, 1], [4, 2]]), "mask"),
        (("a", "mask", [[1, 1], [4, 2]], {"mask": "é"}), "base64"),
    ],
)
def test_labelme_faults(image, shape, reason):
    with pytest.raises(DataError) as caught:
        LabelMe(labelme(image(), ("a", "polygon", BOX), shape))
    assert "a.json: shape 1" in str(caught.value.found) and reason in str(caught.value.found)


def test_labelme_masks_beyond_the_image_and_damaged_ones(image):
    for top, data in ((HEIGHT - 1, png(PATCH)), (-1, png(PATCH)), (5, "AAAA"), (5, png(np.ones((4000, 4000), bool)))):
        root = labelme(image(), ("a", "mask", [[1, top], [4, top + 1]], {"mask": data}))
        with pytest.raises(DataError) as caught:
            LabelMe(root)[0]
        assert "object 1" in caught.value.subject
    with pytest.raises(SizeMismatchError):
        LabelMe(labelme(image(), ("a", "polygon", BOX), size=(9, 9)))[0]


# YOLO


def yolo(root, text="0 0.1 0.1 0.5 0.1 0.5 0.5\n", file="labels/a.txt"):
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(text)
    return root


def test_yolo_polygons_are_relative_to_the_image(image):
    root = yolo(
        image("images/a.png"), "1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75\n\n0 -0.5 0 0.25 0 0.25 0.25 -0.5 0.25\n"
    )
    expected = painted((2, [[16, 12], [48, 12], [48, 36], [16, 36]]), (1, [[0, 0], [16, 0], [16, 12], [0, 12]]))
    data = YoloSeg(root)
    assert data.labels.names == ("background", "0", "1") and np.array_equal(data[0]["mask"], expected)


def test_yolo_names(image):
    root = yolo(image("images/a.png"))
    for file, text in (("classes.txt", "cell\nrest\n"), ("data.yaml", "train: x\nnames: [cell, rest]\n"),
                       ("data.yaml", "names: {0: cell, 1: rest}\n")):  # fmt: skip
        (root / file).write_text(text)
        assert YoloSeg(root).labels.names == YoloSeg(root, annotations=file).labels.names
        assert YoloSeg(root).labels.names == ("background", "cell", "rest")
    for text in ("names: 7", "names: {a: b}", "names: [[]]", "{", "names: [&a [*a]]", "a: b"):
        (root / "data.yaml").write_text(text)
        with pytest.raises(DataError, match=r"data\.yaml"):
            YoloSeg(root, annotations="data.yaml")


def test_yolo_images_without_labels_are_background(image):
    image("train/images/b.png")
    root = yolo(image("train/images/a.png"), file="train/labels/a.txt")
    image("elsewhere/c.png")
    assert YoloSeg(root).ids == ["a", "b"] and not YoloSeg(root)[1]["mask"].any()
    assert YoloSeg(root, empty=False).ids == ["a"]
    image("images/val/a.png")
    root = yolo(root, file="labels/val/a.txt")
    assert [YoloSeg(root, split).ids for split in ("train", "val")] == [["train/images/a", "train/images/b"],
                                                                        ["images/val/a"]]  # fmt: skip


def test_text_files_without_labels_are_not_read(image):
    root = yolo(image("images/train/a.png"), file="labels/train/a.txt")
    (root / "train.txt").write_text("images/train/a.png\n")
    assert YoloSeg(root, "train").ids == ["a"]


def test_yolo_labels_beside_images(image):
    assert YoloSeg(yolo(image(), file="a.txt")).ids == ["a"]


def test_yolo_faults(image):
    root = yolo(image("images/a.png"), "0 0.1 0.1 0.5 0.5\n0 a b c d e f\n7 0 0 1 0 1 1\nx 0 0 1 0 1 1\n0 0 0 1 0 1\n"
                                       "0 30 30 40 30 40 40\n0 0 0 nan 0 1 1\n")  # fmt: skip
    yolo(root, file="labels/b.txt")
    (root / "classes.txt").write_text("cell\n")
    with pytest.raises(DataError) as caught:
        YoloSeg(root)
    found = str(caught.value.found)
    assert "8 faults" in found and "b.txt has no image" in found and "box" in found
    assert all(f"line {line}" in found for line in range(1, 8))
    with pytest.raises(LayoutError):
        YoloSeg(image("other/images/z.png") / "other")


# CVAT


def cvat(root, *shapes, attributes='name="a.png" width="64" height="48"', labels="ab"):
    names = "".join(f"<label><name>{name}</name><attributes/></label>" for name in labels)
    text = f"<annotations><meta><project><labels>{names}</labels></project></meta><image id='0' {attributes}>"
    (root / "annotations.xml").write_text(text + "".join(shapes) + "</image></annotations>")
    return root


def joined(points):
    return ";".join(f"{x},{y}" for x, y in points)


def test_cvat_shapes_and_their_order(image):
    root = cvat(
        image(), f'<polygon label="b" z_order="1" points="{joined(INNER)}"/>',
        f'<polygon label="a" z_order="0" points="{joined(BOX)}"/>',
        '<box label="a" xtl="40" ytl="5" xbr="60" ybr="15" rotation="90" z_order="0"/>',
        '<mask label="b" rle="1, 2, 1, 4" left="4" top="40" width="4" height="2" z_order="3"/>',
        '<polyline label="a" points="1,1;2,2"/>', '<points label="a" points="1,1"/>', "<tag label='a'/>",
    )  # fmt: skip
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[40:42, 4:8] = PATCH
    expected = painted((1, BOX), (1, [[45, 0], [55, 0], [55, 20], [45, 20]]), (2, INNER), (2, mask))
    data = Cvat(root, instances=True)
    assert np.array_equal(data[0]["mask"], expected) and data[0]["instances"][10, 12] == 1
    ellipse = cvat(image(), '<ellipse label="b" cx="32" cy="24" rx="12" ry="7" rotation="0"/>')
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    inside = ((columns - 32) / 12) ** 2 + ((rows - 24) / 7) ** 2
    assert np.array_equal(Cvat(ellipse)[0]["mask"][abs(inside - 1) > 0.05] > 0, (inside < 1)[abs(inside - 1) > 0.05])


def test_cvat_subsets_are_splits(image):
    root = cvat(image(), "</image>", *(f'<image name="{n}.png" subset="{subset}">{"</image>" * (n < 3)}'
                                       for n, subset in enumerate(("Train", "Train", "Validation", "other"))),
                attributes='name="a.png"')  # fmt: skip
    for number in range(4):
        image(f"{number}.png")
    assert Cvat(root, "train").ids == ["0", "1"] and Cvat(root, "val").ids == ["2"] and len(Cvat(root)) == 5
    with pytest.raises(ConfigError):
        Cvat(root, "test")


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ('<polygon label="x" points="1,1;2,2;3,3"/>', "'x'"),
        ('<polygon label="a" points="1,1;2,2"/>', "2 points"),
        ('<polygon label="a" points="1,1;2;3,3"/>', "pairs"),
        ('<polygon label="a"/>', "no numbers"),
        ('<polygon label="a" z_order="x" points="1,1;2,9;3,3"/>', "z_order"),
        ('<box label="a" xtl="1" ytl="1" xbr="nan" ybr="2"/>', "finite"),
        ('<mask label="a" rle="9" left="0" top="0" width="4" height="2"/>', "cover"),
        ('<mask label="a" rle="1,-1,8" left="0" top="0" width="4" height="2"/>', "from 0"),
        ('<mask label="a" rle="x" left="0" top="0" width="4" height="2"/>', "rle"),
        ('<mask label="a" rle="0" left="0" top="0" width="0" height="2"/>', "0×2"),
    ],
)
def test_cvat_faults(image, shape, reason):
    with pytest.raises(DataError) as caught:
        Cvat(cvat(image(), shape))
    assert "a.png" in str(caught.value.found) and reason in str(caught.value.found)


def test_cvat_masks_beyond_the_image_use_no_memory(image):
    huge = 999_999_999
    for left, width in ((60, 8), (-1, 8), (0, huge)):
        shape = f'<mask label="a" rle="{width}" left="{left}" top="0" width="{width}" height="1"/>'
        with pytest.raises(SizeMismatchError):
            Cvat(cvat(image(), shape))[0]


def test_cvat_refuses_entities_and_video(image):
    root = cvat(image())
    text = (root / "annotations.xml").read_text()
    for other in ('<!DOCTYPE a [<!ENTITY b "c">]>' + text, text.replace("<image ", "<track/><image "),
                  text.replace("annotations>", "other>")):  # fmt: skip
        (root / "annotations.xml").write_text(other)
        with pytest.raises(DataError):
            Cvat(root, annotations="annotations.xml")


# Run lengths in a CSV file


def table(root, text):
    (root / "train.csv").write_text(text)
    return root


def test_csv_runs_go_down_the_columns_from_1(image):
    root = table(image(), f"ImageId,EncodedPixels\na.png,1 3 {HEIGHT + 2} 1\na.png,{HEIGHT * WIDTH} 1\nb.png,\nc,-1\n")
    image("b.png"), image("c.jpg")
    data = RleCsv(root, instances=True)
    expected = np.zeros((HEIGHT, WIDTH), int)
    expected[:3, 0] = expected[1, 1] = 1
    expected[-1, -1] = 2
    assert np.array_equal(data[0]["instances"], expected) and data.labels.names == ("background", "foreground")
    assert data.ids == ["a", "b", "c"] and not data[1]["mask"].any()
    rows = RleCsv(root, by_rows=True, instances=True)[0]["instances"]
    assert np.argwhere(rows).tolist() == [[0, 0], [0, 1], [0, 2], [0, HEIGHT + 1], [HEIGHT - 1, WIDTH - 1]]


@pytest.mark.parametrize(
    ("text", "names", "options"),
    [
        ("img,rle_mask\na.png,1 2\n", ("foreground",), {}),
        ("ImageId_ClassId,EncodedPixels\na.png_2,1 2\na.png_10,\n", ("2", "10"), {}),
        ("ImageId,ClassId,EncodedPixels\na.png,3,1 2\n", ("3",), {}),
        ("id,class,segmentation\na,stomach,1 2\na,large_bowel,\n", ("large_bowel", "stomach"), {}),
        ("Scan,What,Where\na,x,1 2\n", ("x",), {"columns": {"image": "scan", "class": "What", "rle": "Where"}}),
    ],
)
def test_csv_columns(image, text, names, options):
    data = RleCsv(table(image(), text), annotations="train.csv", **options)
    assert data.labels.names == ("background", *names) and data[0]["mask"].astype(bool).sum() == 2


def test_csv_masks_may_be_longer_than_pythons_limit(image):
    size = (1000, 900)
    root = image(size=size)
    runs = " ".join(f"{n} 1" for n in range(1, 900_000, 4))
    assert RleCsv(table(root, f"ImageId,EncodedPixels\na.png,{runs}\n"))[0]["mask"].sum() == 225_000


def test_csv_faults(image):
    rows = "a.png,1 2 3,a", "a.png,x 1,a", "a.png,0 1,a", "a.png,1 0,a", ",1 1,a", "a.png,1 1,", f"a.png,1 {10**20},a"
    root = table(image(), "\n".join(("ImageId,EncodedPixels,ClassId", *rows)))
    with pytest.raises(DataError) as caught:
        RleCsv(root)
    assert "7 faults" in str(caught.value.found) and "line 8" in str(caught.value.found)
    with pytest.raises(SizeMismatchError):
        RleCsv(table(root, f"ImageId,EncodedPixels\na.png,{HEIGHT * WIDTH} 2\n"))[0]
    with pytest.raises(DataError, match="column"):
        RleCsv(table(root, "a,b\n1,2\n"), annotations="train.csv")
    with pytest.raises(ConfigError):
        RleCsv(root, columns={"mask": "b"})
    with pytest.raises(PairingError):
        RleCsv(table(root, "ImageId,EncodedPixels\nz,1 1\n"))


# Label Studio


def studio(root, *results, image="/data/upload/3/0123abcd-a.png", size=SIZE, **task):
    items = [
        {"type": f"{kind}labels", "original_width": size[0], "original_height": size[1],
         "value": {**value, f"{kind}labels": [label]}}
        for kind, label, value in results
    ]  # fmt: skip
    content = {"id": 5, "annotations": [{"result": items}], "data": {"text": "x", "image": image}, **task}
    (root / "export.json").write_text(json.dumps([content]))
    return root


def percent(points):
    return (np.array(points) / SIZE * 100).tolist()


def test_label_studio_shapes(image):
    mask = np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.1
    root = studio(
        image(), ("polygon", "b", {"points": percent(BOX)}), ("keypoint", "a", {"x": 1, "y": 1}),
        ("rectangle", "a", {"x": 25, "y": 50, "width": 25, "height": 25, "rotation": 90}),
        ("ellipse", "b", {"x": 80, "y": 80, "radiusX": 5, "radiusY": 10, "rotation": 0}),
        ("brush", "a", {"format": "rle", "rle": list(brush(mask))}),
    )  # fmt: skip
    data = LabelStudio(root)
    turned = [[16, 24], [16, 40], [4, 40], [4, 24]]  # about the upper left corner of the rectangle
    angles = np.linspace(0, 2 * np.pi, 1000)
    ellipse = np.stack([51.2 + 3.2 * np.cos(angles), 38.4 + 4.8 * np.sin(angles)], 1)
    different = data[0]["mask"] != painted((2, BOX), (1, turned), (2, ellipse), (1, mask))
    assert data.labels.names == ("background", "a", "b") and different.sum() <= 3


@pytest.mark.parametrize("seed", range(6))
def test_label_studio_brush_masks(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 90, 2)
    mask = np.kron(rng.random((height, width)) < 0.4, np.ones((1, 1 + 40 * (seed % 2)))) > 0
    canvas = Canvas(*mask.shape, 1)
    Brush(brush(mask)).paint(canvas, 1)
    assert np.array_equal(canvas.columns.T > 0, mask)


def test_a_brush_mask_that_label_studio_sdk_wrote():
    data = [0, 0, 0, 140, 57, 27, 254, 35, 0, 191, 255, 108, 2, 63, 248, 192, 39, 255, 182, 1, 127, 255, 15, 128, 0]
    expected = np.zeros((5, 7), bool)
    expected[1:4, 2:6] = True
    expected[2, 3] = False
    canvas = Canvas(5, 7, 1)
    Brush(bytes(data)).paint(canvas, 1)
    assert np.array_equal(canvas.columns.T > 0, expected)


@pytest.mark.parametrize(
    "address",
    ["a.png", "/data/upload/1/89abcdef-a.png", "/data/local-files/?d=photos/a.png", "s3://bucket/x/a.png",
     "https://example.com/a.png?token=1", "http://localhost:8080/data/upload/1/89abcdef-a.png"],
)  # fmt: skip
def test_label_studio_images_are_found_by_name(image, address):
    root = studio(image("photos/a.png"), ("polygon", "b", {"points": percent(BOX)}), image=address)
    assert LabelStudio(root)[0]["id"] == "a"


def test_label_studio_chooses_an_annotation(image):
    def annotation(label, **more):
        value = {"points": percent(BOX), "polygonlabels": [label]}
        return {"result": [{"type": "polygonlabels", "value": value}], **more}

    for annotations, name in (
        ([annotation("a"), annotation("b")], "b"),
        ([annotation("a", ground_truth=True), annotation("b")], "a"),
        ([annotation("a"), annotation("b", was_cancelled=True)], "a"),
    ):
        assert LabelStudio(studio(image(), annotations=annotations)).labels.names == ("background", name)
    with pytest.raises(DataError, match="no images"):
        LabelStudio(studio(image(), annotations=[]), annotations="export.json")
    region = {"id": "r", "type": "polygon", "value": {"points": percent(BOX)}}
    label = {"id": "r", "type": "labels", "value": {"labels": ["c"]}}
    root = studio(image(), annotations=[{"result": [region, label]}])
    assert LabelStudio(root).labels.names == ("background", "c")


def test_label_studio_faults(image):
    for results, reason in (
        ([("polygon", "", {"points": percent(BOX)})], "label"), ([("polygon", "a", {"points": [[1, 2]]})], "1 point"),
        ([("brush", "a", {"rle": [300]})], "bytes"), ([("ellipse", "a", {"x": 1})], "y"),
    ):  # fmt: skip
        with pytest.raises(DataError) as caught:
            LabelStudio(studio(image(), *results))
        assert "task 5: result 0" in str(caught.value.found) and reason in str(caught.value.found)
    for data in ({}, {"image": 7}, {"text": "a.txt"}):
        with pytest.raises(DataError):
            LabelStudio(studio(image(), data=data))
    for raw in (b"", brush(np.ones((4, 5), bool)), brush(np.ones((HEIGHT, WIDTH), bool))[:9]):
        with pytest.raises(DataError) as caught:
            LabelStudio(studio(image(), ("brush", "a", {"rle": list(raw)})))[0]
        assert "object 1" in caught.value.subject
    with pytest.raises(SizeMismatchError):
        LabelStudio(studio(image(), ("polygon", "a", {"points": percent(BOX)}), size=(9, 9)))[0]


def test_pairs():
    assert pairs([1, 2, 3, 4]) == [[1, 2], [3, 4]]
