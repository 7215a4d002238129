import numpy as np
import pytest
import torch

import unetzoo
from unetzoo import LabelSpec
from unetzoo.errors import DataError, SizeMismatchError
from unetzoo.training.data import EpochSampler, EpochView, make_loader


class Noise:
    """A dataset whose transform draws a number, so that random streams can be seen."""

    labels = LabelSpec(("a", "b"))

    def __init__(self, length=7, sizes=(4,)):
        self.length, self.sizes = length, sizes
        self.transform = draw

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        size = self.sizes[index % len(self.sizes)]
        sample = {
            "image": np.zeros((size, size, 1), np.uint8),
            "mask": np.zeros((size, size), np.uint8),
            "id": str(index),
        }
        return sample if self.transform is None else self.transform(sample, np.random.default_rng(0))


def draw(sample, rng):
    height, width = sample["mask"].shape
    return {
        "image": torch.full((1, height, width), float(rng.random())),
        "mask": torch.zeros(height, width, dtype=torch.int64),
        "id": sample["id"],
    }


def seen(workers, epochs=2, seed=3):
    loader = make_loader(Noise(), batch_size=2, seed=seed, workers=workers, rank=0, world=1, train=True)
    rows = []
    for epoch in range(epochs):
        loader.sampler.epoch = epoch
        rows.append(
            [(i, float(x[0, 0, 0])) for batch in loader for i, x in zip(batch["id"], batch["image"], strict=True)]
        )
    return rows


def test_samples_depend_only_on_seed_epoch_and_index():
    first = seen(workers=0)
    torch.manual_seed(99)
    assert seen(workers=2) == first
    assert dict(first[0]) != dict(first[1])  # epochs differ in augmentation
    assert [i for i, _ in first[0]] != [i for i, _ in first[1]]  # and in order
    assert seen(workers=0, seed=4) != first
    assert sorted(i for i, _ in first[0]) == [str(i) for i in range(7)]


def test_making_an_iterator_keeps_the_global_random_state():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    seen(workers=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_dataset_itself_is_not_changed():
    data = Noise()
    EpochView(data, 0)
    assert data.transform is draw


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("length", [1, 5, 37])
def test_shares_cover_the_data(world, length):
    evaluation = [list(EpochSampler(length, 0, rank, world, shuffle=False)) for rank in range(world)]
    assert sorted(i for share in evaluation for _, i in share) == list(range(length))
    training = [list(EpochSampler(length, 0, rank, world, shuffle=True)) for rank in range(world)]
    assert len({len(share) for share in training}) == 1
    drawn = [i for share in training for _, i in share]
    assert len(drawn) == len(set(drawn)) == length // world * world


def test_images_of_many_sizes_are_evaluated_but_not_stacked():
    data = Noise(sizes=(4, 4, 6))
    loader = make_loader(data, batch_size=7, seed=0, workers=0, rank=0, world=1, train=False)
    (batches,) = list(loader)
    assert [tuple(b["image"].shape) for b in batches] == [
        (2, 1, 4, 4),
        (1, 1, 6, 6),
        (2, 1, 4, 4),
        (1, 1, 6, 6),
        (1, 1, 4, 4),
    ]
    with pytest.raises(SizeMismatchError, match=r"transform\.size"):
        list(make_loader(data, batch_size=7, seed=0, workers=0, rank=0, world=1, train=True))


def test_faults_of_the_data_are_named():
    with pytest.raises(DataError, match="0 samples"):
        make_loader(Noise(0), batch_size=1, seed=0, workers=0, rank=0, world=1, train=True)
    raw = Noise()
    raw.transform = None
    with pytest.raises(DataError, match="need a transform"):
        next(iter(make_loader(raw, batch_size=1, seed=0, workers=0, rank=0, world=1, train=True)))


class Broken(Noise):
    def __getitem__(self, index):
        if index == 3:
            raise DataError("broken", subject="file 3", hint="mend it")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_workers_keep_their_parts(workers):
    loader = make_loader(Broken(), batch_size=2, seed=0, workers=workers, rank=0, world=1, train=True)
    with pytest.raises(DataError) as caught:
        list(loader)
    assert str(caught.value) == "broken: file 3. Fix: mend it"


def test_endless_data_go_on_where_the_epoch_before_ended():
    from unetzoo.training.data import EpochView

    endless = unetzoo.DATASETS.build("composites", size=32, length="endless", foregrounds=10, backgrounds=10)
    again = unetzoo.DATASETS.build("composites", size=32, length=4)
    ids = [EpochView(endless, seed=0)[epoch, 3]["id"][:6] for epoch in (0, 1, 2)]
    assert ids == [f"{3 + epoch * len(endless):06d}" for epoch in (0, 1, 2)]
    assert EpochView(again, seed=0)[0, 3]["id"] == EpochView(again, seed=0)[1, 3]["id"]
