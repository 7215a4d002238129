"""Write the generated pages, or with --check list those that are out of date."""

from __future__ import annotations

import argparse
import sys

from . import DOCS, pages, stale


def main() -> None:
    """Parse, then write or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pattern", nargs="?", default="*", help="shell pattern of paths, e.g. 'models/unet*'")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page is out of date")
    given = parser.parse_args()
    if given.check:
        sys.exit("".join(f"out of date: {name}\n" for name in stale(given.pattern)) or 0)
    for name, text in pages(given.pattern):
        path = DOCS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(name)


if __name__ == "__main__":
    main()
