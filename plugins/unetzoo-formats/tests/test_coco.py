"""COCO JSON against pycocotools, and every rule that is stated for annotated data."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from unetzoo_formats.coco import Coco

from unetzoo.doctor import audit
from unetzoo.errors import ConfigError, DataError, LayoutError, PairingError, SizeMismatchError

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of pycocotools' decoding
BOX = [[10, 10, 40, 10, 40, 30, 10, 30]]
CATEGORIES = "scratch", "dent"
INNER = [[20, 15, 30, 15, 30, 25, 20, 25]]


@pytest.fixture
def write(tmp_path):
    """write(annotations, …): a COCO file beside images of 80×64 pixels; annotations are (category, segmentation)."""

    def write(
        *annotations, images=("a.png",), categories=("scratch", "dent"), size=(80, 64), there=None, file="c.json"
    ):
        for name in images if there is None else there:
            (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
            Image.new("RGB", size, (9, 99, 199)).save(tmp_path / name)
        ids = {name: 3 + 8 * n for n, name in enumerate(dict.fromkeys(categories))}
        content = {
            "images": [{"id": n, "file_name": name, "width": 80, "height": 64} for n, name in enumerate(images)],
            "categories": [{"id": 3 + 8 * n, "name": name} for n, name in enumerate(categories)],
            "annotations": [
                {"id": n, "image_id": 0, "category_id": ids.get(category, category), "segmentation": segmentation,
                 "iscrowd": int(bool(crowd))}
                for n, (category, segmentation, *crowd) in enumerate(annotations)
            ],
        }  # fmt: skip
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(json.dumps(content))
        return tmp_path

    return write


def counts(root, **options):
    return {
        int(v): int(n) for v, n in zip(*np.unique(Coco(root, **options)[0]["mask"], return_counts=True), strict=True)
    }


def star(rng, points=15, size=(80, 64)):
    """A polygon that may cross itself and reach beyond the image."""
    turns = np.sort(rng.uniform(0, 2 * np.pi, points))
    radius = rng.uniform(4, 50) * rng.uniform(0.2, 1.2, points)
    middle = rng.uniform(-5, 85, 2)
    return np.stack([middle[0] + radius * np.cos(turns), middle[1] + radius * np.sin(turns)], 1).ravel().tolist()


def run_lengths(mask, compressed):
    rle = coco_mask.encode(np.asfortranarray(mask))
    if compressed:
        return {"size": rle["size"], "counts": rle["counts"].decode()}
    flat = np.concatenate([[0], mask.ravel(order="F"), [2]])
    edges = np.flatnonzero(np.diff(flat))
    lengths = np.diff(np.concatenate([[0], edges]))
    return {"size": rle["size"], "counts": lengths.tolist()}


def by_pycocotools(path, order=None):
    """The mask of the first image, painted in file order with masks decoded by pycocotools."""
    data = COCO(str(path))
    indices = {category["id"]: n for n, category in enumerate(data.dataset["categories"], 1)}
    mask = np.zeros((64, 80), np.uint8)
    for annotation in data.dataset["annotations"]:
        mask[data.annToMask(annotation) > 0] = indices[annotation["category_id"]]
    return mask


# Pixel for pixel


@pytest.mark.parametrize("seed", range(30))
def test_masks_are_those_of_pycocotools(write, seed, capsys):
    rng = np.random.default_rng(seed)
    annotations = []
    for number in range(12):
        if number % 3 == 0:
            shape = [star(rng) for _ in range(rng.integers(1, 4))]
        else:
            shape = run_lengths((rng.random((64, 80)) < rng.random()).astype(np.uint8), number % 3 == 1)
        annotations.append((("scratch", "dent")[rng.integers(2)], shape))
    annotations += [("dent", [star(rng)]) for _ in range(6)]
    root = write(*annotations)
    assert np.array_equal(Coco(root)[0]["mask"], by_pycocotools(root / "c.json"))


def test_run_lengths_of_empty_and_full_masks(write):
    for compressed in (True, False):
        for mask in (np.zeros((64, 80), np.uint8), np.ones((64, 80), np.uint8)):
            root = write(("dent", run_lengths(mask, compressed)))
            assert np.array_equal(Coco(root)[0]["mask"], mask * 2)


def inside(points, xs, ys):
    """The even-odd rule."""
    x, y = np.array(points).reshape(-1, 2).T
    x2, y2 = np.roll(x, -1), np.roll(y, -1)
    ys, xs = ys[..., None], xs[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        crossings = ((y > ys) != (y2 > ys)) & (xs < (x2 - x) * (ys - y) / (y2 - y) + x)
    return crossings.sum(-1) % 2 == 1


@pytest.mark.parametrize("seed", range(20))
def test_a_pixel_belongs_to_a_polygon_if_its_center_is_inside(write, seed):
    points = star(np.random.default_rng(seed))
    mask = Coco(write(("scratch", [points])))[0]["mask"]
    rows, columns = np.mgrid[:64, :80] + 0.5
    sides = [inside(points, columns + dx, rows + dy) for dx in (-0.3, 0, 0.3) for dy in (-0.3, 0, 0.3)]
    sure = np.all(sides, 0) | ~np.any(sides, 0)  # an edge may pass anywhere near the other centers
    assert sure.mean() > 0.8 and np.array_equal(mask[sure] == 1, sides[4][sure])


def test_what_a_self_crossing_polygon_encloses_twice_is_outside(write):
    twice = [10, 10, 50, 10, 50, 50, 20, 50, 20, 20, 60, 20, 60, 40, 10, 40]
    mask = Coco(write(("scratch", [twice])))[0]["mask"]
    assert mask[30, 15] == 1 and mask[30, 55] == 1 and mask[30, 30] == 0


def test_polygons_are_clipped_at_the_image(write):
    assert counts(write(("scratch", [[-30, -30, 20, -30, 20, 20, -30, 20]]))) == {0: 80 * 64 - 400, 1: 400}
    far = [-1e6, -1e6, 1e6, -1e6, 1e6, 32, -1e6, 32]
    assert counts(write(("scratch", [far]))) == {0: 80 * 32, 1: 80 * 32}
    ring = [*far[:2], 1e6, -1e6, 1e6, 1e6, -1e6, 1e6]
    assert counts(write(("scratch", [ring]))) == {1: 80 * 64}
    assert counts(write(("scratch", [[2000, 3, 3000, 3, 3000, 9]]))) == {0: 80 * 64}


def test_several_polygons_are_united(write):
    assert counts(write(("scratch", BOX + INNER))) == {0: 80 * 64 - 600, 1: 600}


# Order, classes, ignored regions


def test_later_objects_cover_earlier_ones_or_small_ones_large_ones(write):
    root = write(("dent", INNER), ("scratch", BOX))
    assert counts(root) == {0: 4520, 1: 600}
    assert counts(root, order="area") == {0: 4520, 1: 500, 2: 100}
    runs = run_lengths(np.pad(np.ones((8, 8), np.uint8), ((16, 40), (22, 50))), True)
    assert counts(write(("dent", runs), ("scratch", BOX)), order="area") == {0: 4520, 1: 536, 2: 64}


def test_crowds_are_ignored_where_no_object_is(write):
    root = write(("dent", INNER), ("scratch", BOX, True))
    assert counts(root) == {0: 4520, 255: 500, 2: 100}
    assert counts(root, names=("background", "dent")) == {0: 5020, 1: 100}
    assert Coco(root).labels.ignore_index == 255


def test_categories_are_numbered_in_the_order_of_the_file(write):
    root = write(("dent", BOX), categories=("scratch", "dent", "background", "dent"))
    data = Coco(root)
    assert data.labels.names == ("background", "scratch", "dent") and data[0]["mask"][20, 20] == 2


def test_names_select_and_reorder(write):
    root = write(("scratch", BOX), ("dent", INNER))
    assert counts(root, names=("dent", "background")) == {0: 100, 1: 5020}
    assert counts(root, names=("background", "scratch")) == {0: 4520, 1: 600}, "unselected objects cover nothing"
    assert counts(root, names=("background", "scratch"), ignore=("dent",)) == {0: 4520, 1: 600}
    assert counts(root, ignore=("scratch",)) == {0: 4520, 255: 500, 1: 100}


def test_a_background_category_is_the_background_class(write):
    root = write(("scratch", BOX), ("background", INNER), categories=("scratch", "background"))
    assert counts(root) == {0: 4620, 1: 500}
    other = write(("scratch", BOX), ("void", INNER), categories=("scratch", "void"))
    assert counts(other, background="void") == {0: 4620, 1: 500}


def test_without_a_background_uncovered_pixels_are_ignored(write):
    root = write(("scratch", BOX), ("dent", INNER))
    data = Coco(root, background="")
    assert data.labels.names == ("scratch", "dent") and counts(root, background="") == {255: 4520, 0: 500, 1: 100}


def test_more_than_255_classes(write):
    root = write(("c299", BOX), categories=[f"c{n}" for n in range(300)])
    data = Coco(root, background="")
    assert data.labels.ignore_index == 65535 and counts(root, background="") == {299: 600, 65535: 4520}


def test_instances_number_the_objects(write):
    root = write(("dent", BOX), ("scratch", BOX, True), ("dent", INNER))
    sample = Coco(root, instances=True)[0]
    assert sample["instances"].dtype == np.int64 and np.unique(sample["instances"]).tolist() == [0, 1, 3]
    assert (sample["instances"] == 3).sum() == 100 and "instances" not in Coco(root)[0]
    many = write(*[("dent", [[n % 80, n // 80, n % 80 + 1, n // 80, n % 80 + 1, n // 80 + 1, n % 80, n // 80 + 1]])
                   for n in range(400)])  # fmt: skip
    assert Coco(many, instances=True)[0]["instances"].ravel()[:400].tolist() == list(range(1, 401))


# Files


def test_images_without_objects_are_background_or_left_out(write):
    root = write(("dent", BOX), images=("a.png", "b.png", "c.png"))
    data = Coco(root)
    assert data.ids == ["a", "b", "c"] and not data[1]["mask"].any()
    assert Coco(root, empty=False).ids == ["a"]
    with pytest.raises(DataError) as caught:
        Coco(root, empty=False, names=("background", "scratch"))
    assert "3 images" in str(caught.value.found)


def test_missing_images_are_named_together(write):
    root = write(images=[f"{n}.png" for n in range(30)], there=["0.png", "1.png", "2.png"])
    with pytest.raises(PairingError) as caught:
        Coco(root)
    found = str(caught.value.found)
    assert "27 faults" in found and "3.png" in found and "22.png" in found and "23.png" not in found
    assert "7 more" in found and "images=" in caught.value.hint


def test_images_are_found_wherever_they_are(write):
    for folder in ("", "images/", "data/train/"):
        root = write(("dent", BOX), images=("x.png",), there=[f"{folder}x.png"], file="annotations/c.json")
        assert len(Coco(root)) == 1 and Coco(root)[0]["id"] == "x"
        (root / f"{folder}x.png").unlink()
        (root / "annotations/c.json").unlink()
    root = write(images=("p/x.png", "q\\x.png"), there=("one/p/x.png", "one/q/x.png", "two/p/x.png", "two/q/x.png"))
    assert Coco(root, images="two").sources()[1:] == [root / "two/p/x.png", root / "two/q/x.png"]
    assert Coco(root).ids == ["p/x", "q/x"]


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "C:\\a.png", "x/../../a.png", "", "."])
def test_images_outside_the_folder_are_refused(write, name):
    root = write(images=(name,), there=())
    with pytest.raises(PairingError):
        Coco(root)


def test_an_image_that_is_listed_twice_is_refused(write):
    with pytest.raises(PairingError, match="twice"):
        Coco(write(images=("a.png", "./a.png")))


def test_sizes_that_disagree_are_refused(write):
    root = write(("dent", BOX), size=(40, 32))
    with pytest.raises(SizeMismatchError) as caught:
        Coco(root)[0]
    assert "80×64" in caught.value.expected and "40×32" in str(caught.value.found)
    content = json.loads((root / "c.json").read_text())
    del content["images"][0]["width"], content["images"][0]["height"]
    (root / "c.json").write_text(json.dumps(content))
    assert counts(root) == {0: 680, 2: 30 * 20}, "without declared sizes the image decides"


def test_run_lengths_of_another_size_are_refused(write):
    runs = run_lengths(np.ones((4, 5), np.uint8), True)
    with pytest.raises(DataError, match="80×64"):
        Coco(write(("dent", runs)))
    root = write(("dent", runs))
    content = json.loads((root / "c.json").read_text())
    content["images"] = [{"id": 0, "file_name": "a.png"}]
    (root / "c.json").write_text(json.dumps(content))
    with pytest.raises(SizeMismatchError) as caught:
        Coco(root)[0]
    assert "object 1" in caught.value.subject


def test_exif_turns_images_before_they_are_compared(write):
    root = write(("dent", BOX))
    for stored, orientation, fits in (((64, 80), 6, True), ((80, 64), 3, True), ((80, 64), 6, False)):
        image = Image.new("RGB", stored)
        exif = image.getexif()
        exif[0x0112] = orientation
        image.save(root / "a.png", exif=exif)
        if fits:
            assert counts(root) == {0: 4520, 2: 600}
        else:
            with pytest.raises(SizeMismatchError, match="EXIF"):
                Coco(root)[0]


def test_seeded_splits_and_unknown_ones(write):
    root = write(("dent", BOX), images=[f"{n}.png" for n in range(10)])
    train, val = Coco(root, "train"), Coco(root, "val")
    assert len(train) == 8 and sorted(train.ids + val.ids) == sorted(Coco(root).ids)
    assert Coco(root, "val", split_seed=5).ids != val.ids and len(Coco(root, "val", val_fraction=0.5)) == 5
    group = r"^\d"
    sides = [{name[0] for name in Coco(root, split, group=group).ids} for split in ("train", "val")]
    assert not sides[0] & sides[1]
    folds = [name for k in range(1, 6) for name in Coco(root, "val", fold=f"{k}/5").ids]
    assert sorted(folds) == sorted(Coco(root).ids)
    for split in ("test", "trian"):
        with pytest.raises(ConfigError, match=split):
            Coco(root, split)


def test_a_file_for_each_split(write):
    for file, folder in (("{}/_annotations.coco.json", "{}"), ("annotations/instances_{}2017.json", "{}2017")):
        for word in ("train", "valid"):
            path = folder.format(word)
            root = write(("dent", BOX), images=(f"{word}.png",), there=(f"{path}/{word}.png",), file=file.format(word))
        assert Coco(root, "train").ids == ["train"] and Coco(root, "val").ids == ["valid"]
        for split, options in ((None, {}), ("train", {"fold": "1/2"})):
            with pytest.raises(ConfigError):
                Coco(root, split, **options)
        with pytest.raises(LayoutError) as caught:
            Coco(root, "test")
        assert "test" in caught.value.expected
        report = audit(root)
        assert report.splits == {"train": 1, "val": 1} and "{split}" in report.options["annotations"]
        assert "refused" not in report.codes
        for word in ("train", "valid"):
            (root / file.format(word)).unlink()
    write(images=("a.png",), file="one.json")
    write(images=("b.png",), file="two.json")
    with pytest.raises(LayoutError, match="several"):
        Coco(root)
    assert Coco(root, annotations="two.json").ids == ["b"]


def test_samples_are_transformed_and_cached(write, tmp_path_factory):
    from unetzoo.datasets import Transform, cached, statistics

    root = write(("dent", BOX), ("scratch", INNER))
    data = Coco(root, transform=Transform(size=32))
    assert tuple(data[0]["mask"].shape) == (32, 32) and tuple(data[0]["image"].shape) == (3, 32, 32)
    moved = Coco(root, instances=True, transform=Transform(crop=48, hflip=1.0, rotate=20))[0]
    inside = moved["instances"] > 0
    assert moved["instances"].shape == (48, 48) and bool((inside == (moved["mask"] > 0)).all())
    folder = tmp_path_factory.mktemp("cache")
    small = cached(Coco(root), folder=folder, workers=0, progress=False)
    assert np.array_equal(small[0]["mask"], Coco(root)[0]["mask"])
    write(("dent", INNER), ("scratch", BOX))
    again = cached(Coco(root), folder=folder, workers=0, progress=False)
    assert not np.array_equal(again[0]["mask"], small[0]["mask"])
    assert statistics(Coco(root)).classes["scratch"] == pytest.approx(600 / 5120)


def test_images_of_many_channels_and_16_bits(write):
    import tifffile

    from unetzoo.datasets import statistics

    root = write(("dent", BOX), images=("a.tif",), there=())
    values = np.random.default_rng(0).integers(0, 4096, (64, 80, 5)).astype(np.uint16)
    tifffile.imwrite(root / "a.tif", values, photometric="minisblack", planarconfig="contig")
    data = Coco(root, channels=5, range=[0, 4095])
    assert np.allclose(data[0]["image"], values / 4095, atol=1e-6) and (data[0]["mask"] == 2).sum() == 600
    found = statistics(Coco(root, bands=[3, 1], range="percentile"))
    assert len(found.image) == 2


# Faults


FAULTS = {
    "unknown image": {"image_id": 99},
    "unknown category": {"category_id": 99},
    "no category_id": {"category_id": None},
    "no segmentation": {"segmentation": []},
    "segmentation is": {"segmentation": "box"},
    "2 points": {"segmentation": [[1, 2, 3, 4]]},
    "pairs": {"segmentation": [[1, 2, 3, 4, 5, 6, 7]]},
    "numbers": {"segmentation": [[1, 2, 3, "4", 5, 6]]},
    "finite": {"segmentation": [[1, 2, 3, float("nan"), 5, 6]]},
    "far outside": {"segmentation": [[1, 2, 3, 1e300, 5, 6]]},
    "do not cover": {"segmentation": {"size": [64, 80], "counts": [1, 2]}},
    "whole numbers": {"segmentation": {"size": [64, 80], "counts": [1.5, 2]}},
    "from 0": {"segmentation": {"size": [64, 80], "counts": [-1, 5121]}},
    "compressed form": {"segmentation": {"size": [64, 80], "counts": "é~"}},
    "but the image has": {"segmentation": {"size": [10**9, 10**9], "counts": [10**18]}},
    "size": {"segmentation": {"size": [64], "counts": [5120]}},
    "counts": {"segmentation": {"size": [64, 80], "counts": 7}},
}


@pytest.mark.parametrize("reason", FAULTS)
def test_faulty_annotations_are_named_together(write, reason):
    root = write(("dent", BOX), ("dent", BOX), ("dent", BOX))
    content = json.loads((root / "c.json").read_text())
    for annotation in content["annotations"][1:]:
        annotation.update(FAULTS[reason])
    (root / "c.json").write_text(json.dumps(content))
    with pytest.raises(DataError) as caught:
        Coco(root)
    found = str(caught.value.found)
    assert (
        "2 faults" in found
        and "annotation 1: " in found
        and reason in found
        and caught.value.subject == root / "c.json"
    )


OTHERS = (
    "", "{", "[]", "7", "[" * 10**5, "\xff\xfe", '{"images": []}',
    '{"images": {}, "annotations": [], "categories": []}',
    '{"images": [], "annotations": [], "categories": []}',
    '{"images": [7], "annotations": [null], "categories": [{"id": 1}]}',
    '{"images": [{"id": 1, "file_name": "a.png", "width": -1, "height": 1}], "annotations": [], "categories": []}',
)  # fmt: skip


def test_other_files_are_refused(write):
    root = write()
    for text in OTHERS:
        (root / "c.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(DataError) as caught:
            Coco(root, annotations="c.json")
        assert str(root / "c.json") in str(caught.value)
    with pytest.raises(DataError) as caught:
        Coco(root / "c.json")
    assert 'annotations="c.json"' in caught.value.hint
    (root / "c.json").unlink()
    with pytest.raises(LayoutError):
        Coco(root)
    with pytest.raises(DataError):
        Coco(root, annotations="c.json")


def test_an_absurd_size_uses_no_memory(write):
    import tracemalloc

    runs = {"size": [2**30, 2**30], "counts": [2**60]}
    root = write(("dent", runs))
    content = json.loads((root / "c.json").read_text())
    content["images"] = [{"id": 0, "file_name": "a.png"}]
    (root / "c.json").write_text(json.dumps(content))
    tracemalloc.start()
    with pytest.raises(DataError):
        Coco(root)[0]
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


def test_wrong_arguments_are_refused(write):
    root = write(("dent", BOX))
    for options in ({"names": "dent"}, {"names": ["dent"]}, {"names": ["background", "dnet"]}, {"ignore": ["dnet"]},
                    {"order": "size"}, {"channels": 0}, {"val_fraction": 1.5}, {"ignore": "dent"},
                    {"names": ["background", "dent"], "ignore": ["dent"]}):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            Coco(root, **options)
        assert caught.value.hint
