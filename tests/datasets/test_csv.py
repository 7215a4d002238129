from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from PIL import Image
from refusals import refused

from unetzoo.datasets import Csv
from unetzoo.datasets.base import seeded_split
from unetzoo.errors import ConfigError, DataError, ImageDecodeError, LabelRangeError, SizeMismatchError

TWO = {"names": ("background", "cell"), "ids": (0, 255)}
MASK = np.pad(np.full((6, 4), 255, np.uint8), ((0, 0), (4, 0)))


@pytest.fixture
def table(tmp_path):
    """table(text): a folder with images p0…p9, their masks m0…m9 and a manifest."""
    for i in range(10):
        Image.fromarray(np.full((6, 8, 3), i, np.uint8)).save(tmp_path / f"p{i}.png")
        Image.fromarray(MASK).save(tmp_path / f"m{i}.png")

    def write(text, name="data.csv"):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path

    return write


def rows(count, head="image,mask", row="p{i}.png,m{i}.png"):
    return "\n".join([head, *(row.format(i=i) for i in range(count))]) + "\n"


def ids(data):
    return [sample["id"] for sample in data]


def test_a_manifest(table, tmp_path):
    data = Csv(table(rows(3)), **TWO)
    assert ids(data) == ["p0", "p1", "p2"] and data.labels.names == ("background", "cell")
    sample = data[2]
    assert (sample["image"] == 2).all() and sample["image"].shape == (6, 8, 3) and (sample["mask"] == MASK // 255).all()
    assert set(sample) == {"image", "mask", "id"}
    again = pickle.loads(pickle.dumps(data))
    assert (again[1]["image"] == 1).all() and ids(again) == ids(data)
    assert Csv(tmp_path, channels=1, **TWO)[0]["image"].shape == (6, 8, 1)
    assert set(data.sources()) == {tmp_path / "data.csv", *(tmp_path / f"{k}{i}.png" for k in "pm" for i in range(3))}
    with pytest.raises(LabelRangeError, match="ids="):
        Csv(tmp_path, classes=2)[0]


def test_where_the_manifest_lies(table, tmp_path):
    table(rows(2), "a.csv")
    assert len(Csv(tmp_path / "a.csv", **TWO)) == len(Csv(str(tmp_path), manifest="a.csv", **TWO)) == 2
    table(rows(4), "b.tsv")
    with refused(DataError, found="a.csv, b.tsv", hint="manifest="):
        Csv(tmp_path, **TWO)
    assert len(Csv(tmp_path, manifest="b.tsv", **TWO)) == 4
    (tmp_path / "lists").mkdir()
    (tmp_path / "a.csv").rename(tmp_path / "lists" / "a.csv")
    assert len(Csv(tmp_path, manifest="lists/a.csv", **TWO)) == 2  # files still lie in root
    with refused(DataError, found="line 2: image p0.png does not exist"):
        Csv(tmp_path / "lists" / "a.csv", **TWO)
    for path in (tmp_path / "none", tmp_path / "none.csv"):
        with pytest.raises(DataError):
            Csv(path, **TWO)
    (tmp_path / "b.tsv").unlink()
    with refused(DataError, hint="write a CSV file"):
        Csv(tmp_path, **TWO)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", ":"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_dialects(table, delimiter, end, mark):
    text = end.join(["note,x,Image , MASK,split", 'a;|"b",,p1.png, m1.png ,val', "", ",,p2.png,m2.png,train"])
    text = text.replace('a;|"b"', "").replace(",", delimiter)
    given = {"delimiter": ":"} if delimiter == ":" else {}
    data = Csv(table(mark + text.encode()), **given, **TWO)
    assert ids(data) == ["p1", "p2"] and ids(Csv(data.root, "val", **given, **TWO)) == ["p1"]


def test_quotes_and_names_of_the_world(table, tmp_path):
    root = table("")
    for old, new in (("p0.png", "Größe, 1;a.png"), ("m0.png", "маска.png")):
        os.rename(tmp_path / old, tmp_path / new)
    table('image,mask,id\n"Größe, 1;a.png",маска.png,"two\nlines"\np1.png,gone.png,x\n')
    with refused(DataError, found=("1 fault", "line 4: mask gone.png")):  # the row above takes two lines
        Csv(root, **TWO)
    table('image,mask,id\n"Größe, 1;a.png",маска.png,"two\nlines"\n')
    assert ids(Csv(root, **TWO)) == ["two\nlines"]


def test_columns_by_other_names(table, tmp_path):
    table("photo;annotation;fold\np0.png;m0.png;val\np1.png;m1.png;train\n")
    with refused(DataError, expected="image, mask", found="photo, annotation, fold"):
        Csv(tmp_path, **TWO)
    columns = {"image": "photo", "mask": "Annotation", "split": "fold"}
    assert ids(Csv(tmp_path, "val", columns=columns, **TWO)) == ["p0"]
    with refused(DataError, expected="grade"):
        Csv(tmp_path, columns={**columns, "weight": "grade"}, **TWO)
    with refused(ConfigError, hint="did you mean 'image'"):
        Csv(tmp_path, columns={"imgae": "photo"}, **TWO)
    with pytest.raises(ConfigError, match="wrong column"):
        Csv(tmp_path, columns={"image": " "}, **TWO)
    table("image,mask,image\np0.png,m0.png,p1.png\n")
    with pytest.raises(DataError, match="duplicate column"):
        Csv(tmp_path, **TWO)


def test_splits(table, tmp_path):
    root = table(rows(10, "image,mask,split", "p{i}.png,m{i}.png,").replace("png,\n", "png,train\n"))
    assert len(Csv(root, "train", **TWO)) == 10
    with refused(DataError, found="train"):
        Csv(root, "val", **TWO)
    with refused(ConfigError, hint="did you mean 'val'"):
        Csv(root, "vall", **TWO)
    table(rows(10))
    parts = {part: ids(Csv(root, part, val_fraction=0.3, split_seed=4, **TWO)) for part in ("train", "val")}
    assert parts["val"] == seeded_split([f"p{i}" for i in range(10)], "val", 0.3, 4)
    assert sorted(parts["train"] + parts["val"]) == [f"p{i}" for i in range(10)]
    with pytest.raises(DataError, match="no split 'test'"):
        Csv(root, "test", **TWO)
    table(rows(1))
    with pytest.raises(DataError, match="too few"):
        Csv(root, "val", **TWO)
    table("image,mask,split\np0.png,m0.png,fold1\np1.png,m1.png,fold2\n")
    assert ids(Csv(root, "fold2", splits=("fold1", "fold2"), **TWO)) == ["p1"]
    table("image,mask\n")
    with pytest.raises(DataError, match="empty"):
        Csv(root, **TWO)


def test_groups_and_folds(table):
    root = table(
        rows(10, "image,mask,patient", "p{i}.png,m{i}.png,").replace("png,\n", "png,{}\n").format(*"aabbbccdde")
    )
    options = {"columns": {"group": "patient"}, **TWO}
    seen = []
    for fold in ("1/2", "2/2"):
        train, val = (ids(Csv(root, part, fold=fold, **options)) for part in ("train", "val"))
        assert len(val) == 5 and sorted(train + val) == [f"p{i}" for i in range(10)]
        groups = [{"aabbbccdde"[int(name[1:])] for name in part} for part in (train, val)]
        assert not groups[0] & groups[1]
        seen += val
    assert sorted(seen) == [f"p{i}" for i in range(10)]
    assert ids(Csv(root, "val", group=r"\d", val_fraction=0.3, split_seed=4, **TWO)) == seeded_split(
        [f"p{i}" for i in range(10)], "val", 0.3, 4
    )
    with pytest.raises(DataError, match="folds"):
        Csv(root, "val", fold="1/6", **options)
    table("image,mask,patient\np0.png,m0.png,\n")
    with refused(DataError, found="line 2: no group"):
        Csv(root, **options)
    table("image,mask,split,group\np0.png,m0.png,train,a\np1.png,m1.png,val,b\n")
    assert ids(Csv(root, "val", **TWO)) == ["p1"]
    with pytest.raises(ConfigError, match="fold"):
        Csv(root, "val", fold="1/2", **TWO)


def test_only_the_files_of_the_split_must_be_there(table, tmp_path):
    table("image,mask,split\np0.png,m0.png,train\nfar.png,m1.png,test\n")
    assert len(Csv(tmp_path, "train", **TWO)) == 1
    with refused(DataError, found="line 3: image far.png does not exist"):
        Csv(tmp_path, "test", **TWO)


def test_all_faults_are_reported_together_by_line(table, tmp_path):
    (tmp_path / "folder").mkdir()
    table(
        "id,image,mask,split\n"
        "a,p0.png,m0.png,train\n"
        "a,p1.png,m1.png,train\n"  # 3: the id of line 2
        "b,,m2.png,train\n"  # 4: no image
        "c,p3.png,m3.png\n"  # 5: too few cells
        "d,p4.png,gone.png,train\n"  # 6
        "e,folder,m5.png,train\n"  # 7: a folder
        "f,../p6.png,m6.png,train\n"  # 8: outside
        "g,sub\\p7.png,m7.png,train\n"  # 9: a backslash
        "h,p8.png,m8.png,trian\n"  # 10: an unknown split
        ",p9.png,m9.png,\n"  # 11: no split, no id
    )
    with pytest.raises(DataError) as caught:
        Csv(tmp_path, **TWO)
    text = str(caught.value)
    assert "10 faults" in text
    for part in (
        "line 3: the id 'a' is also in line 2", "line 4: no image", "line 5: 3 cells instead of 4",
        "line 6: mask gone.png does not exist", "line 7: image folder is not a file", "line 8: ../p6.png is outside",
        "line 9: image sub\\p7.png does not exist; use / instead of \\",
        "line 10: unknown split 'trian'; did you mean 'train'?", "line 11: no split", "line 11: no id",
    ):  # fmt: skip
        assert part in text, part
    order = [int(line.split()[1].rstrip(":")) for line in text.splitlines()[1:] if "line " in line[:8]]
    assert order == sorted(order)
    table(rows(40, row="x{i}.png,y{i}.png"))
    with refused(DataError, found=("80 faults", "and 60 more")):
        Csv(tmp_path, **TWO)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"image,mask\np0.png,m0.png\np\xe9.png,m1.png\n", r"line 3: 'p\?\.png' is not UTF-8"),
        ("image,mask\np0.png,m0.png\n".encode("utf-16"), "expected UTF-8, found UTF-16"),
        (b'image,mask\np0.png,m0.png\n"p1.png,m1.png\n', r"line 3: unexpected end of data"),
        (b"image,mask\np0.png,m\0.png\n", "line 2: a NUL byte"),
        (b"", "missing columns"),
        (b"\n\n", "missing columns"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "missing columns"),
        (b'image,mask\n"' + b"x" * 200_000 + b'",m0.png\n', "line 2: field larger"),
        (b"image,mask\n.,m0.png\n", "line 2: . "),
        (b"image,mask\n" + b"a/" * 3000 + b"b.png,m0.png\n", "line 2: image"),
    ],
)
def test_broken_text(table, text, message):
    with pytest.raises(DataError, match=message):
        Csv(table(text), **TWO)


