"""Inputs of a prediction run: lists, links, folders with broken images, images of every kind."""

import io
import json
import os
import struct
import zlib

import numpy as np
import pytest
import tifffile
from conftest import tiny
from exporting import run_folder
from PIL import Image
from predicting import Channels, noise, read, save
from refusals import refused

import unetzoo
from unetzoo import cli
from unetzoo.errors import ConfigError, DataError, ImageDecodeError, PairingError
from unetzoo.inference import Predictor, predict_to


def test_a_list_is_predicted_without_missing_files(tmp_path):
    path = save(tmp_path / "a.png", noise(5, 6, 3))
    failures = Predictor(Channels()).predict_files([tmp_path / "none.png", path], tmp_path / "out")
    assert [type(error) for error in failures] == [ImageDecodeError] and "no such file" in str(failures[0])
    assert (tmp_path / "out" / "a.png").exists()
    for missing in ("no*.png", "none [1].png"):
        (failure,) = Predictor(Channels()).predict_files([tmp_path / missing, path], tmp_path / "out")
        assert "no such file" in str(failure) and missing in str(failure)
    with pytest.raises(DataError, match="no images"):
        Predictor(Channels()).predict_files(tmp_path / "no*.png", tmp_path / "out")


def test_a_file_named_in_several_ways_is_one_image(tmp_path, monkeypatch):
    path = save(tmp_path / "in" / "a.png", noise(5, 6, 3))
    monkeypatch.chdir(tmp_path)
    told = []
    names = ["in/a.png", "./in/a.png", str(path), tmp_path / "in", "in/../in/a.png", "in/*.png"]
    assert not Predictor(Channels()).predict_files(names, "out", seen=lambda *facts: told.append(facts))
    assert told == [(1, 1, None)]


def test_broken_links_are_reported(tmp_path):
    save(tmp_path / "in" / "a.png", noise(5, 6, 3))
    (tmp_path / "in" / "b.png").symlink_to("gone.png")
    (tmp_path / "in" / "folder.png").mkdir()
    (failure,) = Predictor(Channels()).predict_files(tmp_path / "in", tmp_path / "out")
    assert "no such file" in str(failure) and "b.png" in str(failure)


def test_backgrounds_of_one_name(tmp_path):
    path = save(tmp_path / "in" / "a.png", noise(8, 9, 3))
    for suffix in ("png", "jpg"):
        save(tmp_path / "bg" / f"a.{suffix}", noise(8, 9, 3))
    with refused(PairingError, found=("a.jpg", "a.png")):
        Predictor(Channels(6)).predict_files(path, tmp_path / "out", background=tmp_path / "bg")


def test_results_are_never_predicted_again(tmp_path):
    path, other = (save(tmp_path / name, noise(5, 6, 3)) for name in ("a.jpg", "sub/b.jpg"))
    predictor = Predictor(Channels())
    asked = {"inputs": f"{tmp_path}/**", "out_dir": tmp_path / "out", "products": "overlay"}
    assert predictor.predict_files(**asked) == []
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.*")}
    assert before.keys() == {path, other, *(tmp_path / "out" / f"{name}_overlay.png" for name in "ab")}
    with pytest.raises(ConfigError):
        predictor.predict_files(**asked)
    with pytest.raises(ConfigError):
        predictor.predict_files(**asked | {"out_dir": tmp_path})
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.*")} == before
    beside = {**asked, "inputs": tmp_path / "sub", "out_dir": tmp_path / "sub" / "out"}
    assert predictor.predict_files(**beside) == predictor.predict_files(**beside) == []
    assert [file.name for file in (tmp_path / "sub" / "out").iterdir()] == ["b_overlay.png"]


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
def test_names_that_are_no_text(tmp_path, capfd, monkeypatch):
    run = run_folder(tmp_path / "run", tiny("bnunet", classes=1, in_channels=3))
    folder = os.fsencode(tmp_path)
    image = os.path.join(folder, b"a\xff.png")
    Image.fromarray(noise(40, 31, 3)).save(os.fsdecode(image))
    lines = b"\n".join([image, os.path.join(folder, b"none\xfe.png")])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines), encoding="utf-8"))
    with pytest.raises(SystemExit) as ended:
        cli.main(["predict", str(run), "-", str(tmp_path / "out")])
    printed = capfd.readouterr()
    assert ended.value.code == 3 and "none" in printed.err and "Traceback" not in printed.err
    facts = json.loads((tmp_path / "out" / os.fsdecode(b"a\xff.json")).read_text(encoding="utf-8"))
    assert facts["image"] == os.fsdecode(image)


