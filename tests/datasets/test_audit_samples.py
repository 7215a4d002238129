"""Audits of datasets by their samples."""

import numpy as np
import pytest
from auditing import codes, size_of

import unetzoo
from unetzoo.doctor import audit
from unetzoo.errors import DataError, PluginError
from unetzoo.labels import LabelSpec


class Plain:
    """A dataset that only meets the contract."""

    labels = LabelSpec(("background", "thing"))
    transform = None

    def __init__(self, samples, **changes):
        self.samples = samples
        self.__dict__.update(changes)

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        sample = self.samples[index]
        if isinstance(sample, BaseException):
            raise sample
        return sample


def sample(seed, **changes):
    rng = np.random.default_rng(seed)
    mask = np.zeros((20, 24), np.int64)
    mask[5:12, 4 + seed % 9 : 12 + seed % 9] = 1
    return {"image": rng.integers(0, 255, (20, 24, 3), dtype=np.uint8), "mask": mask, "id": f"s{seed}"} | changes


class TestSamples:
    def test_a_dataset_that_keeps_the_contract_is_sound(self):
        report = audit(Plain([sample(i) for i in range(6)]))
        assert codes(report, "error", "warning") == set()
        assert [share.pixels for share in report.classes] == [6 * (20 * 24 - 56), 6 * 56]

    @pytest.mark.parametrize(
        ("bad", "code"),
        [
            (sample(9, mask=np.full((20, 24), 7)), "out-of-range-id"),
            (sample(9, mask=np.zeros((10, 24), int)), "size-mismatch"),
            (sample(9, mask=np.zeros((20, 24), np.float32)), "broken-contract"),
            (sample(9, instances=np.zeros((20, 23), int)), "broken-contract"),
            (sample(9, instances=np.full((20, 24), -1)), "broken-contract"),
            (sample(9, instances=np.zeros((20, 24))), "broken-contract"),
            (sample(9, image="a text"), "broken-contract"),
            (sample(9, image=np.zeros((0, 4, 3), np.uint8)), "broken-contract"),
            (sample(9, mask=np.zeros((0, 0), np.uint8)), "broken-contract"),
            (sample(9, image=np.zeros((20, 24, 3), np.uint8)), "blank-image"),
            (sample(9, depth=np.ones((20, 24), np.float32)), "depth-constant"),
            (sample(9, depth=np.random.default_rng(0).random((9, 9))), "depth-size-mismatch"),
            (sample(0), "duplicate-image"),
            (sample(0, mask=1 - sample(0)["mask"]), "conflicting-labels"),
            ((1, 2, 3), "broken-contract"),
            (RuntimeError("boom"), "sample-error"),
            (DataError("broken file", subject="x.png"), "sample-error"),
        ],
    )
    def test_a_bad_sample_is_a_finding(self, bad, code):
        samples = [sample(i) for i in range(6)]
        report = audit(Plain([*samples, bad]))
        assert code in codes(report, "error", "warning")
        assert report.audited >= 6

    def test_leakage_between_two_datasets(self):
        train, val = Plain([sample(i) for i in range(6)]), Plain([sample(i) for i in (7, 3, 8)])
        report = audit({"train": train, "val": val})
        assert codes(report, "error") == {"leakage"} and report.splits == {"train": 6, "val": 3}
        assert "val 1" in str(report.errors[0].cases[0]) and "train 3" in str(report.errors[0].cases[0])

    def test_the_transform_is_left_off_and_left_on(self):
        data = unetzoo.datasets.Composites("val", size=32, length=6, transform=lambda sample, rng: 1 / 0)
        report = audit(data)
        assert codes(report, "error", "warning") == set() and data.transform is not None

    def test_without_labels_or_length_it_is_no_dataset(self):
        assert codes(audit(Plain([sample(0)], labels=None)), "error") == {"broken-contract"}
        with pytest.raises(DataError, match="not a dataset"):
            audit(object())
        with pytest.raises(DataError, match="no datasets"):
            audit({})

    def test_a_plugins_dataset_is_built_and_audited(self, tmp_path, monkeypatch):
        monkeypatch.setattr(unetzoo.DATASETS, "_local", {})

        @unetzoo.DATASETS.register("acme")
        def acme(root, split="train"):
            return Plain([sample(i + 50 * (split == "val")) for i in range(4)])

        report = audit(tmp_path / "samples.h5", "acme", sheet=tmp_path / "sheet.png")  # its root is its own affair
        assert report.dataset == "acme" and report.splits == {"train": 4, "val": 4, "test": 4}
        assert codes(report, "error") == {"leakage"}  # it gives its train for test
        assert size_of(tmp_path / "sheet.png")[0] > 400

        @unetzoo.DATASETS.register("broken")
        def broken(root):
            raise RuntimeError("no")

        with pytest.raises(PluginError, match="RuntimeError: no"):
            audit(tmp_path, "broken")
