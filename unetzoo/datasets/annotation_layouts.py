"""The formats of annotation files, so that `unetzoo doctor` can name them; the plugin `unetzoo-formats` reads them."""

from __future__ import annotations

from .annotations import AnnotationFiles
from .layout import FileLayout, FilePattern


def _layout(name: str, about: str, files: AnnotationFiles, certainty: float = 0.95) -> FileLayout:
    return FileLayout(name, about, (FilePattern("image", "{name}.jpg"),), annotations=files, certainty=certainty)


ANNOTATION_LAYOUTS = {
    layout.name: layout
    for layout in (
        _layout(
            "coco", "COCO JSON: images, annotations and categories in one file",
            AnnotationFiles(".json", (r"^\s*\{", r'"images"\s*:\s*\[', r'"(?:annotations|category_id)"\s*:',
                                      r'"(?:categories|category_id)"\s*:'), "annotations"),
        ),
        _layout(
            "labelme", "LabelMe: a JSON file per image, with its shapes",
            AnnotationFiles(".json", (r"^\s*\{", r'"shapes"\s*:\s*\[', r'"image(?:Path|Height|Data)"\s*:')),
        ),
        _layout(
            "yolo-seg", "YOLO segmentation: a text file per image, with a class and the points of a polygon per line",
            AnnotationFiles(".txt", (r"(?m)^\d+(?: [-+.\de]+){6,} *\r?$",)), 0.9,
        ),
        _layout(
            "rle-csv", "run lengths in a CSV file, as on Kaggle",
            AnnotationFiles(".csv", (r"(?i)^[^\n]*(?:encodedpixels|rle|annotation|segmentation)", r"\d+ \d+"),
                            "annotations"), 0.9,
        ),
        _layout(
            "cvat", "CVAT for images: XML with the shapes of all images",
            AnnotationFiles(".xml", (r"<annotations>", r"<image\s[^>]{0,400}\bname="), "annotations"),
        ),
        _layout(
            "label-studio", "Label Studio: its JSON export of tasks and annotations",
            AnnotationFiles(".json", (r"^\s*\[", r'"annotations"\s*:\s*\[', r'"result"\s*:', r'"data"\s*:'),
                            "annotations"),
        ),
    )
}  # fmt: skip
