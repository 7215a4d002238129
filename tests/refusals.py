"""How an error is pinned: by its type and fields, not by its sentence."""

from contextlib import contextmanager

import pytest


@contextmanager
def refused(error, **fields):
    """The block raises this error, and each named field (`subject`, `expected`, `found`, `hint`) contains the text."""
    with pytest.raises(error) as caught:
        yield caught
    for name, text in fields.items():
        assert str(text) in str(getattr(caught.value, name)), (name, getattr(caught.value, name))
