"""Reading CSV files with line numbers, and collecting all faults."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigError, DataError, did_you_mean
from .listing import shown

DELIMITERS = (",", ";", "\t", "|")
_OTHER_ENCODINGS = (b"\xff\xfe", b"\xfe\xff")  # the marks of UTF-16


class Row(NamedTuple):
    """A row: its first line, and its cells by role."""

    line: int
    cells: dict[str, str]


class Table(NamedTuple):
    """The rows of a file, the roles that have a column, and the faults found."""

    rows: list[Row]
    roles: frozenset[str]
    faults: list[str]


def read_table(path: Path, columns: Mapping[str, str], required: frozenset[str], delimiter: str | None = None) -> Table:
    """Read the columns of a CSV file that have a role; others are ignored.

    Args:
        path: A UTF-8 file with a header line. Headers are compared ignoring case and surrounding spaces.
        columns: The header of each role's column.
        required: Roles whose columns are required.
        delimiter: The delimiter; by default the one of `,` `;` tab `|` that finds most columns in the header.

    Raises:
        ConfigError: A delimiter of several characters.
        DataError: Missing file, header or required columns.
    """
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise ConfigError("wrong delimiter", expected="one character", found=repr(delimiter), hint='try ";"')
    text = _text(path)
    places = _header(path, text, columns, required, delimiter)
    faults: list[str] = []
    rows = [Row(line, {role: cells[place].strip() for role, place in places.by_role.items()})
            for line, cells in _rows(text, places, faults)]  # fmt: skip
    return Table(rows, frozenset(places.by_role), faults)


class _Header(NamedTuple):
    delimiter: str
    width: int
    by_role: dict[str, int]


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError("cannot read the manifest", subject=path, found=error.strerror,
                        hint="check the path and its permissions") from error  # fmt: skip
    if data.startswith(_OTHER_ENCODINGS):
        raise DataError("cannot read the manifest", subject=path, expected="UTF-8", found="UTF-16",
                        hint="save it as UTF-8")  # fmt: skip
    return data.decode("utf-8-sig", errors="surrogateescape")  # invalid UTF-8 is reported with the other faults


def _header(path: Path, text: str, columns: Mapping[str, str], required: frozenset[str], given: str | None) -> _Header:
    readings: list[_Header] = []
    seen: list[str] = []
    for delimiter in DELIMITERS if given is None else (given,):
        try:
            names = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), [])
        except csv.Error:
            continue
        plain = [name.strip().casefold() for name in names]
        by_role = {role: plain.index(name.strip().casefold()) for role, name in columns.items()
                   if name.strip().casefold() in plain}  # fmt: skip
        readings.append(_Header(delimiter, len(names), by_role))
        if len(names) > len(seen):
            seen = [name.strip() for name in names]
        doubled = sorted(columns[role] for role, place in by_role.items() if plain.count(plain[place]) > 1)
        if doubled and required <= set(by_role):
            raise DataError("duplicate column", subject=path, found=", ".join(doubled), hint="rename one of them")
    best = max(readings, key=lambda header: len(header.by_role), default=_Header(",", 0, {}))
    if missing := [columns[role] for role in columns if role in required and role not in best.by_role]:
        hint = f"{did_you_mean(missing[0], seen, 'column')}; or set columns= to your headers"
        raise DataError("missing columns", subject=path, expected=", ".join(missing),
                        found=shown(map(_plain, seen)), hint=hint)  # fmt: skip
    return best


def _rows(text: str, header: _Header, faults: list[str]) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of each valid row below the header."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=header.delimiter, strict=True)
    next(reader, None)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            faults.append(f"line {line}: {error}")
            return
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != header.width:
            faults.append(f"line {line}: {len(cells)} cells instead of {header.width}")
        elif strange := [cell for cell in cells if not cell.isascii() and _plain(cell) != cell]:
            faults.append(f"line {line}: {_plain(strange[0])!r} is not UTF-8")
        elif any("\0" in cell for cell in cells):
            faults.append(f"line {line}: a NUL byte")
        else:
            yield line, cells


def _plain(text: str) -> str:
    """The text without bytes that are not UTF-8."""
    return text.encode("utf-8", errors="replace").decode("utf-8")
