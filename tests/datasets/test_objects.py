"""Label images with one number per object, and one file per object."""

import io
import pickle

import numpy as np
import pytest
import tifffile
from PIL import Image
from rich.console import Console

from unetzoo import DATASETS
from unetzoo.datasets import DSB2018, Csv, Folder, cached
from unetzoo.datasets.base import MOST_OBJECTS
from unetzoo.datasets.objects import merge_objects, read_numbers
from unetzoo.doctor import audit
from unetzoo.errors import (
    ConfigError,
    DataError,
    ImageDecodeError,
    LabelRangeError,
    LayoutError,
    PairingError,
    SizeMismatchError,
    UnetzooError,
)
from unetzoo.twins import plant, write

RNG = np.random.default_rng(0)
NUMBERS = np.repeat(np.repeat(RNG.permutation(30).reshape(5, 6), 6, 0), 7, 1)


def palette(path):
    image = Image.fromarray(NUMBERS.astype(np.uint8))
    image.putpalette(RNG.integers(0, 256, 768, np.uint8).tobytes())
    image.save(path)


@pytest.mark.parametrize(
    ("name", "write", "times"),
    [
        ("a.png", lambda path, n: Image.fromarray(n.astype(np.uint8)).save(path), 1),
        ("a.png", lambda path, n: Image.fromarray(n.astype(np.uint16)).save(path), 2000),
        ("palette.png", lambda path, n: palette(path), 1),
        ("a.bmp", lambda path, n: Image.fromarray(n.astype(np.uint8)).save(path), 1),
        ("a.tif", lambda path, n: tifffile.imwrite(path, n.astype(np.uint8)), 1),
        ("a.tif", lambda path, n: tifffile.imwrite(path, n.astype(np.uint16), compression="zlib"), 2000),
        ("a.tif", lambda path, n: tifffile.imwrite(path, n.astype(">u2")), 2000),
        ("a.tif", lambda path, n: tifffile.imwrite(path, n.astype(np.uint32), tile=(16, 16)), 500_000),
        ("a.tif", lambda path, n: Image.fromarray(n.astype(np.uint16)).save(path, compression="tiff_lzw"), 2000),
        ("a.tif", lambda path, n: tifffile.imwrite(path, n.astype(np.int16), compression="zlib"), 1000),
        ("a.tif", lambda path, n: tifffile.imwrite(path, n.astype(np.uint32), bigtiff=True), 500_000),
        ("a.tif", lambda path, n: Image.fromarray(n.astype(np.int32)).save(path), 500_000),
        ("a.npy", lambda path, n: np.save(path, n.astype(np.uint8)), 1),
        ("a.npy", lambda path, n: np.save(path, n), 500_000),
        ("a.npy", lambda path, n: np.save(path, np.asfortranarray(n.astype(np.uint32))), 500_000),
        ("a.npz", lambda path, n: np.savez_compressed(path, n.astype(np.uint16)), 2000),
    ],
)
def test_every_depth_and_format_gives_the_stored_numbers(name, write, times, tmp_path):
    write(tmp_path / name, NUMBERS * times)
    found = read_numbers(tmp_path / name)
    assert found.shape == NUMBERS.shape and (found == NUMBERS * times).all()