def test_any_bytes_give_our_errors(table):
    rng = np.random.default_rng(0)
    good = rows(3, "image,mask,id,split", 'p{i}.png,"m{i}.png",{i},train').encode()
    for i in range(300):
        data = bytearray(good)
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            data[place] = rng.integers(0, 256) if i % 2 else rng.choice(list(b',;"\n\r\t\0\xff/\\'))
        try:
            Csv(table(bytes(data)), **TWO)
        except (DataError, ConfigError):
            pass


def test_files_outside(table, tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "data.csv").write_text(f"image,mask\n../p0.png,{tmp_path}/m0.png\n")
    with pytest.raises(DataError) as caught:
        Csv(inner, **TWO)
    assert "1 fault\n  line 2: ../p0.png" in caught.value.found and "1 more" in caught.value.found
    assert "allow_outside=true" in caught.value.hint and "correct" not in caught.value.hint
    assert (Csv(inner, allow_outside=True, **TWO)[0]["mask"] == MASK // 255).all()
    (inner / "data.csv").write_text(f"image,mask\n{inner}/a.png,./b/../m.png\n")
    os.symlink(tmp_path / "p0.png", inner / "a.png")
    os.symlink(tmp_path / "m0.png", inner / "m.png")
    (inner / "b").mkdir()
    assert len(Csv(inner, **TWO)) == 1  # links that lie in the folder are the user's own


def test_depth_and_weight(table, tmp_path):
    depth = np.arange(48, dtype=np.float32).reshape(6, 8)
    depth[0, 0], depth[1, 1] = np.nan, np.inf
    Image.fromarray(depth).save(tmp_path / "d.tif")
    Image.fromarray((np.arange(48, dtype=np.uint16) * 1000).reshape(6, 8)).save(tmp_path / "d.png")
    Image.fromarray(np.full((6, 8), 51, np.uint8)).save(tmp_path / "w.png")
    table("image,mask,depth,weight\np0.png,m0.png,d.png,w.png\n")
    sample = Csv(tmp_path, **TWO)[0]
    np.testing.assert_allclose(sample["depth"], np.arange(48).reshape(6, 8) * 1000 / 65535, atol=1e-6)
    np.testing.assert_allclose(sample["weight"], 0.2, atol=1e-7)
    assert "valid" not in sample and sample["weight"].dtype == sample["depth"].dtype == np.float32
    sample = Csv(tmp_path, depth_scale=0.001, depth_gaps=True, **TWO)[0]
    assert sample["depth"].max() == 47 and not sample["valid"][0, 0] and sample["valid"].sum() == 47
    table("image,mask,depth\np0.png,m0.png,d.tif\n")
    with refused(DataError, hint="depth_gaps=True"):
        Csv(tmp_path, **TWO)[0]
    sample = Csv(tmp_path, depth_gaps=True, **TWO)[0]
    assert np.isfinite(sample["depth"]).all() and sample["valid"].sum() == 46 and sample["depth"][5, 7] == 47
    Image.fromarray(-depth).save(tmp_path / "d.tif")
    table("image,mask,weight\np0.png,m0.png,d.tif\n")
    with pytest.raises(DataError, match="wrong weights"):
        Csv(tmp_path, **TWO)[0]
    Image.new("L", (8, 5)).save(tmp_path / "d.png")
    table("image,mask,depth\np0.png,m0.png,d.png\n")
    with refused(SizeMismatchError, subject="d.png", expected="8×6", found="8×5"):
        Csv(tmp_path, **TWO)[0]
    with pytest.raises(ConfigError, match="scale"):
        Csv(tmp_path, depth_scale=0.0, **TWO)


def test_faults_of_files_are_raised_on_access(table, tmp_path):
    table(rows(2))
    (tmp_path / "p0.png").write_bytes(b"no image")
    Image.new("L", (6, 8)).save(tmp_path / "m1.png")
    data = Csv(tmp_path, **TWO)
    with pytest.raises(ImageDecodeError, match=r"p0\.png"):
        data[0]
    with refused(SizeMismatchError, expected="8×6", found="6×8"):
        data[1]


def test_arguments(table, tmp_path):
    table(rows(3))
    for wrong in ({}, {"names": ["a"], "classes": 2}, {"classes": 2, "channels": 0}, {"classes": 2, "val_fraction": 0},
                  {"classes": 2, "delimiter": "::"}, {"classes": 2, "delimiter": '"'}):  # fmt: skip
        with pytest.raises(ConfigError):
            Csv(tmp_path, **wrong)
    with pytest.raises(ConfigError) as caught:
        Csv(tmp_path, names="[background]", ids=(0, 255))  # quotes that the shell removed
    assert "--set 'data.names=" in caught.value.hint
    labels = Csv(
        tmp_path, names=("a", "l", "r"), ignore_ids=(255,), ignore_index=255, swap_pairs=[(1, 2)], side="viewer"
    )
    assert labels.labels.swap_pairs == ((1, 2),) and labels[0]["mask"].max() == 255
