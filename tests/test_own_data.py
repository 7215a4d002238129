"""Each row of the table "what you have, and what you write" reads data of that very format."""

import io
import json
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from rich.console import Console

import unetzoo
from unetzoo.doctor import audit
from unetzoo.training.recipe import load
from unetzoo.twins import write

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "guides" / "own-data.md").read_text(encoding="utf-8")
FORMATS = ROOT / "plugins" / "unetzoo-formats"
ROWS = {have.strip(): "\n".join(re.findall(r"`([^`]+)`", write)) for have, write in
        re.findall(r"^\| (.+?) \| (`name = .+) \|$", PAGE, re.MULTILINE)}  # fmt: skip
COUNT, HEIGHT, WIDTH = 6, 10, 12
MASK = np.zeros((HEIGHT, WIDTH), np.uint8)
MASK[2:6, 3:9] = 1


def image(channels=3, dtype=np.uint8, most=255):
    """An image that is bright where the mask is."""
    noise = np.random.default_rng(0).integers(0, most // 2, (HEIGHT, WIDTH, channels))
    return (noise + MASK[..., None].astype(int) * (most // 2)).astype(dtype)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, array, photometric="minisblack", planarconfig="contig" if array.ndim == 3 else None)
    else:
        Image.fromarray(array).save(path)


def pairs(photo=None, mask=MASK, *, suffix=".png", images="images", masks="masks", names=None, ending=""):
    """A writer of two folders."""

    def writer(root):
        for name in names or [f"a{number}" for number in range(COUNT)]:
            save(root / images / f"{name}{suffix}", image() if photo is None else photo)
            save(root / masks / f"{name}{ending}{'.png' if mask.dtype != np.uint32 else '.tif'}", mask)

    return writer


def colored(root):
    pairs(mask=MASK[..., None] * np.array([0, 255, 0], np.uint8))(root)


def with_labelmap(root):
    colored(root)
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\ncell:0,255,0::\n")


def listed(root, header="image,mask", cell=""):
    pairs(images="here", masks="there")(root)
    rows = [f"here/a{number}.png,there/a{number}.png" + cell.format(number // 2) for number in range(COUNT)]
    (root / "data.csv").write_text("\n".join([header, *rows]))


def with_patients(root):
    listed(root, "image,mask,patient", ",p{}")


def one_channel_each(root):
    for number in range(COUNT):
        for channel in range(2):
            save(root / "images" / f"a{number}_{channel:04d}.tif", image(1, np.uint16, 4095))
        save(root / "masks" / f"a{number}.png", MASK)


def nifti(root, names=("images", "masks"), ending=""):
    nibabel = pytest.importorskip("nibabel")
    for number in range(COUNT):
        volumes = (np.repeat(image(1, np.int16, 1000), 3, 2) - 100, np.repeat(MASK[..., None], 3, 2))
        for folder, values, end in zip(names, volumes, (ending, ""), strict=True):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(values.swapaxes(0, 1).astype(np.int16), np.eye(4)),
                         root / folder / f"a{number}{end}.nii.gz")  # fmt: skip


def stacks(root):
    for number in range(COUNT):
        for folder, plane in (("images", image(1)[..., 0]), ("masks", MASK)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(root / folder / f"a{number}.tif", np.stack([plane] * 3), photometric="minisblack")


def raw(root):
    nifti(root, ("imagesTr", "labelsTr"), "_0000")
    plan = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "cell": 1}, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(plan))


def annotated(name):
    """A writer of the plugin's own drawings."""

    def writer(root):
        pytest.importorskip("pycocotools")
        from unetzoo_formats.checks import miniature

        miniature(name, root)

    return writer


NUMBERED = MASK.astype(np.uint32) * 70_000
WRITERS = {
    "`images/` and `masks/`": pairs(),
    "Masks of 0 and 255": pairs(mask=MASK * np.uint8(255)),
    "Masks with unlabeled": pairs(mask=np.where(np.eye(HEIGHT, WIDTH, dtype=bool), 255, MASK).astype(np.uint8)),
    "Masks named": pairs(images="photos", masks="outlines", ending="_mask"),
    "Masks in colors, with": with_labelmap,
    "Masks in colors": colored,
    "Masks with one number": pairs(mask=NUMBERED),
    "One mask file per object": lambda root: write("dsb2018-stage1", root, count=20),
    "Files anywhere": listed,
    "Several images": pairs(names=[f"{patient}_{side}" for patient in range(3) for side in ("left", "right")]),
    "A CSV file with": with_patients,
    "Gray images": pairs(image(1, np.uint16, 4095)),
    "TIFF files of five": pairs(image(5, np.uint16, 65535), suffix=".tif"),
    "Satellite": pairs(image(4, np.uint16, 10000), suffix=".tif"),
    "Arrays": pairs(image(4, np.float32, 2), suffix=".npy"),
    "One file per channel": one_channel_each,
    "Volumes": nifti,
    "Stacks": stacks,
    "A raw folder": raw,
    "COCO": annotated("coco"),
    "LabelMe": annotated("labelme"),
    "YOLO": annotated("yolo-seg"),
    "CVAT": annotated("cvat"),
    "Label Studio": annotated("label-studio"),
    "Run lengths": annotated("rle-csv"),
}


@pytest.fixture
def plugin(monkeypatch):
    """The datasets of unetzoo-formats, whether it is installed or not."""
    monkeypatch.setattr(unetzoo.DATASETS, "_local", {})
    monkeypatch.syspath_prepend(str(FORMATS / "src"))
    targets = tomllib.loads((FORMATS / "pyproject.toml").read_text())["project"]["entry-points"]["unetzoo.datasets"]

    def register(name):
        if name in targets and name not in unetzoo.DATASETS.names():
            pytest.importorskip("pycocotools")
            module, _, attribute = targets[name].partition(":")
            __import__(module)
            unetzoo.DATASETS.register(name)(getattr(sys.modules[module], attribute))

    return register


def shown(report):
    console = Console(file=io.StringIO(), width=200)
    console.print(report)
    return console.file.getvalue()


def test_each_row_has_a_writer():
    assert len(ROWS) == len(WRITERS) > 20


@pytest.mark.parametrize("have", ROWS)
def test_the_documented_table_reads_such_data(have, plugin, tmp_path):
    table = tomllib.loads(ROWS[have])
    plugin(table["name"])
    writer = next(writer for start, writer in WRITERS.items() if have.startswith(start))
    root = tmp_path / "data"
    writer(root)
    options = {key: value for key, value in table.items() if key != "name"}
    train, val = (
        unetzoo.DATASETS.build(table["name"], root=root, split=split, **options) for split in ("train", "val")
    )
    assert len(train) and len(val) and not {s["id"] for s in train} & {s["id"] for s in val}
    sample = train[0]
    assert sample["image"].shape[:2] == sample["mask"].shape and sample["mask"].max() >= 1
    if sample["mask"].shape == MASK.shape:
        assert ((sample["mask"] == MASK) | (sample["mask"] == 255)).all()
    if sample["image"].dtype == np.float32:
        assert 0 <= sample["image"].min() < sample["image"].max() <= 1
    if "group" in ROWS[have]:
        patient = {"csv": lambda name: int(name[-1]) // 2, "folder": lambda name: name[0]}[table["name"]]
        assert not {patient(s["id"]) for s in train} & {patient(s["id"]) for s in val}
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'[model]\nname = "bnunet"\nclasses = {len(train.labels)}\n[data]\nroot = "{root}"\n{ROWS[have]}\n'
        '[loss]\nce = 1.0\n[metrics.mask]\nname = "segmentation"\n'
    )
    assert len(load(recipe).data.build("val")) == len(val)
    report = audit(root)
    assert report.dataset == table["name"] and 'name = "' in shown(report)
