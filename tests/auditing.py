"""Shared by the tests of the audit."""

from PIL import Image


def codes(report, *severities):
    return {f.code for f in report.findings if not severities or f.severity in severities}


def size_of(path):
    with Image.open(path) as image:
        return image.size
