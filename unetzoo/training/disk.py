"""The one way in which training writes files that must survive: hashed, synced, renamed into place."""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path


class Disk:
    """Every operation on the disk that a checkpoint is made of; tests make each of them fail."""

    def write(self, path: Path, data: bytes) -> str:
        """Write a file, wait until it is on the disk, and give its SHA-256."""
        with open(path, "wb") as file:
            file.write(data)
            file.flush()
            self.sync(path, file.fileno())
        return hashlib.sha256(data).hexdigest()

    def sync(self, path: Path, descriptor: int | None = None) -> None:
        """Wait until a file or folder is on the disk."""
        if descriptor is not None:
            os.fsync(descriptor)
        elif path.is_file() or os.name == "posix":  # elsewhere folders cannot be opened
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file or folder its name at once; a file of that name is replaced."""
        source.replace(target)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()

    def remove(self, folder: Path) -> None:
        """Remove a folder of files: it loses its name first, so that nobody meets it half empty."""
        aside = folder
        if not folder.name.startswith(".tmp-"):
            aside = aside_of(folder)
            self.rename(folder, aside)
        for file in sorted(aside.iterdir()):
            self.unlink(file)
        aside.rmdir()

    def replace_text(self, path: Path, text: str) -> None:
        """Write a text file that is the old one or the new one at any moment."""
        aside = aside_of(path)
        try:
            self.write(aside, text.encode())
            self.rename(aside, path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise


def aside_of(path: Path) -> Path:
    """A name nobody has, beside a path."""
    return path.with_name(f".tmp-{uuid.uuid4().hex}")


DISK = Disk()
