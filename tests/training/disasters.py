"""What may happen to a checkpoint: a crash at any point of a save, a full disk, changed bytes, hostile files."""

import os
import random
import shutil
from pathlib import Path

import torch

from unetzoo.errors import CheckpointCorruptError
from unetzoo.io import Disk
from unetzoo.training import checkpoint
from unetzoo.training.checkpoint import Checkpoint

KINDS = ("flip", "byte", "truncate", "extend", "insert", "zero", "foreign", "swap")
STRUCTURE = ("missing", "rename", "stranger")


def content(value=1.0):
    model = {"w": torch.full((2, 3, 4, 4), float(value)).to(memory_format=torch.channels_last), "n": torch.tensor(3)}
    return Checkpoint({"model": model, "optimizer": {"0.step": torch.tensor(1.0)}}, {"epoch": 1, "text": "é"})


class Tracing(Disk):
    """A disk that notes every operation, and fails at the n-th one, before it or after it."""

    def __init__(self, failing=None, error=None, after=False):
        self.trace, self.failing, self.error, self.after = [], failing, error, after

    def _do(self, what, path, work):
        number = len(self.trace)
        self.trace.append(f"{what} {'.tmp' if path.name.startswith('.tmp-') else path.name}")
        if number == self.failing and not self.after:
            self._fail()
        done = work()
        if number == self.failing:
            self._fail()
        return done

    def _fail(self):
        if self.error is None:
            os._exit(1)
        raise self.error

    def write(self, path, data):
        return self._do("write", path, lambda: super(Tracing, self).write(path, data))

    def sync(self, path, descriptor=None):
        return self._do("sync", path, lambda: super(Tracing, self).sync(path, descriptor))

    def rename(self, source, target):
        return self._do("rename", source, lambda: super(Tracing, self).rename(source, target))

    def unlink(self, path):
        return self._do("unlink", path, lambda: super(Tracing, self).unlink(path))


def crash_points(steps):
    """(operation, after it) of one save."""
    return [(step, after) for step in range(steps) for after in (False, True)]


def survivors_of_a_crash(folder: Path, step: int, after: bool) -> bool:
    """Whether a process that dies at this point of saving checkpoint 3 leaves 2 or 3 whole, and no debris."""
    for number in (1, 2):
        checkpoint.save(folder, number, content(number))
    child = os.fork()
    if child == 0:
        checkpoint.save(folder, 3, content(3), disk=Tracing(step, None, after))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1, "this point was never reached"
    checkpoint.clean(folder)
    whole = [checkpoint.load(path).tensors["model"]["w"].max().item() for path in checkpoint.found(folder)]
    return not list(folder.glob(".tmp-*")) and 2.0 in whole and whole == sorted(whole) and len(whole) >= 2


def undetected_mutants(folder: Path, count: int, seed: int) -> list[str]:
    """Change the files of a checkpoint in many ways; gives the changes that loading did not notice."""
    draw = random.Random(seed)
    other = checkpoint.save(folder / "other", 1, content(7))
    path = checkpoint.save(folder / "run", 1, content(1))
    original = {file.name: file.read_bytes() for file in path.iterdir()}
    kept = {file.name: file.read_bytes() for file in other.iterdir()}
    missed = []
    for _ in range(count):
        name, kind = draw.choice(sorted(original)), draw.choice(KINDS + STRUCTURE)
        data = bytearray(original[name])
        place = draw.randrange(len(data))
        said = f"{kind} {name} at {place}"
        if kind == "flip":
            data[place] ^= 1 << draw.randrange(8)
        elif kind == "byte":
            data[place] = (data[place] + draw.randrange(1, 256)) % 256
        elif kind == "truncate":
            data = data[:place]
        elif kind == "extend":
            data += bytes(draw.randrange(256) for _ in range(draw.randrange(1, 9)))
        elif kind == "insert":
            data.insert(place, draw.randrange(256))
        elif kind == "zero":
            end = place + draw.randrange(1, 64)
            data[place:end] = bytes(len(data[place:end]))
        elif kind == "foreign":
            data = bytearray(kept[name])
        elif kind == "swap":
            name2 = draw.choice([other for other in sorted(original) if other != name])
            (path / name2).write_bytes(original[name])
            data = bytearray(original[name2])
        if bytes(data) == original[name] and kind not in STRUCTURE:
            continue  # nothing was changed
        (path / name).write_bytes(data)
        if kind == "missing":
            (path / name).unlink()
        elif kind == "rename":
            (path / name).rename(path / f"{name}.old")
        elif kind == "stranger":
            (path / "stranger").write_bytes(b"?")
        try:
            checkpoint.load(path)
            missed.append(said)
        except CheckpointCorruptError:
            pass
        shutil.rmtree(path)
        path.mkdir()
        for file, whole in original.items():
            (path / file).write_bytes(whole)
    checkpoint.load(path)
    return missed


class Evil:
    """A pickle that leaves a file behind when it is loaded."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)
