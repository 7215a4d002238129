"""`predict_to` killed at every step that it takes on the disk, and gone on with."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from predicting import knowing
from refusals import refused

import unetzoo
from unetzoo.errors import ConfigError
from unetzoo.inference import predict_to, resumable_writer

OPTIONS = {"tile": 64}
STEPS = ((os, "replace"), (os, "fsync"), (os, "posix_fallocate"), (Path, "unlink"))


class Killed(BaseException):
    """No `except Exception` sees it, and no `finally` of ours may matter."""


class Life:
    """Ends at its n-th step on the disk, before or after that is taken."""

    def __init__(self, steps, after):
        self.left, self.after = steps, after

    def counted(self, step):
        def taken(*args, **options):
            self.left -= 1
            if self.left < 0 or (self.left == 0 and not self.after):
                raise Killed
            answer = step(*args, **options)
            if self.left == 0:
                raise Killed
            return answer

        return taken


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return knowing(unetzoo.build("dualunet", in_channels=2, classes=3, encoder_channels=(4, 8, 8)).eval())


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (150, 40, 2), np.uint8)


def paths(folder):
    return {"target": folder / "out.npy", "depth": folder / "depth.tif", "probabilities": folder / "p.npy"}


def values(folder):
    read = {".npy": np.load, ".tif": tifffile.imread}
    return {path.name: read[path.suffix](path) for path in paths(folder).values()}


@pytest.fixture(scope="module")
def whole(net, image, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    predict_to(net, image, **paths(folder), **OPTIONS)
    return values(folder)


def killed(net, image, folder, life, monkeypatch, resume=False):
    """Whether the call was killed."""
    with monkeypatch.context() as patch:
        for owner, name in (step for step in STEPS if hasattr(*step)):
            patch.setattr(owner, name, life.counted(getattr(owner, name)))
        try:
            predict_to(net, image, **paths(folder), **OPTIONS, resume=resume)
        except Killed:
            return True
    return False


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_it_resumes_after_a_kill_at_any_point(tmp_path, monkeypatch, net, image, whole, after):
    for step in range(1, 100):
        folder = tmp_path / str(step)
        folder.mkdir()
        if not killed(net, image, folder, Life(step, after), monkeypatch):
            break
        if all(path.exists() for path in paths(folder).values()) and not (folder / "out.npy.part.json").exists():
            continue  # nothing was left to do
        with refused(ConfigError, hint="resume=True"):
            predict_to(net, image, **paths(folder), **OPTIONS)
        predict_to(net, image, **paths(folder), **OPTIONS, resume=True)
        found = values(folder)
        assert all(np.array_equal(found[name], whole[name]) for name in whole), step
        assert {path.name for path in folder.iterdir()} == set(whole), step
    assert 15 < step < 99


def test_killed_again_and_again(tmp_path, monkeypatch, net, image, whole):
    lives = 1
    while killed(net, image, tmp_path, Life(9, lives % 2 == 0), monkeypatch, resume=True):
        lives += 1
    found = values(tmp_path)
    assert lives > 2 and all(np.array_equal(found[name], whole[name]) for name in whole)


def test_complete_results_are_not_replaced(tmp_path, net, image, whole):
    predict_to(net, image, **paths(tmp_path), **OPTIONS)
    for resume, fields in ((True, {"found": "out.npy", "hint": "complete"}), (False, {"hint": "delete it"})):
        with refused(ConfigError, **fields):
            predict_to(net, image, **paths(tmp_path), **OPTIONS, resume=resume)
    found = values(tmp_path)
    assert all(np.array_equal(found[name], whole[name]) for name in whole)


@pytest.mark.parametrize("harm", ["cut", "gone", "note"])
def test_unfinished_files_that_were_harmed_are_begun_anew(tmp_path, monkeypatch, net, image, whole, harm):
    assert killed(net, image, tmp_path, Life(12, True), monkeypatch)
    note = tmp_path / "out.npy.part.json"
    assert 0 < json.loads(note.read_text())["rows"] < 150
    if harm == "cut":
        os.truncate(tmp_path / "p.npy.part", 1000)
    elif harm == "gone":
        (tmp_path / "depth.tif.part").unlink()
    else:
        note.write_text('{"rows": 64, "recipe": 3, "bytes": 4}')
    assert predict_to(net, image, **paths(tmp_path), **OPTIONS, resume=True).rows == 150
    assert np.array_equal(values(tmp_path)["p.npy"], whole["p.npy"])


def test_a_name_taken_meanwhile_is_kept_and_freed_by_hand(tmp_path, monkeypatch, net, image, whole):
    names = paths(tmp_path)
    finish = resumable_writer.ResumableWriter.finish

    def late(self):
        names["probabilities"].write_bytes(b"mine")
        finish(self)

    with monkeypatch.context() as patch, refused(ConfigError, subject="p.npy"):
        patch.setattr(resumable_writer.ResumableWriter, "finish", late)
        predict_to(net, image, **names, **OPTIONS)
    assert names["probabilities"].read_bytes() == b"mine" and not names["target"].exists()
    with refused(ConfigError, subject="p.npy"):
        predict_to(net, image, **names, **OPTIONS, resume=True)
    names["probabilities"].unlink()
    assert predict_to(net, image, **names, **OPTIONS, resume=True).rows == 0
    assert np.array_equal(values(tmp_path)["p.npy"], whole["p.npy"])


def test_a_name_that_is_too_long(tmp_path, net, image):
    with refused(ConfigError, hint="another name"):
        predict_to(net, image, tmp_path / f"{'x' * 300}.npy")


def test_a_disk_that_refuses_the_last_names(tmp_path, monkeypatch, net, image, whole):
    replace = os.replace

    def refuse(source, target):
        if str(target).endswith("depth.tif"):
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    with monkeypatch.context() as patch, refused(ConfigError, found="Permission denied", hint="--resume"):
        patch.setattr(resumable_writer.os, "replace", refuse)
        predict_to(net, image, **paths(tmp_path), **OPTIONS)
    predict_to(net, image, **paths(tmp_path), **OPTIONS, resume=True)
    assert np.array_equal(values(tmp_path)["depth.tif"], whole["depth.tif"])