@pytest.mark.parametrize(
    ("name", "write", "error"),
    [
        ("a.jpg", lambda path: Image.fromarray(NUMBERS.astype(np.uint8)).save(path), ImageDecodeError),
        ("a.png", lambda path: Image.new("RGB", (8, 6)).save(path), ImageDecodeError),
        ("a.png", lambda path: Image.new("LA", (8, 6)).save(path), ImageDecodeError),
        ("a.tif", lambda path: tifffile.imwrite(path, NUMBERS.astype(np.float32)), ImageDecodeError),
        ("a.tif", lambda path: tifffile.imwrite(path, np.zeros((6, 8, 3), np.uint16), photometric="rgb"),
         ImageDecodeError),
        ("a.tif", lambda path: tifffile.imwrite(path, np.zeros((4, 6, 8), np.uint16), photometric="minisblack"),
         DataError),
        ("a.tif", lambda path: tifffile.imwrite(path, -NUMBERS.astype(np.int32)), LabelRangeError),
        ("a.npy", lambda path: np.save(path, NUMBERS - 1), LabelRangeError),
        ("a.npy", lambda path: np.save(path, NUMBERS.astype(float)), ImageDecodeError),
        ("a.npy", lambda path: np.save(path, np.array([["a"]], object), allow_pickle=True), ImageDecodeError),
        ("a.png", lambda path: None, ImageDecodeError),
    ],
)  # fmt: skip
def test_other_files_are_refused(name, write, error, tmp_path):
    write(tmp_path / name)
    with pytest.raises(error) as caught:
        read_numbers(tmp_path / name)
    assert str(caught.value.subject) == str(tmp_path / name) and caught.value.hint


@pytest.fixture
def folder(tmp_path):
    """folder(numbers, …): images and label images, named 0, 1, …"""

    def write(*labels, suffix=".tif", image=None):
        for kind in ("images", "masks"):
            (tmp_path / kind).mkdir(exist_ok=True)
        for index, numbers in enumerate(labels):
            shape = image or numbers.shape
            Image.fromarray(RNG.integers(0, 256, (*shape, 3), np.uint8)).save(tmp_path / "images" / f"{index}.png")
            tifffile.imwrite(tmp_path / "masks" / f"{index}{suffix}", numbers)
        return tmp_path

    return write


def gaps():
    """Two objects with distant numbers, one of them in two pieces."""
    numbers = np.zeros((12, 16), np.uint32)
    numbers[1:4, 1:4], numbers[6:9, 1:4], numbers[2:10, 8:14] = 70_000, 70_000, 3
    return numbers


def test_folder(folder):
    root = folder(gaps(), np.zeros((12, 16), np.uint32), gaps()[::-1].copy())
    data = Folder(root, instances=True)
    assert data.labels.names == ("background", "object")
    first, empty, _ = data
    assert first["mask"].dtype == np.uint8 and first["instances"].dtype == np.int64
    assert (first["instances"] == gaps()).all() and (first["mask"] == (gaps() > 0)).all()
    assert empty["mask"].max() == empty["instances"].max() == 0  # no object
    assert (pickle.loads(pickle.dumps(data))[0]["instances"] == gaps()).all()
    assert (cached(data)[0]["instances"] == gaps()).all()
    assert Folder(root, instances=True, names=["soil", "stone"]).labels.names == ("soil", "stone")


def test_csv(folder):
    root = folder(gaps())
    (root / "list.csv").write_text("image,mask\nimages/0.png,masks/0.tif\n")
    sample = Csv(root, instances=True)[0]
    assert (sample["instances"] == gaps()).all() and (sample["mask"] == (gaps() > 0)).all()


def test_unlabeled_numbers(folder):
    root = folder(np.where(gaps() == 3, 65535, gaps()).astype(np.uint32))
    sample = Folder(root, instances=True, ignore_ids=[65535], ignore_index=255)[0]
    assert (sample["mask"] == np.where(gaps() == 3, 255, gaps() > 0)).all()
    assert (sample["instances"] == np.where(gaps() == 3, 0, gaps())).all()


def test_more_than_65535_objects(folder):
    numbers = np.arange(300 * 300, dtype=np.uint32).reshape(300, 300)
    sample = Folder(folder(numbers), instances=True)[0]
    assert sample["instances"].max() == 89_999 and (sample["instances"] == numbers).all()


def test_huge_numbers_are_renumbered_in_their_order(folder):
    huge = np.where(gaps() == 3, 2**32 - 1, np.where(gaps() > 0, MOST_OBJECTS, 0)).astype(np.uint32)
    sample = Folder(folder(huge), instances=True)[0]
    assert (sample["instances"] == np.where(gaps() == 3, 2, gaps() > 0)).all()


def test_a_mask_of_another_size(folder):
    with pytest.raises(SizeMismatchError) as caught:
        Folder(folder(gaps(), image=(12, 15)), instances=True)[0]
    assert str(caught.value.subject).endswith("0.tif")


