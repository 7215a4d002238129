"""Helpers for tests of archives: archives with any names and kinds, and the contents of a folder."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile

FILES = {"top/a.txt": b"alpha", "top/sub/b.bin": bytes(range(256)) * 40, "top/sub/empty": b"", "top/c.zip": b"PK\5\6"}
TARS = (".tar", ".tar.gz", ".tar.xz", ".tar.bz2")
KINDS = (".zip", *TARS)
TYPES = {
    "file": (tarfile.REGTYPE, stat.S_IFREG), "folder": (tarfile.DIRTYPE, stat.S_IFDIR),
    "link": (tarfile.SYMTYPE, stat.S_IFLNK), "hard link": (tarfile.LNKTYPE, stat.S_IFLNK),
    "pipe": (tarfile.FIFOTYPE, stat.S_IFIFO), "device": (tarfile.CHRTYPE, stat.S_IFCHR),
    "block device": (tarfile.BLKTYPE, stat.S_IFBLK),
}  # fmt: skip


def pack(path, entries, mode=0o644):
    """An archive of (name, content, kind), with any names."""
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
    """Every path below a folder with its kind and content; links are not followed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        kind = stat.S_IFMT(path.lstat().st_mode)
        content = path.read_bytes() if kind == stat.S_IFREG else None
        found[str(path.relative_to(folder))] = kind, content, os.readlink(path) if kind == stat.S_IFLNK else ""
    return found
