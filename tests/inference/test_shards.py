"""Predictions divided among machines: together they write what one call would."""

import json

import numpy as np
import pytest
import tifffile
from conftest import tiny
from predicting import SPEC, Channels, knowing, noise, save
from refusals import refused
from streaming import random_image, small

import unetzoo
from unetzoo import cli
from unetzoo.errors import ConfigError
from unetzoo.inference import Predictor, predict_to
from unetzoo.inference.shards import Shard

PRODUCTS = "mask,json,coco,coco_rle"


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("items", [0, 1, 3, 20])
def test_every_item_is_in_one_shard(count, items):
    shards = [Shard(number, count) for number in range(1, count + 1)]
    assert sorted(item for shard in shards for item in shard.take(range(items))) == [*range(items)]
    assert [row for shard in shards for row in shard.rows(items)] == [*range(items)]


@pytest.mark.parametrize("given", ["0/3", "4/3", "3", "a/b", "1/2/3", (2, 1), (1,), "-1/3"])
def test_a_wrong_shard_is_refused(given):
    with refused(ConfigError, expected="3/16"):
        Shard.of(given)


def images(folder, count=5, side=8):
    for number in range(count):
        save(folder / f"{number}.png", noise(side + number, side + 4, 3))
    return folder


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_shards_write_together_what_one_call_writes(tmp_path):
    source = images(tmp_path / "in")
    (source / "bad.png").write_bytes(b"broken")
    whole = Predictor(Channels(), labels=SPEC).predict_files(source, tmp_path / "whole", products=PRODUCTS)
    failures = []
    for number in (2, 3, 1):
        assert not (tmp_path / "out" / "annotations.coco.json").exists()
        failures += Predictor(Channels(), labels=SPEC).predict_files(
            source, tmp_path / "out", products=PRODUCTS, shard=f"{number}/3"
        )
    assert len(whole) == len(failures) == 1
    assert files(tmp_path / "out") == files(tmp_path / "whole")


class Counting(Channels):
    def __init__(self, kill=0):
        super().__init__()
        self.count, self.kill = 0, kill

    def forward(self, x):
        self.count += 1
        if self.count == self.kill:
            raise KeyboardInterrupt
        return x


def predict(folder, net, **options):
    seen = []
    Predictor(net).predict_files(
        folder / "in", folder / "out", products=PRODUCTS, seen=lambda *given: seen.append(given[:2]), **options
    )
    return seen


def test_a_killed_shard_goes_on_where_it_was_and_merges(tmp_path):
    images(tmp_path / "in", 9)
    Predictor(Counting()).predict_files(tmp_path / "in", tmp_path / "whole", products=PRODUCTS)
    with pytest.raises(KeyboardInterrupt):
        predict(tmp_path, Counting(kill=3), shard=(1, 2))
    journal = tmp_path / "out" / "shards" / "1-of-2.jsonl"
    done = journal.read_bytes().count(b'"image"')
    with open(journal, "ab") as file:
        file.write(b'{"image": 9, "sta')  # as a kill leaves it
    predict(tmp_path, Counting(), shard=(2, 2))
    net = Counting()
    assert predict(tmp_path, net, shard=(1, 2), resume=True)[-1] == (5, 5)
    assert net.count == 5 - done == 3 and files(tmp_path / "out") == files(tmp_path / "whole")
    net = Counting()
    assert predict(tmp_path, net, shard=(1, 2), resume=True) == [] and net.count == 0
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_what_has_changed_is_predicted_again_and_another_network_is_refused(tmp_path):
    images(tmp_path / "in")
    predict(tmp_path, Counting(), resume=True)
    save(tmp_path / "in" / "3.png", noise(30, 30, 3))
    net = Counting()
    assert predict(tmp_path, net, resume=True) == [(5, 5)] and net.count == 1
    with refused(ConfigError, subject="1-of-1.jsonl", found="network"):
        predict(tmp_path, Channels(), resume=True)
    predict(tmp_path, Channels())  # starts anew


@pytest.mark.slow
def test_exported_networks_are_told_apart(tmp_path):
    images(tmp_path / "in", 2, side=40)
    for name in ("one", "two"):
        net = knowing(tiny("bnunet", classes=2, in_channels=3).eval())
        unetzoo.export(net, tmp_path / f"{name}.pt2")
    predict(tmp_path, unetzoo.load(tmp_path / "one.pt2"), resume=True)
    assert predict(tmp_path, unetzoo.load(tmp_path / "one.pt2"), resume=True) == []
    with refused(ConfigError, found="network"):
        predict(tmp_path, unetzoo.load(tmp_path / "two.pt2"), resume=True)


def test_members_of_an_ensemble_are_told_apart(tmp_path):
    images(tmp_path / "in", 2)
    nets = [knowing(tiny("bnunet", classes=2, in_channels=3).eval()) for _ in range(3)]
    predict(tmp_path, nets[:2], shard=(1, 2))
    with refused(ConfigError, found="network"):
        predict(tmp_path, nets[1:], shard=(1, 2), resume=True)


