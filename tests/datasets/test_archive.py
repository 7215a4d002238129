"""Archives as roots: unpacked once, by content; hostile ones write nothing anywhere."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unetzoo.datasets import archive as archive_module
from unetzoo.datasets import data_root
from unetzoo.datasets.twins import LAYOUTS, write
from unetzoo.errors import CacheError, DataError, UnsafeArchiveError
from unetzoo.registry import DATASETS

FILES = {"top/a.txt": b"alpha", "top/sub/b.bin": bytes(range(256)) * 40, "top/sub/empty": b"", "top/c.zip": b"PK\5\6"}
TARS = (".tar", ".tar.gz", ".tar.xz", ".tar.bz2")
KINDS = (".zip", *TARS)
TYPES = {
    "file": (tarfile.REGTYPE, stat.S_IFREG), "folder": (tarfile.DIRTYPE, stat.S_IFDIR),
    "link": (tarfile.SYMTYPE, stat.S_IFLNK), "hard link": (tarfile.LNKTYPE, stat.S_IFLNK),
    "pipe": (tarfile.FIFOTYPE, stat.S_IFIFO), "device": (tarfile.CHRTYPE, stat.S_IFCHR),
    "block device": (tarfile.BLKTYPE, stat.S_IFBLK),
}  # fmt: skip


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNETZOO_CACHE", str(tmp_path / "deep" / "cache"))
    monkeypatch.setattr(os, "sync", lambda: None)  # of the whole machine; what it is for is tested with the cache
    return tmp_path / "deep" / "cache"


def pack(path, entries, mode=0o644):
    """An archive of (name, content, kind) whatever the names are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content, kind in entries:
                info = zipfile.ZipInfo("x")
                info.filename = info.orig_filename = name
                info.external_attr = (TYPES[kind][1] | mode) << 16
                info.compress_type = zipfile.ZIP_DEFLATED
                # a doubled name is what some of these tests want
                file.NameToInfo.pop(name, None)
                file.writestr(info, content)
    else:
        with tarfile.open(path, "w:" + path.suffix[1:].replace("tar", ""), format=tarfile.GNU_FORMAT) as file:
            for name, content, kind in entries:
                info = tarfile.TarInfo(name)
                info.type, info.mode, info.size = TYPES[kind][0], mode, len(content) if kind == "file" else 0
                info.linkname = content.decode("latin-1") if "link" in kind else ""
                file.addfile(info, io.BytesIO(content))
    return path


def good(path, files=None):
    return pack(path, [(name, content, "file") for name, content in (files or FILES).items()])


