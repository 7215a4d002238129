"""Archives as roots: unpacked once per content, with concurrent readers and after interruptions."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from packing import FILES, KINDS, good, pack, tree
from refusals import refused

from unetzoo.datasets import archive as archive_module
from unetzoo.datasets import data_root
from unetzoo.errors import CacheError
from unetzoo.registry import DATASETS
from unetzoo.twins import LAYOUTS, write


@pytest.mark.parametrize("kind", [*KINDS, ".tgz", ".txz", ".tbz2"])
def test_every_kind(kind, tmp_path, cache):
    path = good(
        tmp_path / f"My data{kind.replace('tgz', 'tar.gz').replace('txz', 'tar.xz').replace('tbz2', 'tar.bz2')}"
    )
    path = path.rename(tmp_path / f"My data{kind.upper()}")
    root = data_root(path)
    assert root.name == "top" and root.parent.name.startswith("My_data-") and cache in root.parents
    assert {f"top/{name}": what[1] for name, what in tree(root).items() if what[1] is not None} == FILES
    assert data_root(str(path)) == root
    assert data_root(root) == root and data_root(tmp_path / "none.zip") == tmp_path / "none.zip"


def test_one_folder_is_stepped_into_once(tmp_path, cache):
    for number, (names, inside) in enumerate(
        [
            (["a/b/c.txt"], {"b"}),
            (["a/b.txt", "__MACOSX/a/._b.txt", ".DS_Store"], {"b.txt"}),
            (["a.txt"], {"a.txt"}),
            (["a/x", "b/x"], {"a", "b"}),
            (["./a/x", "./a/./y"], {"x", "y"}),
        ]
    ):
        for kind in (".zip", ".tar"):
            root = data_root(good(tmp_path / f"{number}{kind}", dict.fromkeys(names, b"")))
            assert {path.name for path in root.iterdir()} == inside, names


def test_it_is_unpacked_once_and_known_by_content(tmp_path, cache, monkeypatch):
    path = good(tmp_path / "a.zip")
    root = data_root(path)
    marked = root.parent.stat().st_ino
    shutil.copy(path, tmp_path / "b.zip")
    assert data_root(tmp_path / "b.zip").parent.name[2:] == root.parent.name[2:]
    old = time.time() - 100
    os.utime(path, (old, old))
    assert data_root(path) == root and root.parent.stat().st_ino == marked

    def no_reading(*args):
        raise AssertionError("read again")

    with monkeypatch.context() as patch:
        patch.setattr(archive_module, "_digest", no_reading)
        assert data_root(path) == root  # by size, time and inode
        other = good(tmp_path / "new.zip", {**FILES, "top/a.txt": b"ALPHA"})
        os.utime(other, (old, old))
        assert other.stat().st_size == path.stat().st_size
        os.replace(other, path)
        with pytest.raises(AssertionError):
            data_root(path)
    assert (data_root(path) / "a.txt").read_bytes() == b"ALPHA" and (root / "a.txt").read_bytes() == b"alpha"
    for note in (cache / "archives" / "known").iterdir():
        for junk in (b"", b"\xff", b"[]", b'{"sha256": 3}', b'{"sha256": "../../x"}'):
            note.write_bytes(junk)
            assert (data_root(path) / "a.txt").read_bytes() == b"ALPHA"
    shutil.rmtree(cache / "archives")
    assert (data_root(path) / "a.txt").read_bytes() == b"ALPHA"


def test_a_changed_file_of_an_unpacked_archive_is_noticed(tmp_path, cache):
    path = good(tmp_path / "a.zip")
    root = data_root(path)
    (root / "a.txt").write_bytes(b"ALPHA")
    (root / "more.txt").touch()
    archive_module._CHECKED.clear()  # as in a new process
    again = data_root(path)
    assert (again / "a.txt").read_bytes() == b"alpha" and not (again / "more.txt").exists()
    (again / "c.zip").unlink()
    archive_module._CHECKED.clear()
    assert (data_root(path) / "c.zip").exists()


def test_the_unpacked_files_are_checked_once_per_process(tmp_path, cache, monkeypatch):
    path = good(tmp_path / "a.zip")
    data_root(path)
    archive_module._CHECKED.clear()
    walks = []
    contents = archive_module._contents
    monkeypatch.setattr(archive_module, "_contents", lambda folder: walks.append(folder) or contents(folder))
    assert len({data_root(path) for _ in range(3)}) == 1 and len(walks) == 1
    shutil.rmtree(cache / "archives")
    assert (data_root(path) / "a.txt").read_bytes() == b"alpha"


def test_the_cache_folder(tmp_path, monkeypatch):
    path = good(tmp_path / "a.zip")
    monkeypatch.delenv("UNETZOO_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert tmp_path / "xdg" / "unetzoo" / "archives" in data_root(path).parents
    monkeypatch.setenv("UNETZOO_CACHE", str(path / "no folder"))
    with refused(CacheError, hint="UNETZOO_CACHE"):
        data_root(path)


@pytest.mark.parametrize("kind", [".zip", ".tar"])
def test_folders_may_be_named_again(kind, tmp_path, cache):
    entries = [("a/", b"", "folder"), ("a/b/", b"", "folder"), ("a/", b"", "folder"), ("a/x", b"1", "file")]
    assert {path.name for path in data_root(pack(tmp_path / f"a{kind}", entries)).iterdir()} == {"b", "x"}


@pytest.mark.parametrize("kind", [".zip", ".tar"])
def test_permissions_are_plain(kind, tmp_path, cache):
    entries = [("top/", b"", "folder"), ("top/run", b"#!", "file"), ("top/more/deep", b"", "file")]
    root = data_root(pack(tmp_path / f"a{kind}", entries, mode=0o6777))
    for path in root.rglob("*"):
        assert path.stat().st_mode & 0o7000 == 0
    assert (root / "run").stat().st_mode & 0o111 == 0 and os.access(root / "more", os.X_OK)
    (root / "run").write_bytes(b"")  # and files that are read-only in the archive can be removed again


@pytest.mark.parametrize("kind", [".zip", ".tar.gz"])
def test_nested_archives_stay_packed(kind, tmp_path, cache):
    inner = good(tmp_path / "inner.zip", {"../evil": b"owned"}).read_bytes()
    root = data_root(good(tmp_path / f"outer{kind}", {"inner.zip": inner, "b": b""}))
    assert (root / "inner.zip").read_bytes() == inner and len(list(root.iterdir())) == 2


SCRIPT = """
import sys
from killing import die_at
from unetzoo.datasets import data_root
if len(sys.argv) > 2:
    die_at(sys.argv[2], int(sys.argv[3]))
