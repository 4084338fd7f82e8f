"""Labels as maps of SYNTAX segments, and the table of their values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.io.csv_table import write_table
from napari_cmunet.vessels.naming import NamedTree
from napari_cmunet.vessels.segments import UNNAMED, VALUES, vessel_code, vessel_title
from napari_cmunet.vessels.tree import build_tree

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from napari_cmunet.io.masks.label_file import Label
    from napari_cmunet.project.training.labels import ProjectLabel

TABLE = "segments.csv"


def segment_values(labels: Iterable[Label | ProjectLabel]) -> np.ndarray:
    """Maps of the values of segments, uint8: (T, Y, X), (Y, X) of a single label."""
    pages = [NamedTree(build_tree(x.mask), x.names).values() for x in labels]
    return pages[0] if len(pages) == 1 else np.stack(pages)


def write_segment_table(folder: Path) -> str:
    """Write what each value means; return the file's name. Raises WriteError."""
    rows: list[dict[str, object]] = [{"value": 0, "name": "background"}]
    for value in (*VALUES.values(), UNNAMED):
        code, meaning = vessel_code(value)
        name = vessel_title(value)
        rows.append(
            {"value": value, "name": name, "snomed_ct": code, "meaning": meaning}
        )
    write_table(folder / TABLE, ("value", "name", "snomed_ct", "meaning"), rows)
    return TABLE
