"""`unetzoo doctor` finds every format by itself, and proposes arguments that read it."""

import pytest
from unetzoo_formats.checks import WRITERS, miniature

from unetzoo import DATASETS
from unetzoo.doctor import audit, recognize


@pytest.mark.parametrize("format", WRITERS)
def test_the_format_is_recognized_and_sound(format, tmp_path):
    root = miniature(format, tmp_path)
    assert recognize(root)[0][0] == format
    report = audit(root)
    assert report.dataset == format and not report.errors and not report.warnings
    assert sorted(report.splits.items()) == [("train", 4), ("val", 1)]
    options = {**report.options, **report.proposal}
    assert DATASETS.build(format, root=root, **options).labels.names == report.labels.names
    assert [share.name for share in report.classes if share.pixels] == list(report.labels.names)


@pytest.mark.parametrize("format", WRITERS)
def test_faults_of_an_image_are_findings(format, tmp_path):
    from PIL import Image

    root = miniature(format, tmp_path)
    (root / "images" / "photo_2.png").write_bytes(b"broken")
    Image.new("RGB", (9, 9)).save(root / "images" / "photo_3.png")
    cases = [str(case) for finding in audit(root).errors for case in finding.cases]
    assert any("photo_2" in case for case in cases)
    if format not in ("yolo-seg", "rle-csv"):  # their files declare no size
        assert any("photo_3" in case for case in cases)


def test_the_table_to_paste_is_printed(tmp_path, capsys):
    from rich.console import Console

    root = miniature("coco", tmp_path)
    Console(width=200).print(audit(root), soft_wrap=True)
    shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
    place = shown.index("[data]")
    assert shown[place + 1 : place + 5] == [
        'name = "coco"', f'root = "{root}"', 'annotations = "annotations.json"',
        'names = ["background", "cell", "nucleus"]',
    ]  # fmt: skip


def test_missing_images_end_the_command_without_advice_to_run_it_again(tmp_path, capsys):
    from unetzoo.cli import main

    root = miniature("coco", tmp_path)
    (root / "images" / "photo_1.png").unlink()
    with pytest.raises(SystemExit) as ended:
        main(["doctor", str(root)])
    complained = capsys.readouterr().err
    assert ended.value.code == 3 and "photo_1.png" in complained and "unetzoo doctor" not in complained
