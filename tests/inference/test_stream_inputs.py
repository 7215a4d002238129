"""Streaming: sources that cannot be read, wrong arguments, and the command."""

import numpy as np
import pytest
import tifffile
import torch
from refusals import refused
from streaming import agree, classes_of, random_image, small

import unetzoo
from unetzoo.errors import ConfigError, DataError, ImageDecodeError, InputShapeError
from unetzoo.inference import Preprocess, predict_to


def broken_tiffs(folder):
    path = folder / "good.tif"
    tifffile.imwrite(path, random_image(200, 200, 2), tile=(64, 64), compression="zlib", planarconfig="contig")
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    middle = bytearray(data)
    middle[len(data) // 2 : len(data) // 2 + 400] = rng.bytes(400)
    return {
        "truncated": data[: len(data) * 2 // 3],
        "damaged": bytes(middle),
        "empty": b"",
        "text": b"II not a TIFF at all",
        "header": data[:8] + rng.bytes(len(data) - 8),
    }


@pytest.mark.parametrize("kind", ["truncated", "damaged", "empty", "text", "header"])
def test_broken_tiffs(tmp_path, kind, caplog):
    (tmp_path / "bad.tif").write_bytes(broken_tiffs(tmp_path)[kind])
    with refused(DataError, subject="bad.tif"):
        predict_to(small(), tmp_path / "bad.tif", tmp_path / "out.npy", tile=96)
    assert not (tmp_path / "out.npy").exists()


def test_mutated_tiffs_raise_our_errors_only(tmp_path):
    tifffile.imwrite(tmp_path / "good.tif", random_image(60, 60, 1)[..., 0], tile=(32, 32), compression="zlib")
    data, rng = (tmp_path / "good.tif").read_bytes(), np.random.default_rng(1)
    net = small(in_channels=1)
    outcomes = []
    for number in range(60):
        mutant = bytearray(data)
        for place in rng.integers(0, 400 if number % 2 else len(data), 3):
            mutant[place] = rng.integers(256)
        (tmp_path / "bad.tif").write_bytes(mutant)
        try:
            predict_to(net, tmp_path / "bad.tif", tmp_path / f"{number}.npy", memory="50MB")
            outcomes.append("read")
        except (DataError, ConfigError):
            outcomes.append("refused")
    assert outcomes.count("refused") > 10


def test_sources_that_cannot_be_read(tmp_path):
    net, image = small(), random_image(70, 80)
    out = tmp_path / "out.npy"
    tifffile.imwrite(tmp_path / "pages.tif", random_image(40, 40, 5).transpose(2, 0, 1), photometric="minisblack")
    tifffile.imwrite(tmp_path / "turned.tif", image[..., 0], extratags=[(274, 3, 1, 6, True)])
    tifffile.imwrite(tmp_path / "white.tif", image[..., 0], photometric="miniswhite")
    tifffile.imwrite(
        tmp_path / "palette.tif", image[..., 0], photometric="palette", colormap=np.zeros((3, 256), np.uint16)
    )
    (tmp_path / "in.png").write_bytes(b"")
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY\x01\x00 no header")
    np.save(tmp_path / "short.npy", image)
    (tmp_path / "short.npy").write_bytes((tmp_path / "short.npy").read_bytes()[:-5])
    for source, error in [
        ("none.tif", ImageDecodeError),
        ("in.png", DataError),
        ("pages.tif", DataError),
        ("turned.tif", DataError),
        ("palette.tif", DataError),
        ("white.tif", DataError),  # gray is no 2 channels
        ("bad.npy", ImageDecodeError),
        ("short.npy", ImageDecodeError),
    ]:
        with pytest.raises(error) as caught:
            predict_to(net, tmp_path / source, out)
        assert caught.value.hint
        assert caught.value.subject == tmp_path / source
    for source, error in [
        (image[..., :1], InputShapeError),
        (image.astype(np.int64), DataError),
        (image[0, 0], InputShapeError),
        (image[:0], InputShapeError),
        (torch.zeros(2, 9, 9), DataError),
        (None, DataError),
    ]:
        with pytest.raises(error):
            predict_to(net, source, out)
    assert not out.exists() and not out.with_name("out.npy.part").exists()


def test_wrong_arguments(tmp_path):
    net, image = small(), random_image(200, 180)
    out = tmp_path / "out.npy"
    (tmp_path / "there.npy").write_bytes(b"mine")
    for target, options, fields in [
        (tmp_path / "there.npy", {}, {"subject": "there.npy"}),
        (tmp_path / "out.png", {}, {"expected": ".npy, .tif", "found": ".png"}),
        (tmp_path / "none" / "out.npy", {}, {"subject": tmp_path / "none"}),
        (out, {"depth": tmp_path / "d.npy"}, {"subject": "d.npy"}),
        (out, {"probabilities": tmp_path / "p.tif"}, {"found": "p.tif"}),
        (out, {"probabilities": out}, {"found": "out.npy, "}),
        (out, {"tile": 40}, {"hint": "tile=52"}),
        (out, {"tile": "large"}, {"found": "large"}),
        (out, {"memory": "much"}, {"found": "much", "expected": "2GB"}),
        (out, {"memory": "10KB"}, {"expected": "MB", "hint": "more memory"}),
        (out, {"memory": "1MB", "tile": 160}, {"expected": "MB", "subject": "windows of"}),
        (out, {"tta": "paper"}, {"found": "paper", "hint": "d4"}),
        (out, {"preprocess": Preprocess(size=(64, 64))}, {"expected": "a tensor", "hint": "without resizing"}),
    ]:
        with refused(ConfigError, **fields):
            predict_to(net, image, target, **options)
    assert (tmp_path / "there.npy").read_bytes() == b"mine"
    assert [p.name for p in tmp_path.iterdir()] == ["there.npy"]
    with refused(DataError, expected="uint8", found="uint16", hint="8 bits"):
        predict_to(net, image.astype(np.uint16), out, preprocess=Preprocess())


def test_the_command(tmp_path, capsys):
    from unetzoo.cli import main
    from unetzoo.inference import ModelBundle

    net, image = small(), random_image(90, 120)
    tifffile.imwrite(tmp_path / "in.tif", image, planarconfig="contig", photometric="minisblack", tile=(32, 32))
    trained = ModelBundle(net, unetzoo.LabelSpec.indexed(3), Preprocess())
    trained.attach()
    net.save_pretrained(tmp_path / "net")
    main_arguments = [
        "stream",
        str(tmp_path / "net"),
        str(tmp_path / "in.tif"),
        str(tmp_path / "out.tif"),
        "--device",
        "cpu",
        "--quiet",
    ]
    with pytest.raises(SystemExit) as ended:
        main([*main_arguments, "--memory", "20MB", "--tta", "flips"])
    assert ended.value.code in (0, None)
    shown = capsys.readouterr().out
    assert "1 window of" in shown and "pixels encoded twice" in shown
    assert agree(tifffile.imread(tmp_path / "out.tif"), classes_of(net, image, tta="flips"))
    with pytest.raises(SystemExit) as ended:
        main(main_arguments)
    assert ended.value.code == 2 and "exists already" in capsys.readouterr().err
    trained._replace(mode="multilabel").attach()
    net.save_pretrained(tmp_path / "net")
    with pytest.raises(SystemExit) as ended:
        main(main_arguments)
    assert ended.value.code == 2 and "several labels" in capsys.readouterr().err
