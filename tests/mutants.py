"""Mutations of files from untrusted sources. A mutant is determined by its seed files, seed and number."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

# what length fields, counts and offsets break on: zero, one, signs, and the edges of 8, 16 and 32 bits
EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HEADER = 64

Mutator = Callable[[bytes, random.Random, Sequence[bytes]], bytes]


class Mutant(NamedTuple):
    """A mutated file, its seed file and its mutations."""

    data: bytes
    origin: str
    how: str


def flip_bits(data: bytes, rng: random.Random, donors: Sequence[bytes] = ()) -> bytes:
    """One to eight bits, anywhere."""
    raw = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return bytes(raw)


def truncate(data: bytes, rng: random.Random, donors: Sequence[bytes] = ()) -> bytes:
    """Truncated, possibly to nothing."""
    return data[: rng.randrange(len(data))]


def swap_bytes(data: bytes, rng: random.Random, donors: Sequence[bytes] = ()) -> bytes:
    """Two bytes or ranges swapped."""
    length = rng.choice((1, 1, 2, 4, 16))
    a, b = sorted(rng.randrange(max(1, len(data) - length)) for _ in range(2))
    if b - a < length:
        return flip_bits(data, rng)
    return data[:a] + data[b : b + length] + data[a + length : b] + data[a : a + length] + data[b + length :]


def edit_header(data: bytes, rng: random.Random, donors: Sequence[bytes] = ()) -> bytes:
    """A number of 1, 2 or 4 bytes near the start is replaced by an extreme one."""
    return _with_number(data, rng.randrange(min(HEADER, len(data))), rng)


def edit_number(data: bytes, rng: random.Random, donors: Sequence[bytes] = ()) -> bytes:
    """The same at any position, up to three times."""
    for _ in range(rng.randint(1, 3)):
        data = _with_number(data, rng.randrange(len(data)), rng)
    return data


def splice(data: bytes, rng: random.Random, donors: Sequence[bytes] = ()) -> bytes:
    """The start of one file and the end of another."""
    donor = rng.choice(donors) if donors else data
    return data[: rng.randrange(len(data))] + donor[rng.randrange(len(donor)) :]


def graft(data: bytes, rng: random.Random, donors: Sequence[bytes] = ()) -> bytes:
    """A range of another file, inserted or overwritten."""
    donor = rng.choice(donors) if donors else data
    start, place = rng.randrange(len(donor)), rng.randrange(len(data))
    piece = donor[start : start + rng.randint(1, 64)]
    return data[:place] + piece + data[place + rng.choice((0, len(piece))) :]


def repeat(data: bytes, rng: random.Random, donors: Sequence[bytes] = ()) -> bytes:
    """A range repeated."""
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.randint(1, 200))
    return data[:end] + data[start:end] * rng.choice((1, 2, 50)) + data[end:]


def drop(data: bytes, rng: random.Random, donors: Sequence[bytes] = ()) -> bytes:
    """A range removed."""
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.choice((1, 2, 4, 12, 100)) :]


def blank(data: bytes, rng: random.Random, donors: Sequence[bytes] = ()) -> bytes:
    """A range of one value, as from a damaged disk."""
    start = rng.randrange(len(data))
    length = min(len(data) - start, rng.choice((1, 16, 512)))
    return data[:start] + bytes([rng.choice((0, 0xFF, rng.randrange(256)))]) * length + data[start + length :]


def garbage(data: bytes, rng: random.Random, donors: Sequence[bytes] = ()) -> bytes:
    """Random bytes, often after the original start."""
    return data[: rng.choice((0, 4, 8, 16, 32))] + rng.randbytes(rng.choice((0, 1, 10, 100, 5000)))


MUTATORS: dict[str, Mutator] = {
    f.__name__: f
    for f in (
        flip_bits, truncate, swap_bytes, edit_header, edit_number, splice, graft, repeat, drop, blank, garbage,
    )
}  # fmt: skip


def mutant(seeds: Mapping[str, bytes], seed: int, number: int, mutators: Mapping[str, Mutator] = MUTATORS) -> Mutant:
    """Mutant `number` of a series: seeds and mutators take turns, a quarter is mutated twice.

    Args:
        seeds: Whole files by name.
        seed: Seed of the series.
        number: Its place in it.
        mutators: Ways to break a file, by name.
    """
    rng = random.Random(f"{seed}/{number}")
    names, donors = sorted(seeds), [seeds[name] for name in sorted(seeds)]
    origin = names[number % len(names)]
    hows = [list(mutators)[number // len(names) % len(mutators)]]
    if rng.random() < 0.25:
        hows.append(rng.choice(list(mutators)))
    data = seeds[origin]
    for how in hows:
        data = mutators[how](data, rng, donors) if data else data
    return Mutant(data, origin, " + ".join(hows))


def mutants(
    seeds: Mapping[str, bytes], seed: int, count: int, mutators: Mapping[str, Mutator] = MUTATORS
) -> Iterator[Mutant]:
    """The first `count` mutants of a series."""
    return (mutant(seeds, seed, number, mutators) for number in range(count))


def _with_number(data: bytes, place: int, rng: random.Random) -> bytes:
    width = rng.choice((1, 2, 4))
    value = rng.choice((*EDGES, rng.getrandbits(32))) % 256**width
    piece = value.to_bytes(width, rng.choice(("little", "big")))[: len(data) - place]
    return data[:place] + piece + data[place + len(piece) :]