def messy(folder):
    """Files that are not images, by the expected error."""
    good = save(folder / "good.png", noise(30, 20, 3)).read_bytes()
    damaged = bytearray(good)
    damaged[len(good) // 2 : len(good) // 2 + 50] = bytes(50)

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    def declared(width, height):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        return good[:8] + header + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")

    files = {
        "unreadable": [good[: len(good) // 2], bytes(damaged), declared(30, 20)],
        "without content": [b""],
        "not an image": [b"text", declared(0, 9)],
        "too large": [declared(60_000, 60_000), declared(12_000, 12_000), declared(2**31 - 1, 2**31 - 1)],
    }
    for what, contents in files.items():
        for number, content in enumerate(contents):
            (folder / f"{what}~{number}.png").write_bytes(content)
    frames = [Image.fromarray(noise(4, 5, 3)), Image.fromarray(255 - noise(4, 5, 3))]
    for suffix in ("gif", "webp", "tif"):
        frames[0].save(folder / f"several images~{suffix}.{suffix}", save_all=True, append_images=frames[1:])
    Image.fromarray(noise(4, 5, 1)[..., 0].astype(np.uint16)).save(folder / "more than 8 bits~.png")
    Image.fromarray(noise(4, 5, 1)[..., 0].astype(np.float32)).save(folder / "more than 8 bits~f.tif")
    return 6 + 3 + 3 + 2


def test_a_folder_of_all_that_can_be_wrong(tmp_path):
    count = messy(tmp_path / "in")
    failures = Predictor(Channels()).predict_files(tmp_path / "in", tmp_path / "out", products="mask")
    assert len(failures) == count
    for error in failures:
        said = os.path.basename(str(error.subject)).partition("~")[0]
        assert said in error.what
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.png"]


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        *(("tif", mode) for mode in ("L", "P", "RGB", "RGBA", "CMYK")),
        *(("png", mode) for mode in ("L", "P", "RGB", "RGBA")),
        *(("jpg", mode) for mode in ("L", "RGB", "CMYK")),
    ],
)
def test_images_of_any_kind_are_read_upright(tmp_path, mode, turn, suffix):
    image = Image.fromarray(noise(7, 12, 3)).resize((24, 14)).convert(mode)
    exif = Image.Exif()
    exif[0x112] = turn
    path = tmp_path / f"a.{suffix}"
    image.save(path)
    raw = np.asarray(read(path).convert("RGB"))
    image.save(path, exif=exif)
    upright = np.rot90(raw, {1: 0, 3: 2, 6: -1, 8: 1}[turn])
    assert np.array_equal(Predictor(Channels()).segment(path).image, upright)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_shipped_weights_and_an_image_of_five_channels(tmp_path, dtype):
    image = np.zeros((64, 64, 5), dtype)
    tifffile.imwrite(tmp_path / "five.tif", image, photometric="minisblack", planarconfig="contig")
    nuclei = unetzoo.load("nuclei")
    with refused(DataError, found="5"):
        nuclei.predict(image)
    with refused(DataError, subject="five.tif", found="5 channels", hint="RGB with 8 bits"):
        nuclei.predict(tmp_path / "five.tif")
    with refused(DataError, subject="five.tif", found="5 channels", hint="RGB with 8 bits"):
        predict_to(nuclei, tmp_path / "five.tif", tmp_path / "c.tif", instances=tmp_path / "i.tif")
    assert [path.name for path in tmp_path.iterdir()] == ["five.tif"]
