"""Hostile and broken archives write nothing anywhere."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import stat
import struct
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packing import FILES, KINDS, TYPES, good, pack, tree

from unetzoo.datasets import archive as archive_module
from unetzoo.datasets import data_root
from unetzoo.errors import DataError, UnsafeArchiveError


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
    canary(pack(tmp_path / "archives" / "a.zip", [("fine.png\0/../../evil", b"", "file")]), UnsafeArchiveError)
    path = tmp_path / "archives" / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as file:
        info = tarfile.TarInfo("é")
        info.pax_headers = {"path": "fine.png\0/../../evil"}
        file.addfile(info)
    canary(path)


@pytest.mark.parametrize("kind", [".zip", ".tar"])
@pytest.mark.parametrize("what", [what for what in TYPES if what not in ("file", "folder")])
def test_links_devices_and_pipes_are_refused(kind, what, tmp_path, canary):
    for target in (b"/etc/passwd", b"../../evil", b"fine"):
        entries = [("fine", b"1", "file"), ("it", target, what), ("it/evil", b"owned", "file")]
        canary(pack(tmp_path / "archives" / f"a{kind}", entries), UnsafeArchiveError, "a link, a device or a pipe")


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
    canary(pack(tmp_path / "archives" / f"a{kind}", entries), UnsafeArchiveError, "same name")


@pytest.mark.parametrize("kind", KINDS)
def test_bombs(kind, tmp_path, canary, monkeypatch):
    path = good(tmp_path / "archives" / f"a{kind}", {f"{i}": bytes(10**6) for i in range(8)})
    text = canary(path, UnsafeArchiveError, "so far", max_bytes=5_000_000)
    assert "at most 2,000,000 entries, 5,000,000 bytes" in text and "max_bytes=…" in text and "data_root" in text
    canary(path, UnsafeArchiveError, "so far", max_entries=7)
    if kind != ".tar":
        monkeypatch.setattr("unetzoo.datasets.unpack.SPARED", 10**6)
        canary(path, UnsafeArchiveError, "100 times its own size", max_ratio=100)
        monkeypatch.undo()
    assert len(list(data_root(path, max_entries=8, max_bytes=8_000_000).iterdir())) == 8


def test_folders_count_too(tmp_path, canary):
    path = good(tmp_path / "archives" / "a.zip", {f"{i}/" + "/".join("abcdefgh"): b"" for i in range(20)})
    canary(path, UnsafeArchiveError, "so far", max_entries=179)
    assert len(list(data_root(path, max_entries=180).iterdir())) == 20


def test_overlapping_entries_are_measured(tmp_path, canary):
    """Many entries with one content: the size of a zip does not bound its unpacked size."""
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
        (42, 10**6, "<I", "broken"),  # its position
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
        canary(path, UnsafeArchiveError, "headers")


def test_a_sparse_file_of_a_terabyte(tmp_path, canary):
    path = tmp_path / "archives" / "a.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as file:
        info = tarfile.TarInfo("sparse")
        info.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(10**12), "GNU.sparse.name": "sparse"}
        file.addfile(info)
    canary(path, UnsafeArchiveError, "so far")


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
    canary(path, DataError, "changed")


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
    """60 mutants per kind: our errors or, for formats with checksums, the original content."""
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
