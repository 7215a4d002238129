"""Broken images give our errors or an array, never anything else: no traceback, no hang, no crash (P8)."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

TRIALS = Path(__file__).with_name("image_trials.py")
PATIENCE = 60  # seconds that all readers together may take for one file, on a busy machine


def run(seed, start, stop, folder):
    """Outcomes of mutants start…stop−1; a process that hangs or dies is a finding, and the rest continues after it."""
    found = []
    while start < stop:
        command = [sys.executable, TRIALS, *map(str, (seed, start, stop)), folder]
        environment = os.environ | {"PYTHONPATH": str(TRIALS.parents[1]), "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
            begun, lines = start, _lines(process)
            for line in lines:
                if "found" in line:
                    found.append(line)
                begun = line["number"]
            process.kill()
        last = found[-1]["number"] if found else -1
        if last == stop - 1:
            break
        how = f"foreign: {'hang' if process.returncode == -9 else f'process ended with {process.returncode}'}"
        found.append({"number": begun, "seconds": PATIENCE, "how": "?", "origin": "?", "found": {"process": how}})
        start = begun + 1
    return found


def _lines(process):
    """The output of a process, until it ends or is silent for too long."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(PATIENCE):
            piece = os.read(process.stdout.fileno(), 1 << 16)
            if not piece:
                return
            *whole, rest = (rest + piece).split(b"\n")
            yield from map(json.loads, whole)


def check(found, count):
    foreign = [line for line in found if any(text.startswith("foreign") for text in line["found"].values())]
    report = [f"{line['number']} {line['origin']} {line['how']}: {line['found']}" for line in foreign]
    assert not foreign, "\n\n".join([f"{len(foreign)} of {count}", *report[:20]])
    assert [line["number"] for line in found] == list(range(found[0]["number"], found[0]["number"] + count))
    answers = Counter(text for line in found for text in line["found"].values())
    print(count, "mutants:", dict(answers), "slowest", max(line["seconds"] for line in found), "s")
    # the mutants are worth something: some are read, most are refused, and by more than one error
    assert answers["array"] > count / 20 and answers["ImageDecodeError"] > count
    assert answers["LabelRangeError"] and answers["ImageTooLargeError"]


def test_some_mutants(tmp_path):
    check(run(8, 0, 400, tmp_path), 400)


@pytest.mark.soak
def test_ten_thousand_mutants(tmp_path):
    check(run(1, 0, 10_000, tmp_path), 10_000)


HANGS_AND_CRASHES = """
import json, os, sys, time
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    print(json.dumps({"number": number}), flush=True)
    if number == 1:
        time.sleep(99)
    if number == 3:
        os.kill(os.getpid(), 11)
    print(json.dumps({"number": number, "seconds": 0, "found": {"image": "array"}}), flush=True)
"""


def test_hangs_and_crashes_would_be_noticed(tmp_path, monkeypatch):
    (tmp_path / "trials.py").write_text(HANGS_AND_CRASHES)
    monkeypatch.setattr(sys.modules[__name__], "TRIALS", tmp_path / "trials.py")
    monkeypatch.setattr(sys.modules[__name__], "PATIENCE", 1)
    found = [line["found"] for line in run(0, 0, 5, tmp_path)]
    whole = {"image": "array"}
    assert found == [whole, {"process": "foreign: hang"}, whole, {"process": "foreign: process ended with -11"}, whole]


def test_whole_images_are_read(tmp_path, monkeypatch):
    """The mutants come from images that the readers take."""
    monkeypatch.syspath_prepend(str(TRIALS.parent))
    import image_trials

    taken = Counter()
    for name, data in image_trials.SEEDS.items():
        path = tmp_path / name
        path.write_bytes(data)
        taken.update(reader for reader, answer in image_trials.outcomes(path).items() if answer == "array")
    assert set(taken) == set(image_trials.READERS) and taken["image"] > 20