def test_a_shard_of_another_network_is_not_merged(tmp_path):
    images(tmp_path / "in")
    predict(tmp_path, Channels(), shard="1/2")
    predict(tmp_path, Counting(), shard="2/2")
    assert not (tmp_path / "out" / "annotations.coco.json").exists()
    predict(tmp_path, Counting(), shard="1/2")
    assert (tmp_path / "out" / "annotations.coco.json").exists()


@pytest.mark.parametrize(("blend", "tta"), [("exact", None), ("gaussian", None), ("exact", "flips")])
def test_bands_of_an_image_are_joined_to_what_one_call_writes(tmp_path, blend, tta):
    net, image = small("dualunet", classes=3), random_image(230, 70)
    options = {"tile": 64, "blend": blend, "tta": tta}
    (tmp_path / "whole").mkdir()
    (tmp_path / "out").mkdir()

    def stream(folder, **given):
        names = {"target": "classes.tif", "depth": "depth.npy", "probabilities": "p.npy"}
        paths = {key: folder / name for key, name in names.items()}
        return predict_to(net, image, **paths, **options, **given)

    stream(tmp_path / "whole")
    rows = [stream(tmp_path / "out", shard=(number, 4)).rows for number in (3, 1, 4)]
    assert not (tmp_path / "out" / "classes.tif").exists()
    assert stream(tmp_path / "out", shard=(1, 4), resume=True).rows == 0  # a shard that is done stays so
    rows.append(stream(tmp_path / "out", shard="2/4").rows)
    assert sum(rows) == 230
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"classes.tif", "depth.npy", "p.npy"}
    assert np.array_equal(*(tifffile.imread(tmp_path / name / "classes.tif") for name in ("out", "whole")))
    for name in ("depth.npy", "p.npy"):
        assert np.array_equal(*(np.load(tmp_path / folder / name) for folder in ("out", "whole")))


def test_a_band_that_was_interrupted_is_resumed(tmp_path, monkeypatch):
    from unetzoo.inference import resumable_writer

    net, image = small(), random_image(200, 60)
    predict_to(net, image, tmp_path / "whole.npy", tile=64)
    write, calls = resumable_writer.ResumableWriter.write, []

    def interrupted(self, start, bands):
        calls.append(start)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(self, start, bands)

    monkeypatch.setattr(resumable_writer.ResumableWriter, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_to(net, image, tmp_path / "out.npy", tile=64, shard="1/2")
    monkeypatch.undo()
    with refused(ConfigError, hint="resume"):
        predict_to(net, image, tmp_path / "out.npy", tile=64, shard="1/2")
    predict_to(net, image, tmp_path / "out.npy", tile=64, shard="2/2", resume=True)
    assert 0 < predict_to(net, image, tmp_path / "out.npy", tile=64, shard="1/2", resume=True).rows < 100
    assert np.array_equal(np.load(tmp_path / "out.npy"), np.load(tmp_path / "whole.npy"))


def test_bands_of_another_network_are_not_joined(tmp_path):
    image = random_image(100, 40)
    predict_to(small(), image, tmp_path / "out.npy", tile=64, shard="1/2")
    predict_to(small(encoder_channels=(4, 8, 8)), image, tmp_path / "out.npy", tile=64, shard="2/2")
    assert not (tmp_path / "out.npy").exists()


def test_more_shards_than_rows(tmp_path):
    image = random_image(3, 40)
    predict_to(small(), image, tmp_path / "whole.npy")
    for number in range(1, 6):
        predict_to(small(), image, tmp_path / "out.npy", shard=(number, 5))
    assert np.array_equal(np.load(tmp_path / "out.npy"), np.load(tmp_path / "whole.npy"))


def test_the_command_line(tmp_path, capsys):
    net = knowing(tiny("bnunet", classes=2, in_channels=3).eval())
    net.save_pretrained(tmp_path / "net")
    images(tmp_path / "in", 3)
    np.save(tmp_path / "slide.npy", noise(60, 40, 3))
    for number in (1, 2):
        for command in (
            ["predict", "net", "in", "out", "--shard", f"{number}/2", "--resume", "--write", "mask,coco"],
            ["stream", "net", "slide.npy", "classes.npy", "--shard", f"{number}/2", "--quiet"],
        ):
            given = [str(tmp_path / word) if word in ("net", "in", "out", "slide.npy", "classes.npy") else word
                     for word in command]  # fmt: skip
            with pytest.raises(SystemExit) as ended:
                cli.main(given)
            assert not ended.value.code, capsys.readouterr().err
    assert len(json.loads((tmp_path / "out" / "annotations.coco.json").read_text())["images"]) == 3
    assert (tmp_path / "classes.npy").exists() and "shard 1/2" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        cli.main(["predict", str(tmp_path / "net"), str(tmp_path / "in"), str(tmp_path / "out"), "--shard", "3/2"])
    assert ended.value.code == 2 and "K/N" in capsys.readouterr().err
