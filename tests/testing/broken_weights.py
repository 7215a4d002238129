"""Weights that meet the contract, and one folder per check that violates only that check."""

import tempfile
from pathlib import Path

import torch

import unetzoo
from unetzoo.bundle import ModelBundle
from unetzoo.testing import Case

CARD = "# Weights\n\n- **Data**: drawn\n- **License**: MIT\n\n## Scores\n\nnone\n"
ROOT = tempfile.TemporaryDirectory()


def saved(name, names=("sky", "sea"), preprocess=True, card=CARD):
    folder = Path(ROOT.name) / name
    torch.manual_seed(0)
    net = unetzoo.build("bnunet", classes=2, encoder_channels=(4, 4, 4))
    ModelBundle(net, unetzoo.LabelSpec(names), unetzoo.Preprocess() if preprocess else None).attach()
    net.save_pretrained(folder)
    (folder / "README.md").write_text(card)
    return folder


def large(folder):
    with (folder / "more.bin").open("wb") as file:
        file.truncate(60_000_000)
    return folder


GOOD = [Case("weights", saved("good"))]
CASES = [
    ("weights", "loads", Case("weights", saved("unprepared", preprocess=False))),
    ("weights", "predicts", Case("weights", saved("mislabeled", names=("sky", "sea", "land")))),
    ("weights", "described", Case("weights", saved("silent", card="# Weights\n"))),
    ("weights", "small", Case("weights", large(saved("large")))),
]
