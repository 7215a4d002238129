"""Every fault is found in every layout that can have it, and nothing in correct data."""

import builtins
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from twinned import plants

import unetzoo
from unetzoo.doctor import audit, recognize, stacks
from unetzoo.doctor.kinds import KINDS
from unetzoo.twins import FAULTS, LAYOUTS, plant, write

NOTES = {"stray-file", "empty-mask", "absent-class", "gray-image"}  # worth knowing, no more


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """clean(name): a twin without faults, written once."""
    roots: dict[str, Path] = {}

    def twin(name):
        if name not in roots:
            roots[name] = write(name, tmp_path_factory.mktemp(name) / "data", count=10)
        return roots[name]

    return twin


def audited(root, name, **options):
    layout = LAYOUTS[name]
    return audit(root, layout.dataset, options=dict(layout.options), **options)


@pytest.fixture
def denied(monkeypatch):
    """Enforce permissions, which the superuser does not need."""

    def guarded(read):
        def reading(path, *args, **kwargs):
            if isinstance(path, Path) and path.exists() and not path.stat().st_mode & 0o400:
                raise PermissionError(13, "Permission denied", str(path))
            return read(path, *args, **kwargs)

        return reading

    monkeypatch.setattr(Path, "read_bytes", guarded(Path.read_bytes))
    monkeypatch.setattr(stacks, "open", guarded(builtins.open), raising=False)


@pytest.mark.parametrize(("name", "fault"), list(plants()))
def test_a_planted_fault_is_found_by_name_and_nothing_else_is(name, fault, clean, tmp_path, denied):
    root = shutil.copytree(clean(name), tmp_path / "data")
    touched = {path.relative_to(root).as_posix() for path in plant(root, name, fault)}
    report = audited(root, name)
    (found,) = [finding for finding in report.findings if finding.code == fault and finding.severity != "note"] or [
        finding for finding in report.findings if finding.code == fault and fault in NOTES
    ]
    others = [f"{finding.code}: {finding.cases[0]}" for finding in report.findings if finding.severity != "note"]
    assert not [other for other in others if not other.startswith(f"{fault}:")]
    assert found.reason and found.fix and found.count >= len(found.cases) > 0
    if fault not in ("absent-class", "missing-mask", "missing-image", "depth-missing", "duplicate-stem"):
        named = "\n".join(map(str, found.cases))
        assert any(path in named for path in touched), f"{named} are not {touched}"


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_sound_twin_is_recognized_and_found_sound(name, clean):
    layout = LAYOUTS[name]
    (likeliest, confidence), *others = recognize(clean(name))
    assert likeliest == layout.dataset and confidence >= 0.5
    assert all(confidence - other >= 0.15 for _, other in others)
    report = audited(clean(name), name)
    assert not report.errors and not report.warnings
    assert report.samples == report.audited == sum(report.splits.values()) > 0
    unnamed = audit(clean(name))
    assert (unnamed.dataset, unnamed.fits) == (layout.dataset, 1)
    assert not unnamed.errors and not unnamed.warnings


@pytest.mark.parametrize("name", [name for name in LAYOUTS if LAYOUTS[name].masks is not None])
def test_classes_and_splits_are_those_of_the_dataset(name, clean):
    layout = LAYOUTS[name]
    pixels, images, splits = Counter(), Counter(), {}
    for split in layout.splits:
        data = unetzoo.DATASETS.build(layout.dataset, root=clean(name), split=split, **layout.options)
        splits[split] = len(data)
        for index in range(len(data)):
            values, counts = np.unique(data[index]["mask"], return_counts=True)
            for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                pixels[value] += count
                images[value] += 1
    report = audited(clean(name), name)
    assert {split: count for split, count in report.splits.items() if split in splits} == splits
    for index, share in enumerate(report.classes):
        assert (share.pixels, share.images) == (pixels[index], images[index]), share.name
    known = sum(share.pixels for share in report.classes)
    assert [share.share for share in report.classes] == pytest.approx([s.pixels / known for s in report.classes])


def test_thirty_kinds_of_faults_at_least_can_be_planted():
    assert len(set(FAULTS) & set(KINDS)) == len(FAULTS) >= 30