root = data_root(sys.argv[1])
print(root.stat().st_ino, len(list(root.iterdir())))
"""


def start(path, *die_at):
    command = [sys.executable, "-c", SCRIPT, *map(str, (path, *die_at))]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def test_four_processes_at_once(tmp_path, cache):
    path = good(tmp_path / "a.zip", {f"top/{i}": str(i).encode() for i in range(2000)})
    ended = [(process.communicate(timeout=120), process.returncode) for process in [start(path) for _ in range(4)]]
    assert all(code == 0 for _, code in ended), ended
    assert len({out for (out, _), _ in ended}) == 1 and ended[0][0][0].split()[1] == "2000"
    assert len([p for p in (cache / "archives").iterdir() if p.is_dir() and p.name != "known"]) == 1


def test_a_kill_leaves_no_partial_files(tmp_path, cache):
    path = good(tmp_path / "a.zip", {f"top/{i}": bytes(2000) for i in range(300)})
    process = start(path, cache, 100)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert list((cache / "archives").glob(".*.tmp/top/1*"))
    assert not [p for p in (cache / "archives").iterdir() if not p.name.startswith(".")]  # nothing that looks finished
    assert len(list(data_root(path).iterdir())) == 300
    assert not list((cache / "archives").glob(".*.tmp"))


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_dataset_reads_its_archive(name, tmp_path, cache):
    layout = LAYOUTS[name]
    folder = write(name, tmp_path / "data" / "release", count=layout.least, size=32)
    form = ("zip", "gztar", "bztar", "tar")[list(LAYOUTS).index(name) % 4]
    packed = shutil.make_archive(str(tmp_path / "packed"), form, tmp_path / "data")
    data, direct = (DATASETS.build(layout.dataset, root=root, **layout.options) for root in (packed, Path(folder)))
    assert len(data) == len(direct) and data.labels == direct.labels
    for a, b in zip(data, direct, strict=True):
        assert a["id"] == b["id"] and (a["image"] == b["image"]).all() and (a["mask"] == b["mask"]).all()
