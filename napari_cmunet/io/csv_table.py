"""CSV tables that no spreadsheet takes for formulas."""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING

from napari_cmunet.util.atomic import atomic_write

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

# Start of a formula, in full width too, at the start of a cell; also of one that a
# spreadsheet makes by itself, since many take semicolons for separators.
_FORMULA = re.compile(r"(^|[;|\t\r\n])(?=\s*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20])")


def write_table(
    path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]
) -> None:
    """Write rows as CSV, atomically, with no cell that a spreadsheet runs as formula.

    A column that a row lacks stays empty.

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
    if not isinstance(value, str):
        return value
    text = value.encode("utf-8", "replace").decode()  # names of files may be no text
    return _FORMULA.sub(r"\1'", text)
