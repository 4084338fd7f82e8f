"""Tables for a spreadsheet: CSV whose cells no spreadsheet runs as formulas."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from napari_cmunet.atomic import atomic_write

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


def write_table(
    path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]
) -> None:
    """Write rows as CSV, whole or not at all; what a row lacks stays empty.

    Raises
    ------
    WriteError
    """
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_cell(row.get(column, "")) for column in columns])


def _cell(value: object) -> object:
    if isinstance(value, str):  # names of files may be no text
        value = value.encode("utf-8", "replace").decode()
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r", "\n"):
        return f"'{value}"
    return value
