"""The pages that are made from the library itself: `python -m docs.generate`."""
