"""Pin an error by its type and fields, not by its sentence."""

from contextlib import contextmanager

import pytest


@contextmanager
def refused(error, **fields):
    """Check that the block raises this error, and that each named field contains its text, or all its texts.

    The fields are `subject`, `expected`, `found` and `hint`.
    """
    with pytest.raises(error) as caught:
        yield caught
    for name, texts in fields.items():
        value = str(getattr(caught.value, name))
        for text in texts if isinstance(texts, tuple) else (texts,):
            assert str(text) in value, (name, value)
