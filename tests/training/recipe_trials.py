"""Broken recipes: reading one gives a recipe or one of our errors."""

import random
import re
import traceback

import torch
from mutants import flip_bits, splice, swap_bytes, truncate

from unetzoo import MODELS, RECIPES
from unetzoo.errors import UnetzooError
from unetzoo.training import recipe as recipes

VALUES = (
    "0", "-1", "1", "2.5", "-0.0", "1e400", "nan", "-inf", "99999999999999999999999", "true", "false", '""', '"x"',
    '"' + "y" * 3000 + '"', "[]", "[0]", "[-1, 2]", "[[1], [2]]", "[1, 'a', true]", "{}", "{name = 3}", "{a = {b = 1}}",
    "1979-05-27", "07:32:00", '"\\u0000"', "'''\nlines\n'''", '"../../etc/passwd"', "0x7fffffff", "[" * 60 + "]" * 60,
    '"cosine"', '"segmentation"', '"min"', '"fp16"', "[4, 8, 16]", "1e-30", "512", '"nan"', "[nan, inf]",
)  # fmt: skip
LINE = re.compile(r"^(\s*[\w.\"-]+\s*=\s*)(.+)$")
SECTIONS = "model data transform loss optimizer scheduler train metrics fast".split()


def texts():
    """The recipes we ship, each with a data root; a later one with stages, so that they are broken too."""
    held = {}
    for name in RECIPES.names():
        text = RECIPES.get(name).read_text()
        if name not in ("demo", "eva-mask-depth"):
            text = text.replace("\n[data]\n", '\n[data]\nroot = "somewhere"\n')
        held[name] = text
    stages = (
        "\n[[train.stages]]\nsize = 32\nepochs = 1\nbatch_size = 4\n\n[[train.stages]]\nsize = [64, 48]\nepochs = 2\n"
    )
    held["staged"] = re.sub(r"\nepochs = .*", "\nema = 0.99\naccumulate = 2", held["demo"]) + stages
    return held


def change(text, rng, donors):
    """One change that a person, an editor or a bad disk might make."""
    kind = rng.choice(("value", "value", "value", "key", "delete", "double", "move", "section", "insert", "bytes"))
    lines = text.splitlines()
    places = [n for n, line in enumerate(lines) if LINE.match(line)]
    at = rng.choice(places)
    left, right = LINE.match(lines[at]).groups()
    if kind == "value":
        lines[at] = left + rng.choice(VALUES)
    elif kind == "key":
        words = ("_target_", "name", "weight", "classes", "lambda", "kwargs", "self", "split", "", "ä", "a.b.c")
        lines[at] = f"{rng.choice((*words, left.rstrip(' =')[:-1]))} = {right}"
    elif kind == "delete":
        del lines[at : at + rng.choice((1, 1, 1, 5))]
    elif kind == "double":
        lines.insert(at, lines[at])
    elif kind == "move":
        lines.insert(rng.randrange(len(lines)), lines.pop(at))
    elif kind == "section":
        lines.insert(rng.randrange(len(lines)), f"[{rng.choice(SECTIONS)}.{rng.choice(('', 'train', 'mask', 'x'))}]")
    elif kind == "insert":
        other = rng.choice(donors).splitlines()
        lines.insert(at, rng.choice([line for line in other if LINE.match(line)]))
    else:
        break_it = rng.choice((flip_bits, truncate, swap_bytes, splice))
        return break_it(text.encode(), rng, [donor.encode() for donor in donors])
    return "\n".join(lines).encode()


def trials(folder, count, seed, models_every=0):
    """Read `count` mutants and build some of their networks on meta; any other error than ours is a finding."""
    rng, held = random.Random(seed), texts()
    names, donors = sorted(held), list(held.values())
    findings, outcomes = [], {"recipe": 0, "error": 0}
    path = folder / "recipe.toml"
    for number in range(count):
        text = held[rng.choice(names)].encode()
        for _ in range(rng.choice((1, 1, 2, 3))):
            try:
                text = change(text.decode(), rng, donors)
            except (UnicodeDecodeError, IndexError):
                break
        path.write_bytes(text)
        try:
            recipe = recipes.load(path, fast=number % 2 == 1)
            outcomes["recipe"] += 1
            if models_every and number % models_every == 0:
                with torch.device("meta"):
                    recipes.built("[model]", MODELS.build, recipe.model.name, **recipe.model.options)
        except UnetzooError as error:
            outcomes["error"] += 1
            if len(str(error)) > 20_000:
                findings.append((number, "an error as long as a book", text))
        except (Exception, SystemExit):
            findings.append((number, traceback.format_exc(limit=-4), text))
    return findings, outcomes