@pytest.mark.parametrize("options", [
    {"ids": [0, 1]}, {"colors": {"a": [0, 0, 0], "b": [1, 1, 1]}}, {"names": ["a", "b", "c"]}, {"classes": 3},
    {"unknown_color": "ignore"}, {"names": "ab"}, {"instances": "no"},
], ids=str)  # fmt: skip
def test_contradictory_arguments(options, folder):
    with pytest.raises(ConfigError):
        Folder(folder(gaps()), **{"instances": True, **options})


class TestOneFileEach:
    def write(self, root, *objects, name="a", size=(12, 16), prefix=""):
        image = root / f"{prefix}{name}" / "images" / f"{name}.png"
        for number, (rows, columns) in enumerate(objects):
            mask = np.zeros(size, np.uint8)
            mask[rows, columns] = 255
            path = root / f"{prefix}{name}" / "masks" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(path)
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (12, 16, 4), np.uint8)).save(image)
        return root

    def test_they_are_numbered_by_name(self, tmp_path):
        boxes = [(slice(0, 2), slice(n, n + 1)) for n in range(12)]  # 0.png … 11.png: 2 comes before 10
        sample = DSB2018(self.write(tmp_path, *boxes), "all")[0]
        assert sample["instances"][0].tolist() == [*range(1, 13), 0, 0, 0, 0] and sample["image"].shape == (12, 16, 3)
        assert sample["mask"].tolist() == (sample["instances"] > 0).astype(int).tolist()

    def test_later_objects_cover_earlier_ones(self, tmp_path):
        root = self.write(tmp_path, (slice(0, 6), slice(0, 6)), (slice(4, 9), slice(4, 9)))
        files = [root / "a" / "masks" / f"{n}.png" for n in (1, 0)]
        merged, covered = merge_objects(files)
        assert merged[5, 5] == 2 and merged[0, 0] == 1 and covered == 4

    def test_an_image_without_objects_needs_a_mask_of_zeros(self, tmp_path):
        root = self.write(tmp_path, (slice(0, 0), slice(0, 0)))
        assert DSB2018(root, "all")[0]["instances"].max() == 0
        self.write(tmp_path, name="b")
        with pytest.raises(PairingError) as caught:
            DSB2018(root, "all")
        assert "b.png" in str(caught.value.found)

    def test_files_of_other_sizes(self, tmp_path):
        root = self.write(tmp_path, (slice(0, 6), slice(0, 6)))
        Image.new("L", (16, 11)).save(root / "a" / "masks" / "1.png")
        with pytest.raises(SizeMismatchError) as caught:
            DSB2018(root, "all")[0]
        assert caught.value.subject == root / "a" / "masks" / "1.png"
        Image.new("L", (15, 12)).save(root / "a" / "masks" / "0.png")
        (root / "a" / "masks" / "1.png").unlink()
        with pytest.raises(SizeMismatchError) as caught:
            DSB2018(root, "all")[0]
        assert caught.value.subject == root / "a" / "masks" / "0.png"

    def test_layouts_and_splits(self, tmp_path):
        for name in "abcdefghijkl":
            self.write(tmp_path, (slice(0, 6), slice(0, 6)), name=name, prefix="stage1_train/")
        parts = {split: {s.name for s in DSB2018(tmp_path, split).files} for split in ("train", "val", "test", "all")}
        assert [len(parts[split]) for split in ("train", "val", "test")] == [10, 1, 1]
        assert parts["all"] == set.union(parts["train"], parts["val"], parts["test"])
        assert {s.name for s in DSB2018(tmp_path / "stage1_train", "all").files} == parts["all"]
        data = DSB2018(tmp_path, "all")
        assert len(data.sources()) == 24 and len(set(data.sources())) == 24
        with pytest.raises((LayoutError, DataError)):
            DSB2018(tmp_path / "nowhere", "all")
        (tmp_path / "empty").mkdir()
        with pytest.raises(LayoutError) as caught:
            DSB2018(tmp_path / "empty", "all")
        assert "images" in str(caught.value.expected) and caught.value.hint == DSB2018.how_to_get

    def test_a_broken_file_is_named(self, tmp_path):
        root = self.write(tmp_path, (slice(0, 6), slice(0, 6)), (slice(0, 6), slice(7, 9)))
        path = root / "a" / "masks" / "1.png"
        path.write_bytes(path.read_bytes()[:40])
        with pytest.raises(UnetzooError) as caught:
            DSB2018(root, "all")[0]
        assert str(caught.value.subject) == str(path)


