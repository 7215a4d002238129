"""Mutated annotation files of each format: only errors of unetzoo, in little time and memory.

UNETZOO_MUTANTS sets their number; with 2,000 of each format the tests take minutes.
"""

import os
import random
import re
import tracemalloc

import pytest
from unetzoo_formats.checks import WRITERS, miniature

from unetzoo import DATASETS
from unetzoo.errors import UnetzooError

COUNT = int(os.environ.get("UNETZOO_MUTANTS", "250"))
NUMBERS = ("0", "-1", "1", "3", "255", "256", "65536", "2147483647", "2147483648", "9223372036854775807", "1e999",
           "-0.0", "99999999999999999999999999", "1e-300", "1e300", "0.5", "NaN", "null",
           "true", '"7"', "[]", "{}", "[[[]]]", '""', "9" * 5000)  # fmt: skip
WORDS = ("", " ", "\0", "é", "../..", "/etc/passwd", "cell", "images", "\\", '"', "<", "&lol;", "\ud83d", "a" * 10000)
TOKEN = re.compile(r"-?\d+(?:\.\d+)?|\w+|[^\w\s]")


def mutated(text, rng):
    """The text with one to three edits: tokens replaced, removed, repeated or exchanged, bytes changed, an end cut."""
    raw = text.encode()
    for _ in range(rng.choice((1, 1, 2, 3))):
        tokens = list(TOKEN.finditer(text))
        if not tokens:
            break
        token, other = rng.choice(tokens), rng.choice(tokens)
        how = rng.randrange(7)
        if how == 0 or (how < 3 and token[0][-1].isdigit()):
            text = text[: token.start()] + rng.choice(NUMBERS) + text[token.end() :]
        elif how == 1:
            text = text[: token.start()] + rng.choice(WORDS) + text[token.end() :]
        elif how == 2:
            text = text[: token.start()] + other[0] + text[token.end() :]
        elif how == 3:
            a, b = sorted((token.start(), other.start()))
            text = text[:a] + text[b:] if rng.random() < 0.5 else text[:b] + text[a:b] * rng.choice((1, 30)) + text[b:]
        elif how == 4:
            text = text[: token.start()]
        else:
            raw = bytearray(text.encode("utf-8", "surrogatepass"))
            for _ in range(rng.randint(1, 6)):
                raw[rng.randrange(len(raw))] = rng.randrange(256)
            return bytes(raw)
        raw = text.encode("utf-8", "surrogatepass")
    return raw


@pytest.mark.parametrize("format", WRITERS)
def test_mutants_cause_only_our_errors(format, tmp_path):
    root = miniature(format, tmp_path)
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.suffix != ".png")
    originals = [path.read_text() for path in files]
    read = refused = peak = 0
    tracemalloc.start()
    for number in range(COUNT):
        rng = random.Random(f"{format}/{number}")
        place = number % len(files)
        content = mutated(originals[place], rng)
        files[place].write_bytes(content)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        try:
            data = DATASETS.get(format)(root, **({"annotations": files[0].name} if len(files) == 1 else {}))
            for sample in data:
                assert sample["mask"].shape == sample["image"].shape[:2]
            read += 1
        except UnetzooError:
            refused += 1
        peak = max(peak, tracemalloc.get_traced_memory()[1] - before - 40 * len(content))
        files[place].write_text(originals[place])
    tracemalloc.stop()
    assert read > COUNT / 40 and refused > COUNT / 4 and peak < 2**22
