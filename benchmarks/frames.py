"""Frames with true masks for the benchmarks: of a folder, or synthetic.

A folder holds images/, masks/ and index.csv with the columns stem, split and patient.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cmunet.io.images import read_angiogram
from napari_cmunet.io.masks import read_mask
from napari_cmunet.synthetic import PhantomConfig, make_frame

if TYPE_CHECKING:
    import numpy as np

PHANTOMS = "phantoms"
"""Given in place of a folder."""


def list_frames(data: str | Path, split: str, phantoms: int) -> list[tuple[str, str]]:
    """Name and patient of every frame of a split, or of so many phantoms."""
    if str(data) == PHANTOMS:
        return [(str(9000 + seed), str(seed)) for seed in range(phantoms)]
    with (Path(data) / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    return [(row["stem"], row["patient"]) for row in rows]


def read_frame(data: str | Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Image and true mask (bool) of a frame, (Y, X) each."""
    if str(data) == PHANTOMS:
        return make_frame(PhantomConfig(seed=int(name)))
    folder = Path(data)
    image = read_angiogram(next((folder / "images").glob(f"{name}.*"))).frames[0]
    mask = read_mask(next((folder / "masks").glob(f"{name}.*")))
    return image, mask.reshape(mask.shape[-2:]) > 0