def tree(folder):
    """Every name below a folder with what it is and holds; links are not followed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        kind = stat.S_IFMT(path.lstat().st_mode)
        content = path.read_bytes() if kind == stat.S_IFREG else None
        found[str(path.relative_to(folder))] = kind, content, os.readlink(path) if kind == stat.S_IFLNK else ""
    return found


@pytest.fixture
def canary(tmp_path, cache):
    """Things beside and above the cache that nothing may touch; `refuses` checks that nothing did."""
    for name in ("canary.txt", "evil", "a.txt", "deep/canary.txt", "deep/evil", "up/canary.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("untouched")

    def outside():
        return {name: what for name, what in tree(tmp_path).items() if not name.startswith(("deep/cache", "archives"))}

    def refuses(path, error=DataError, match=None, **limits):
        before = outside()
        with pytest.raises(error, match=match) as caught:
            data_root(path, **limits)
        assert outside() == before
        left = [p for p in (cache / "archives").iterdir() if p.suffix != ".lock"] if cache.exists() else []
        assert not left, left
        return str(caught.value)

    refuses.outside = outside
    return refuses


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


def test_the_cache_folder(tmp_path, monkeypatch):
    path = good(tmp_path / "a.zip")
    monkeypatch.delenv("UNETZOO_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert tmp_path / "xdg" / "unetzoo" / "archives" in data_root(path).parents
    monkeypatch.setenv("UNETZOO_CACHE", str(path / "no folder"))
    with pytest.raises(CacheError, match=r"cannot write the cache.*UNETZOO_CACHE"):
        data_root(path)


@pytest.mark.parametrize("kind", [".zip", ".tar"])
@pytest.mark.parametrize(
    "name",
    [
        "../evil", "a/../../evil", "a/b/../../../evil", "..", "/evil", "//evil", "/etc/evil", "C:evil", "C:/evil",
        "..\\evil", "a\\..\\..\\evil", "a\\b", "\\\\host\\share", "x" * 256, "é" * 128, "a/" * 501 + "b", ".",
        "./../evil", "a/..", "",
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere(kind, name, tmp_path, canary):
    path = pack(tmp_path / "archives" / f"a{kind}", [("fine", b"1", "file"), (name, b"owned", "file")])
    canary(path, UnsafeArchiveError, "unsafe name")


def test_nul_in_names(tmp_path, canary):
    canary(pack(tmp_path / "archives" / "a.zip", [("fine.png\0/../../evil", b"", "file")]), UnsafeArchiveError, "NUL")
    path = tmp_path / "archives" / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as file:
        info = tarfile.TarInfo("é")
        info.pax_headers = {"path": "fine.png\0/../../evil"}
        file.addfile(info)
    canary(path)


@pytest.mark.parametrize("kind", [".zip", ".tar"])
@pytest.mark.parametrize("what", [what for what in TYPES if what not in ("file", "folder")])
def test_what_is_no_file_or_folder(kind, what, tmp_path, canary):
    for target in (b"/etc/passwd", b"../../evil", b"fine"):
        entries = [("fine", b"1", "file"), ("it", target, what), ("it/evil", b"owned", "file")]
        canary(pack(tmp_path / "archives" / f"a{kind}", entries), UnsafeArchiveError, "more than files and folders")


@pytest.mark.parametrize("kind", [".zip", ".tar"])
@pytest.mark.parametrize(
    "names",
    [
        ("a", "a"),
        ("a.png", "A.PNG"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("a/b", "A/c"),
        ("é", "e\u0301"),
        ("a", "./a"),
        ("a", "a/"),
    ],
)
def test_doubled_names(kind, names, tmp_path, canary):
    entries = [(name, b"1", "folder" if name.endswith("/") else "file") for name in names]
    canary(pack(tmp_path / "archives" / f"a{kind}", entries), UnsafeArchiveError, "two entries of one name")


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
    (root / "run").write_bytes(b"")  # and what was read-only in the archive can be removed again


@pytest.mark.parametrize("kind", [".zip", ".tar.gz"])
def test_nested_archives_stay_packed(kind, tmp_path, cache):
    inner = good(tmp_path / "inner.zip", {"../evil": b"owned"}).read_bytes()
    root = data_root(good(tmp_path / f"outer{kind}", {"inner.zip": inner, "b": b""}))
    assert (root / "inner.zip").read_bytes() == inner and len(list(root.iterdir())) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_bombs(kind, tmp_path, canary, monkeypatch):
    path = good(tmp_path / "archives" / f"a{kind}", {f"{i}": bytes(10**6) for i in range(8)})
    text = canary(path, UnsafeArchiveError, "unpacks to too much", max_bytes=5_000_000)
    assert "at most 2,000,000 entries, 5,000,000 bytes" in text and "max_bytes=…" in text and "data_root" in text
    canary(path, UnsafeArchiveError, "unpacks to too much", max_entries=7)
    if kind != ".tar":
        monkeypatch.setattr("unetzoo.datasets.unpacking.SPARED", 10**6)
        canary(path, UnsafeArchiveError, "100 times its own size", max_ratio=100)
        monkeypatch.undo()
    assert len(list(data_root(path, max_entries=8, max_bytes=8_000_000).iterdir())) == 8


def test_folders_count_too(tmp_path, canary):
    path = good(tmp_path / "archives" / "a.zip", {f"{i}/" + "/".join("abcdefgh"): b"" for i in range(20)})
    canary(path, UnsafeArchiveError, "too much", max_entries=179)
    assert len(list(data_root(path, max_entries=180).iterdir())) == 20


def test_overlapping_entries_are_measured(tmp_path, canary):
    """Many names, one content: what a zip unpacks to says nothing of its size."""
    path = good(tmp_path / "archives" / "a.zip", {"0": bytes(10**6)})
    data = path.read_bytes()
    start = data.index(b"PK\1\2")
    record, end = data[start : data.index(b"PK\5\6")], data[data.index(b"PK\5\6") :]
    records = b"".join(record[:46] + str(i).encode() for i in range(10))
    end = end[:8] + struct.pack("<HHII", 10, 10, len(records), start) + end[20:]
    path.write_bytes(data[:start] + records + end)
    canary(path, DataError, max_bytes=5_000_000)


def patched(path, place, value, structure="<H"):
    """Overwrite a field of a zip's headers, central (`place` ≥ 0) or local (`~place`)."""
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\1\2") + place if place >= 0 else ~place
    struct.pack_into(structure, data, start, value)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("place", "value", "structure", "match"),
    [
        (8, 1, "<H", "encrypted archive"),
        (10, 99, "<H", "broken"),  # a compression that nobody knows
        (24, 10**9, "<I", "broken"),  # unpacked size: too large a claim
        (24, 3, "<I", "broken"),  # too small a claim
        (20, 1, "<I", "broken"),  # packed size
        (16, 0, "<I", "broken"),  # checksum
        (42, 10**6, "<I", "broken"),  # where it lies
    ],
)
def test_lying_headers(place, value, structure, match, tmp_path, canary):
    path = patched(good(tmp_path / "archives" / "a.zip", {"a": b"something" * 50}), place, value, structure)
    canary(path, DataError, match)


