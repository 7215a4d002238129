"""The cache survives damage, full disks, concurrent builders and kills, or raises a clear error."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import random
import signal
import sys
import time
import traceback
import warnings
import zipfile

import numpy as np
import pytest
from caching import All, caches, debris, quiet, same
from killing import die_at

from unetzoo.datasets import (
    Folder,
    cached,
    cachefile,
    store,
)
from unetzoo.errors import CacheError, ImageDecodeError


def altered(path, rng):
    raw = bytearray(path.read_bytes())
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    path.write_bytes(raw)


def test_every_flipped_bit_is_found(tmp_path):
    data = All()
    kept = quiet(data, folder=tmp_path)
    path, truth = kept.path, [kept[i] for i in range(5)]
    whole, rng = path.read_bytes(), random.Random(0)
    found = 0
    for _ in range(400):
        path.write_bytes(whole)
        altered(path, rng)
        fresh = pickle.loads(pickle.dumps(kept))
        try:
            for i in range(5):
                same(truth[i], fresh[i])
        except CacheError as error:
            found += 1
            assert str(path) in str(error) and "rebuilt" in str(error)
    assert found > 300  # the rest fell between the blocks, where nothing is read


@pytest.mark.parametrize("place", [0, 5, 20, 62, 70, -1, -2000])
def test_damaged_caches_are_rebuilt(tmp_path, place, capsys):
    data = All()
    kept = quiet(data, folder=tmp_path)
    raw = bytearray(kept.path.read_bytes())
    raw[place] ^= 255
    kept.path.write_bytes(raw)
    kept = cached(data, folder=tmp_path, workers=0)
    with contextlib.suppress(CacheError):  # a plane is checked when it is read; then the file is removed
        list(kept)
    kept = quiet(data, folder=tmp_path)
    for i in range(5):
        same(data[i], kept[i])


def test_a_file_cut_short_is_no_death(tmp_path):
    data = All()
    kept = quiet(data, folder=tmp_path)
    kept[0]
    with open(kept.path, "r+b") as file:
        file.truncate(500)  # under the map: reading beyond the end would kill the process
    with pytest.raises(CacheError, match="sample"):
        kept[4]
    assert not kept.path.exists()
    for length in (0, 10, 64, 500, 3000):
        kept = quiet(data, folder=tmp_path)
        with open(kept.path, "r+b") as file:
            file.truncate(length)
        with pytest.raises(CacheError, match="damaged"):
            pickle.loads(pickle.dumps(kept))[0]
    kept.path.unlink(missing_ok=True)
    with pytest.raises(CacheError, match=r"cannot read.*\.cache"):
        pickle.loads(pickle.dumps(kept))[0]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk(tmp_path, monkeypatch, number, workers):
    real = zipfile.ZipFile.writestr
    for failing in (1, 3, 5):
        calls = iter(range(1, 99))

        def write(archive, name, content, failing=failing, calls=calls):
            if next(calls) >= failing:
                archive.fp.write(b"PK")
                raise OSError(number, os.strerror(number))
            real(archive, name, content)

        monkeypatch.setattr(zipfile.ZipFile, "writestr", write)
        with pytest.raises(CacheError) as caught:
            cached(All(), folder=tmp_path, workers=workers, progress=False)
        assert isinstance(caught.value, OSError) and "UNETZOO_CACHE" in caught.value.hint
        assert not caches(tmp_path) and not debris(tmp_path)
        monkeypatch.undo()
    same(quiet(All(), folder=tmp_path)[1], All()[1])


@pytest.mark.parametrize("step", ["os.fsync", "os.replace", "zipfile.ZipFile.writestr", "pathlib.Path.mkdir"])
def test_failures_at_every_other_step(tmp_path, monkeypatch, step):
    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(step, refuse)
    with pytest.raises(CacheError, match=r"cannot write the cache.*Read-only.*Fix: set UNETZOO_CACHE"):
        quiet(All(), folder=tmp_path / "c")
    monkeypatch.undo()
    assert not caches(tmp_path) and not debris(tmp_path)
    same(quiet(All(), folder=tmp_path / "c")[1], All()[1])


def test_a_whole_cache_is_used_where_nothing_can_be_written(tmp_path, monkeypatch):
    quiet(All(), folder=tmp_path)

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    for step in ("os.replace", "os.fsync", "pathlib.Path.mkdir", "unetzoo.datasets.store.FileLock"):
        monkeypatch.setattr(step, refuse)
    same(quiet(All(), folder=tmp_path)[1], All()[1])
    with pytest.raises(CacheError, match="Permission denied"):
        quiet(All(3), folder=tmp_path)


def test_the_place(tmp_path, monkeypatch):
    monkeypatch.setenv("UNETZOO_CACHE", str(tmp_path / "mine"))
    assert quiet(All()).path.parent == tmp_path / "mine" / "samples"
    monkeypatch.delenv("UNETZOO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert store.cache_root() == tmp_path / "xdg" / "unetzoo"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, according to the specification
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store.cache_root() == tmp_path / ".cache" / "unetzoo"
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError):
        quiet(All(), folder=tmp_path / "file")


@pytest.fixture
def forked(tmp_path):
    """forked(work): the pid of a fork that does the work, with its standard error in `<pid>.err`."""
    if not hasattr(os, "fork"):
        pytest.skip("copies this process")
    children = []

    def fork(work):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, none of which holds a lock
            pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with open(tmp_path / f"{os.getpid()}.err", "w", buffering=1) as sys.stderr:
                    try:
                        work()
                        code = 0
                    except BaseException:
                        traceback.print_exc()
            finally:
                os._exit(code)
        children.append(pid)
        return pid

    yield fork
    for pid in children:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.fixture
def logged(tmp_path, monkeypatch):
    """logged(pause): each load of a sample is logged and paused."""
    real = Folder.load

    def logged(pause):
        def load(self, index):
            with open(tmp_path / "loads", "a") as log:
                log.write(f"{index}\n")
            pause()
            return real(self, index)

        monkeypatch.setattr(Folder, "load", load)

    return logged


def test_one_of_six_builds(tmp_path, pairs, forked, logged):
    data = pairs()
    truth = quiet(data, 16, folder=tmp_path / "truth")
    waits = "waiting for another process"

    def others_wait():
        while sum(waits in path.read_text() for path in tmp_path.glob("*.err")) < 5:
            time.sleep(0.01)

    logged(others_wait)

    def work():
        kept = cached(data, 16, folder=tmp_path / "c", workers=0)
        for i in range(6):
            same(kept[i], truth[i])

    pids = [forked(work) for _ in range(6)]
    codes = [os.waitpid(pid, 0)[1] for pid in pids]
    said = [(tmp_path / f"{pid}.err").read_text() for pid in pids]
    assert codes == [0] * 6, said
    assert len((tmp_path / "loads").read_text().splitlines()) == 6  # each sample once, by one of them
    assert sum(waits in text for text in said) == 5
    assert len(caches(tmp_path / "c")) == 1 and not debris(tmp_path)


def test_killed_builders_leave_nothing_that_counts(tmp_path, pairs, forked):
    data, folder = pairs(), tmp_path / "c"
    truth = quiet(data, 16, folder=tmp_path / "truth")
    steps, whole, left = 0, 0, 0
    for steps in range(1, 100):
        pid = forked(lambda: (die_at(folder, steps), quiet(data, 16, folder=folder)))  # noqa: B023
        code = os.waitpid(pid, 0)[1]
        if code == 0:
            break
        assert code == signal.SIGKILL
        left += len(debris(folder))
        for path in caches(folder):
            whole += 1
            fresh = cachefile.CacheReader(path, truth.key)  # the file in its place is complete
            for i in range(6):
                same(fresh[i], truth[i])
            path.unlink()
    assert code == 0 and left and steps > 5
    kept = quiet(data, 16, folder=folder)
    same(kept[5], truth[5])
    assert not debris(folder)


def test_workers_of_a_killed_builder_let_the_next_one_go_on(tmp_path, pairs, forked, logged, monkeypatch):
    data = pairs(20)
    truth = quiet(data, folder=tmp_path / "truth")
    logged(lambda: time.sleep(0.05))
    monkeypatch.setattr("torch.utils.data._utils.worker.MP_STATUS_CHECK_INTERVAL", 0.2)
    pid = forked(lambda: cached(data, folder=tmp_path / "c", workers=2, progress=False))
    while not (tmp_path / "loads").exists():
        time.sleep(0.01)
    kill(pid)  # its workers hold its lock until they notice
    logged(lambda: None)
    kept = quiet(data, folder=tmp_path / "c")
    for i in range(20):
        same(kept[i], truth[i])
    assert not debris(tmp_path)


class Dies(All):
    """Kills the worker that loads the third sample, or any sample."""

    first = 0

    def load(self, index):
        if index < self.first:
            return super().load(index)
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("writing", [False, True])
def test_a_worker_that_dies(tmp_path, monkeypatch, writing):
    data = Dies()
    if writing:  # the signal arrives while a sample is written
        data.first = 2
        monkeypatch.setattr(np.lib.format, "write_array", lambda *args, **more: time.sleep(60))
    with pytest.raises(CacheError) as raised:
        cached(data, folder=tmp_path, workers=2, progress=False)
    assert "fewer workers" in raised.value.hint and "died" in str(raised.value)
    assert not caches(tmp_path) and not debris(tmp_path)


def test_numpy_reads_a_cache_by_itself(tmp_path):
    data = All()
    with np.load(quiet(data, folder=tmp_path).path) as planes:
        assert np.array_equal(planes["1/image"], data[1]["image"]) and np.array_equal(planes["1/mask"], data[1]["mask"])


def test_folders_are_made_once_and_replaced_atomically(tmp_path):
    target = tmp_path / "deep" / "folder"
    with pytest.raises(ImageDecodeError), store.building(target) as place:
        place.mkdir()
        (place / "half").write_text("")
        raise ImageDecodeError("broken archive")
    assert not target.exists() and not debris(tmp_path)
    for content in ("one", "two"):
        with store.building(target, usable=lambda path: False) as place:
            place.mkdir()
            (place / "file").write_text(content)
        assert (target / "file").read_text() == content and not debris(tmp_path)
    with store.building(target) as place:
        assert place is None