@pytest.mark.realdata
@pytest.mark.parametrize(("folder", "layout"), [("", "dsb2018-merged"), ("raw", "dsb2018-stage1"),
                                                ("raw/stage1_train", "dsb2018")])  # fmt: skip
def test_real(folder, layout, real):
    data = DATASETS.build("dsb2018", root=real / "dsb2018" / folder, split="all")
    assert data.layout.name == layout
    merged = DSB2018(real / "dsb2018", "all")
    places = {sample.name: index for index, sample in enumerate(merged.files)}
    for index in range(0, len(data), max(1, len(data) // 8)):
        sample, same = data[index], merged[places[data.files[index].name[:12]]]
        assert (sample["image"] == same["image"]).all() and (sample["mask"] == same["mask"]).all()
        both = np.unique(np.stack([sample["instances"].ravel(), same["instances"].ravel()]), axis=1)
        assert both.shape[1] == len(np.unique(both[0])) == len(np.unique(both[1]))  # one number for each number
        assert sample["instances"].max() >= 1 and sample["instances"].dtype == np.int64


def test_a_stream_is_no_place_for_numbers(tmp_path):
    """An .npz of several arrays, and a bomb."""
    file = io.BytesIO()
    np.savez(file, a=NUMBERS, b=NUMBERS)
    (tmp_path / "a.npz").write_bytes(file.getvalue())
    with pytest.raises(DataError):
        read_numbers(tmp_path / "a.npz")
    header = b"\x93NUMPY\x01\x00v\x00{'descr': '<u4', 'fortran_order': False, 'shape': (60000, 60000), }"
    (tmp_path / "b.npy").write_bytes(header.ljust(127) + b"\n")
    with pytest.raises(DataError):
        read_numbers(tmp_path / "b.npy")


class TestDoctor:
    """Numbers of objects are told from classes by their values alone."""

    def write(self, root, draw, save, suffix, count=6):
        for kind in ("images", "masks"):
            (root / kind).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            numbers = draw(np.random.default_rng(index))
            photo = np.random.default_rng(index).integers(0, 256, (*numbers.shape, 3), np.uint8)
            Image.fromarray(photo).save(root / "images" / f"{index}.png")
            save(root / "masks" / f"{index}{suffix}", numbers)
        return root

    @staticmethod
    def objects(rng, far=1):
        numbers = np.zeros((60, 80), np.int64)
        for number in range(1, int(rng.integers(9, 20))):
            row, column = rng.integers(0, 50), rng.integers(0, 70)
            box = numbers[row : row + 7, column : column + 7]
            if not box.any():
                box[:] = number
        known = np.unique(numbers)
        return np.searchsorted(known, numbers) * far

    @staticmethod
    def classes(rng):
        return np.repeat(np.repeat(rng.integers(0, 12, (15, 20)), 4, 0), 4, 1)

    @staticmethod
    def equal(numbers):
        """As many objects of one size in each mask, anywhere."""

        def draw(rng):
            drawn = np.zeros((60, 80), int)
            for number, place in zip(numbers, rng.permutation(48), strict=False):
                top, left = np.multiply(10, divmod(place, 8))
                drawn[top + 1 : top + 8, left + 1 : left + 8] = number
            return drawn

        return draw

    @pytest.mark.parametrize(
        ("numbers", "depth"),
        [
            (range(1, 3), np.uint8), (range(1, 10), np.uint8), (range(1, 41), np.uint16),
            (range(1000, 6000, 1000), np.uint16), (range(1, 3), np.uint32), (range(1, 41), np.uint32),
        ],
    )  # fmt: skip
    def test_as_many_in_each_image_may_be_classes_or_objects(self, numbers, depth, tmp_path):
        suffix = ".tif" if depth == np.uint32 else ".png"
        save = tifffile.imwrite if depth == np.uint32 else lambda path, values: Image.fromarray(values).save(path)
        root = self.write(tmp_path, self.equal(numbers), lambda path, n: save(path, n.astype(depth)), suffix)
        report = audit(root)
        assert not report.errors
        if depth == np.uint32:  # no masks of classes
            assert report.proposal == {"instances": True} and report.alternative is None
            return
        assert report.proposal["classes"] == len(numbers) + 1 and report.alternative == {"instances": True}
        assert report.to_dict()["alternative"] == report.alternative
        console = Console(file=io.StringIO(), width=120)
        console.print(report)
        assert "classes = " in console.file.getvalue() and "instances = true" in console.file.getvalue()
        for declared in (report.proposal, report.alternative):
            assert Folder(root, **declared)[0]["mask"].max() == (1 if "instances" in declared else len(numbers))

    def test_numbers_of_a_few_masks_only_are_those_of_objects(self, tmp_path):
        def draw(rng):
            return self.equal(rng.permutation(2000)[: rng.integers(3, 20)] + 1)(rng)

        save = lambda path, n: Image.fromarray(n.astype(np.uint16)).save(path)  # noqa: E731
        report = audit(self.write(tmp_path, draw, save, ".png"))
        assert report.proposal == {"instances": True} and report.alternative is None

    @pytest.mark.parametrize(
        ("save", "suffix"),
        [
            (lambda path, n: Image.fromarray(n.astype(np.uint8)).save(path), ".png"),
            (lambda path, n: Image.fromarray(n.astype(np.uint16)).save(path), ".png"),
            (lambda path, n: tifffile.imwrite(path, n.astype(np.uint16)), ".tif"),
            (lambda path, n: tifffile.imwrite(path, n.astype(np.int32)), ".tif"),
            (lambda path, n: np.save(path, n.astype(np.uint16)), ".npy"),
        ],
        ids=["8-bit PNG", "16-bit PNG", "16-bit TIFF", "32-bit TIFF", "array"],
    )
    def test_numbers_of_objects_are_proposed(self, save, suffix, tmp_path):
        root = self.write(tmp_path, self.objects, save, suffix)
        report = audit(root)
        assert report.proposal == {"instances": True} and report.dataset == "folder"
        assert not report.errors and not report.warnings
        assert not audit(root, "folder", options={"instances": True}).warnings
        data = Folder(root, **report.proposal)
        pixels = sum(np.bincount(sample["mask"].ravel(), minlength=2) for sample in data)
        assert [share.pixels for share in report.classes] == pixels.tolist()

    @pytest.mark.parametrize("kind", [np.uint8, np.uint16])
    def test_classes_are_not_taken_for_objects(self, kind, tmp_path):
        root = self.write(tmp_path, self.classes, lambda path, n: Image.fromarray(n.astype(kind)).save(path), ".png")
        report = audit(root)
        assert report.proposal == {"classes": 12} and report.alternative is None and not report.errors

    def test_numbers_declared_as_classes(self, tmp_path):
        def save(path, numbers):
            tifffile.imwrite(path, numbers.astype(np.int32))

        report = audit(self.write(tmp_path, self.objects, save, ".tif"), "folder", options={"classes": 2})
        (error,) = report.errors
        assert error.code == "sixteen-bit-mask" and "instances=true" in error.fix

    def test_real_and_planted_overlaps(self, tmp_path):
        root = write("dsb2018", tmp_path / "data", count=5)
        assert not audit(root).warnings
        (changed,) = plant(root, "dsb2018", "overlapping-objects")
        (warning,) = audit(root).warnings
        assert warning.code == "overlapping-objects" and warning.cases[0].file == changed.relative_to(root).as_posix()