def test_endless_headers_of_a_tar(tmp_path, canary):
    for kind, field in ((b"x", b"27 path=../../../../evil\n"), (b"L", b"a/"), (b"g", b"12 comment=x\n")):
        info = tarfile.TarInfo("header")
        info.type, info.size = kind, 40 * 10**6
        path = tmp_path / "archives" / "a.tar.gz"
        path.parent.mkdir(exist_ok=True)
        with tarfile.open(path, "w:gz", compresslevel=1) as file:
            file.fileobj.write(info.tobuf())
            file.fileobj.write(field + bytes(info.size - len(field)))
        canary(path, UnsafeArchiveError, "endless headers")


def test_a_sparse_file_of_a_terabyte(tmp_path, canary):
    path = tmp_path / "archives" / "a.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as file:
        info = tarfile.TarInfo("sparse")
        info.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(10**12), "GNU.sparse.name": "sparse"}
        file.addfile(info)
    canary(path, UnsafeArchiveError, "too much")


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_wherever(kind, tmp_path, canary):
    path = good(tmp_path / "archives" / f"a{kind}")
    data = path.read_bytes()
    end = len(data) - (10240 - 6 * 512 if kind == ".tar" else 1)  # the padding of a tar may go
    for cut in sorted({0, 1, 100, *range(0, end, max(1, end // 40)), 512, 1024, len(data) // 512 * 256}):
        if cut < end and cut < len(data.rstrip(b"\0")):
            path.write_bytes(data[:cut])
            canary(path, DataError)
    path.write_bytes(data)
    assert data_root(path).name == "top"


def test_not_an_archive(tmp_path, canary):
    path = tmp_path / "archives" / "a.zip"
    path.parent.mkdir()
    for kind in KINDS:
        for junk in (b"", b"junk", b"<html>404</html>" * 100, bytes(511)):
            path = path.with_name(f"a{kind}")
            path.write_bytes(junk)
            canary(path, DataError)
    wrong = good(tmp_path / "archives" / "b.tar").rename(tmp_path / "archives" / "b.zip")
    canary(wrong, DataError, "empty archive|broken archive")
    for kind in KINDS:
        canary(pack(tmp_path / "archives" / f"c{kind}", []), DataError, "empty archive")


def test_an_archive_that_changes_meanwhile(tmp_path, canary, monkeypatch):
    path = good(tmp_path / "archives" / "a.zip")
    unpack = archive_module.unpack

    def meddle(file, *args):
        unpack(file, *args)
        with open(path, "ab") as more:
            more.write(b"x")

    monkeypatch.setattr(archive_module, "unpack", meddle)
    canary(path, DataError, "changes while it is read")


PIECES = ["..", ".", "", "a", "A", "b", "evil", "C:", "\\", "é", "x\n", "~", "con", "a" * 300]
NAMES = st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map("/".join)
ENTRIES = st.lists(
    st.tuples(
        st.one_of(NAMES, st.text(min_size=1, max_size=8).filter(lambda text: text.isprintable())),
        st.sampled_from([b"", b"x", b"../../evil", b"/etc", bytes(3000)]),
        st.sampled_from([*["file"] * 8, *["folder"] * 3, *TYPES]),
    ),
    max_size=6,
)


@pytest.mark.parametrize("kind", [".zip", ".tar"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=ENTRIES)
def test_random_hostile_archives(kind, tmp_path, cache, canary, entries):
    path = pack(tmp_path / "archives" / f"a{kind}", entries)
    before = canary.outside()
    root = None
    with contextlib.suppress(DataError):
        root = data_root(path)
    assert canary.outside() == before
    unpacked = [p for p in (cache / "archives").iterdir() if p.suffix != ".lock" and p.name != "known"]
    if root is not None:
        assert {what[0] for what in tree(unpacked[0]).values()} <= {stat.S_IFREG, stat.S_IFDIR}
        files = {os.path.normpath(name): content for name, content, what in entries
                 if what == "file" and not (kind == ".zip" and name.endswith("/"))}  # fmt: skip
        assert {name: what[1] for name, what in tree(unpacked[0]).items() if what[1] is not None} == files
    for folder in unpacked:
        shutil.rmtree(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_mutants(kind, tmp_path, cache, canary):
    """60 mutants a kind: refused as ours, or, where checksums guard the content, unpacked to what was packed."""
    path, rng = good(tmp_path / "archives" / f"a{kind}"), random.Random(kind)
    data, before = path.read_bytes(), canary.outside()
    survived = 0
    for number in range(60):
        mutant = bytearray(data)
        if number % 3 == 0:
            del mutant[rng.randrange(len(data)) :]
        elif number % 3 == 1:
            mutant[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            start = rng.randrange(len(data))
            mutant[start : start + rng.randrange(1, 64)] = rng.randbytes(rng.randrange(64))
        path.write_bytes(mutant)
        try:
            root = data_root(path)
        except DataError:
            continue
        finally:
            assert canary.outside() == before
        survived += 1
        if kind != ".tar":
            files = {name: what[1] for name, what in tree(root).items() if what[1] is not None}
            assert set(files.values()) <= set(FILES.values()) and len(files) == len(FILES)
    assert survived < 40


SCRIPT = """
import sys
from unetzoo.datasets import data_root
root = data_root(sys.argv[1])
print(root.stat().st_ino, len(list(root.iterdir())))
"""


def start(path):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_four_processes_at_once(tmp_path, cache):
    path = good(tmp_path / "a.zip", {f"top/{i}": str(i).encode() for i in range(2000)})
    ended = [(process.communicate(timeout=120), process.returncode) for process in [start(path) for _ in range(4)]]
    assert all(code == 0 for _, code in ended), ended
    assert len({out for (out, _), _ in ended}) == 1 and ended[0][0][0].split()[1] == "2000"
    assert len([p for p in (cache / "archives").iterdir() if p.is_dir() and p.name != "known"]) == 1


def test_a_kill_leaves_nothing_half_made(tmp_path, cache):
    path = good(tmp_path / "a.zip", {f"top/{i}": bytes(2000) for i in range(3000)})
    process = start(path)
    deadline = time.monotonic() + 60
    while not (drafts := list((cache / "archives").glob(".*.tmp/top/1*"))) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert drafts and process.returncode == -signal.SIGKILL
    assert not [p for p in (cache / "archives").iterdir() if not p.name.startswith(".")]  # nothing that looks finished
    assert len(list(data_root(path).iterdir())) == 3000
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
