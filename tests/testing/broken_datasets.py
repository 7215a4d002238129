"""A dataset that meets the contract, and one per check that violates only that check."""

from pathlib import Path

import numpy as np

from unetzoo import LabelSpec
from unetzoo.datasets import SegmentationDataset
from unetzoo.errors import ConfigError, DataError
from unetzoo.testing import Case


class Good(SegmentationDataset):
    spec = LabelSpec(("ground", "thing", "left_eye", "right_eye"), swap_pairs=((2, 3),), side="viewer")

    def __init__(self, root: str, split: str = "train", transform=None):
        super().__init__(labels=self.spec, split=self.checked(split), transform=transform)
        self.paths = self.found(Path(root))[: 3 if self.split == "train" else None]

    def checked(self, split):
        if split not in ("train", "val"):
            raise ConfigError("unknown split", found=split)
        return split

    def found(self, root):
        if not root.is_dir():
            raise DataError("no such folder", subject=root)
        return sorted(root.glob("*.npy"))

    def __len__(self):
        return len(self.paths)

    def load(self, index):
        mask = np.load(self.paths[index])
        return {"image": np.repeat(60 * mask[..., None], 3, -1), "mask": mask, "id": self.paths[index].stem}


def write(folder):
    rng = np.random.default_rng(0)
    for index in range(4):
        np.save(folder / f"s{index}.npy", rng.integers(0, 4, (20, 24), np.uint8))
    return {"root": str(folder)}


class Floats(Good):
    def load(self, index):
        sample = super().load(index)
        return {**sample, "image": sample["image"] / 255}


class RoundAndRound(Good):
    def __getitem__(self, index):
        return super().__getitem__(index % len(self))


class OtherLabel(Good):
    def load(self, index):
        sample = super().load(index)
        sample["mask"][0, 0] = 9
        return sample


class NoPairs(Good):
    spec = LabelSpec(("ground", "thing", "left_eye", "right_eye"))


class NoTransform(Good):
    def __getitem__(self, index):
        kept, self.transform = self.transform, None
        try:
            return super().__getitem__(index)
        finally:
            self.transform = kept


class Whims(Good):
    def __init__(self, root: str, split: str = "train", transform=None):
        super().__init__(root, split, transform)
        self.whim = np.random.default_rng().integers(1, 200, (20, 24, 1), dtype=np.uint8)

    def load(self, index):
        sample = super().load(index)
        return {**sample, "image": sample["image"] ^ self.whim}


class OneName(Good):
    def load(self, index):
        return {**super().load(index), "id": "sample"}


class Keeps(Good):
    def __init__(self, root: str, split: str = "train", transform=None):
        super().__init__(root, split, transform)
        self.kept = {}

    def load(self, index):
        if index not in self.kept:
            self.kept[index] = super().load(index)
        return dict(self.kept[index])


class Nowhere(Good):
    def found(self, root):
        return sorted(root.glob("*.npy"))


class AnySplit(Good):
    def checked(self, split):
        return split


class Lambda(Good):
    def __init__(self, root: str, split: str = "train", transform=None):
        super().__init__(root, split, transform)
        self.function = lambda x: x


class Prints(Good):
    def load(self, index):
        print("loading", index)
        return super().load(index)


class SeedsNumPy(Good):
    def load(self, index):
        np.random.seed(index)
        return super().load(index)


GOOD = [Case("dataset", Good, write)]
BROKEN = {
    "samples": Floats,
    "index-error": RoundAndRound,
    "label-values": OtherLabel,
    "swap-pairs": NoPairs,
    "transforms": NoTransform,
    "reproducible": Whims,
    "unique-ids": OneName,
    "samples-independent": Keeps,
    "missing-root": Nowhere,
    "unknown-split": AnySplit,
    "copyable": Lambda,
    "silent": Prints,
    "side-effects": SeedsNumPy,
}
CASES = [("dataset", check, Case("dataset", broken, write)) for check, broken in BROKEN.items()]
